"""The one function mode of a thread, under ``trace`` and ledgers: it sees every torch call.

What a function can do to gradients is told once, from what it is called, and then looked up: most
calls make nodes or do nothing of interest, some write in place, a few touch ``.grad`` or run the
engine. The mode notes nodes, cuts, writes and engine calls, and tells listeners what concerns
``.grad``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .. import _torch
from . import cuts, enginecalls, mutations
from .events import UserCall
from .listeners import Listener
from .noting import Args, Kwargs, note_cut, note_nodes, reason_for, tensors_in
from .optimizersteps import Steps
from .sites import asked_by_us, call_at, function_name, site


class _Thread(threading.local):
    def __init__(self) -> None:
        self.mode: CallMode | None = None
        self.blocks = 0
        self.listeners: list[Listener] = []
        self.steps: Steps | None = None
        self.paused = False
        self.beneath: TorchFunctionMode | None = None


_thread = _Thread()


def begin_block(listener: Listener | None = None) -> None:
    """Watch the calls of this thread until as many blocks have ended as have begun."""
    if listener is not None:
        _thread.listeners.append(listener)
    if _thread.mode is None:
        _thread.steps = Steps(_thread.listeners, _pause, resume)
        _torch.begin_watching()
        _thread.mode = CallMode()
        _thread.mode.__enter__()  # type: ignore[no-untyped-call]
    _thread.blocks += 1


def end_block(listener: Listener | None = None) -> None:
    if listener is not None:
        _thread.listeners.remove(listener)
    _thread.blocks -= 1
    if _thread.blocks == 0 and _thread.mode is not None:
        _torch.end_watching()
        mode, _thread.mode = _thread.mode, None
        if not _thread.paused:
            _torch.take_off(mode)
        _thread.paused = False
        if _thread.steps is not None:
            _thread.steps.stop()


def _pause() -> None:
    """What an optimizer computes on the way to new parameters goes nowhere else, and is a large
    part of all calls: they are left alone, where no mode of somebody else lies on top."""
    mode = _thread.mode
    if mode is not None and not _thread.paused and _torch.top_function_mode() is mode:
        _torch.take_off(mode)
        _thread.paused, _thread.beneath = True, _torch.top_function_mode()


def resume() -> None:
    """After a step; or where a step has raised, and was never seen to end.

    Not on top of a mode that was entered since: its end would take off this one in its place.
    """
    on_place = _torch.top_function_mode() is _thread.beneath
    if _thread.mode is not None and _thread.paused and on_place:
        _thread.paused = False
        _thread.mode.__enter__()  # type: ignore[no-untyped-call]


class CallMode(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Args = (),
        kwargs: Kwargs | None = None,
    ) -> Any:
        if torch.compiler.is_dynamo_compiling():  # it traces this, too, and cannot look further
            return func(*args, **(kwargs or {}))
        if _torch.is_quiet():
            return func(*args, **(kwargs or {}))
        handler = _handlers.get(func)
        if handler is None:
            handler = _handlers.setdefault(func, _handler_for(func))
        return handler(func, args, kwargs or {})


def _pass_on(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return func(*args, **kwargs)


def _compute(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """A call that may make nodes, or values without a graph."""
    if kwargs and ("out" in kwargs or kwargs.get("inplace") is True):
        return _write(func, args, kwargs)
    before = _torch.next_sequence_number()
    result = func(*args, **kwargs)
    if _torch.next_sequence_number() != before and torch.is_grad_enabled():
        note_nodes(before, func, result, args, kwargs)
    elif isinstance(result, (Tensor, tuple, list)):
        note_cut(func, result, args, kwargs)
    return result


def _read_out(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """``item``, ``numpy``, ``tolist``: values leave for where nobody follows."""
    result = func(*args, **kwargs)
    if args and isinstance(args[0], Tensor):
        name = function_name(func)
        if cuts.carries(args[0]) and not _torch.is_transform_tensor(args[0]):
            cuts.note_read(call_at(site(3), name), args[0])
        if name in _HANDS_OUT_MEMORY:
            for listener in _thread.listeners:
                listener.handed_out(args[0], name, site(3))
    return result


def _write(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """A call that writes to the tensors that it is given first, or as ``out``."""
    targets = list(tensors_in(kwargs.get("out"))) or list(tensors_in(args[:1]))
    listeners = _thread.listeners
    for listener in listeners:
        for target in targets:
            listener.about_to_write(target)
    versions = [_torch.version_of(target) for target in targets]
    before = _torch.next_sequence_number()
    result = func(*args, **kwargs)
    name, where = function_name(func), site(3)
    call = call_at(where, name)
    for target, version in zip(targets, versions, strict=True):
        mutations.note(target, version, call)
    if _torch.next_sequence_number() != before and torch.is_grad_enabled():
        note_nodes(before, func, (result, targets), args, kwargs)
    else:
        if "out" in kwargs or name in _OVERWRITES:
            for target in targets:
                cuts.forget(target)
        given = args if "out" in kwargs else args[1:]
        _carry_on(call, targets, (*given, *kwargs.values()))
    for listener in listeners:
        for target in targets:
            listener.wrote(target, name, where)
    return result


def _carry_on(call: UserCall, targets: list[Tensor], written: Args) -> None:
    """Values without a graph that were written into tensors without one."""
    sources = [t for t in tensors_in(written) if cuts.carries(t)]
    if not sources:
        return
    for target in targets:
        if not target.requires_grad:
            cuts.note(target, cuts.cut(reason_for(call.function, target), call, sources))


def _run_engine(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if func is torch.autograd.grad and asked_by_us(3):
        return func(*args, **kwargs)  # a look of pullback's own
    place = call_at(site(3), function_name(func))
    call, asked = enginecalls.begin(func, args, kwargs, place)
    for listener in _thread.listeners:
        listener.engine_begins(call, asked)
    del asked
    before = _torch.next_sequence_number()
    try:
        result = func(*args, **kwargs)
        enginecalls.end(call)
        if call.create_graph:
            note_nodes(before, func, result, args, kwargs)
        return result
    except BaseException as error:  # kept in no variable: it would hold this frame, and the graph
        enginecalls.end(call, error)
        raise
    finally:
        for listener in _thread.listeners:
            listener.engine_ended(call)


def _get_grad(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    result = func(*args, **kwargs)
    if result is None and _thread.listeners and not asked_by_us(3):
        where = site(3)
        for listener in _thread.listeners:
            listener.grad_was_none(args[0], where)
    return result


def _set_grad(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    result = func(*args, **kwargs)
    if _thread.listeners and not asked_by_us(3):
        where = site(3)
        for listener in _thread.listeners:
            listener.grad_was_set(args[0], args[1] if len(args) > 1 else None, where)
    return result


def _get_data(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    result = func(*args, **kwargs)
    source = args[0]
    if not cuts.carries(source) or _torch.is_transform_tensor(source):
        return result
    cuts.note(result, cuts.cut("data", call_at(site(3), "data"), [source]))
    return result


def _set_data(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    before = _torch.version_of(args[0])
    result = func(*args, **kwargs)
    mutations.note(args[0], before, call_at(site(3), "data"), behind=True)
    for listener in _thread.listeners:
        listener.data_was_set(args[0])
    return result


def _detach_in_place(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    tensor = args[0]
    found: tuple[Any, ...] = ()
    if cuts.carries(tensor) and not _torch.is_transform_tensor(tensor):
        found = cuts.cut("detach", call_at(site(3), "detach_"), [tensor])
    result = func(*args, **kwargs)
    if found:
        cuts.note(tensor, found)
    return result


Handler: TypeAlias = Callable[[Callable[..., Any], Args, Kwargs], Any]
_ENGINE = (Tensor.backward, torch.autograd.backward, torch.autograd.grad)
_handlers: dict[Callable[..., Any], Handler] = dict.fromkeys(_ENGINE, _run_engine)
_HANDS_OUT_MEMORY = {"numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage"}
_READS_OUT = _HANDS_OUT_MEMORY | {
    "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__complex__", "__format__",
    "__contains__", "is_nonzero", "equal", "allclose",
}  # fmt: skip
_OVERWRITES = {"zero_", "fill_", "copy_", "uniform_", "normal_", "bernoulli_", "random_"}
_NO_WRITES = {"requires_grad_", "share_memory_", "rename_", "retain_grad_"}
_BY_NAME: dict[str, Handler] = {"detach_": _detach_in_place}
_PROPERTIES_THAT_COMPUTE = {"T", "H", "mT", "mH", "real", "imag"}
_IN_PLACE = re.compile(r"__setitem__|__i[a-z]+__|\w*[a-z0-9]_")
_NEVER_COMPUTES = {
    "_set_grad_enabled", "_record_function_enter_new", "_RecordFunction", "is_complex", "size",
    "is_floating_point", "dim", "numel", "stride", "is_contiguous", "register_hook", "retain_grad",
    "requires_grad_", "__len__", "__hash__", "__repr__", "_is_view", "device", "result_type",
}  # fmt: skip


def _handler_for(func: Callable[..., Any]) -> Handler:
    plain, name = getattr(func, "__name__", ""), function_name(func)
    if plain in ("__get__", "__set__", "__delete__"):
        return _handler_for_property(plain, name)
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _READS_OUT:
        return _read_out
    if name in _NEVER_COMPUTES:
        return _pass_on
    if _IN_PLACE.fullmatch(name) and name not in _NO_WRITES:
        return _write
    return _compute


def _handler_for_property(access: str, name: str) -> Handler:
    if name == "grad":
        return _get_grad if access == "__get__" else _set_grad
    if name == "data":
        return _get_data if access == "__get__" else _set_data
    if access == "__get__" and name in _PROPERTIES_THAT_COMPUTE:
        return _compute
    return _pass_on
