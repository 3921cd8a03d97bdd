"""Which user call made each autograd node: ``with pb.trace(): ...``.

Inside the block, every torch call reads the thread's autograd sequence number before and after;
the nodes it made are the ones numbered in between. They carry a note of the call from then on, so
a record made later, or in another place, finds it. No stacks are captured: one walk to the first
frame outside of torch, cached per instruction.
"""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from .. import _torch
from . import modules
from .depth import latch
from .events import UserCall

_NOTE = "pullback.call"
_LEVEL = "pullback.level"
_parameter_names: WeakIdKeyDictionary = WeakIdKeyDictionary()


def call_of(node: Node) -> UserCall | None:
    """The user call that made ``node``, if it was made under ``trace``."""
    found = _torch.notes_of(node).get(_NOTE)
    return found if isinstance(found, UserCall) else None


def parameter_name(tensor: Tensor) -> str | None:
    """The name under which a module seen by ``trace`` knows ``tensor``."""
    name = _parameter_names.get(tensor)
    return name if isinstance(name, str) else None


class trace:  # noqa: N801 - used as a function: with pb.trace(): ...
    """Remember which user call made each node of the graphs built inside the block.

    Records, explanations and drawings made from those graphs then quote the expression, the file
    and the line, and name the parameters of every ``nn.Module`` that ran inside the block.

    Nodes made by ``autograd.Function.apply`` are not seen by torch's function modes and stay
    without a call. Trace eager code: around a function compiled by ``torch.compile`` the block
    makes torch compile it anew. Values and gradients are not changed; each torch call costs some
    ten microseconds more. Blocks may be nested; each thread traces its own calls.

    >>> import torch, pullback as pb
    >>> x = torch.ones(3, requires_grad=True)
    >>> with pb.trace():
    ...     y = x.exp().sum()
    >>> [node.call.function for node in pb.record(y).nodes if node.call]
    ['sum', 'exp']
    """

    def __init__(self) -> None:
        self._mode = _CallMode()
        self._seen: WeakSet[nn.Module] = WeakSet()
        self._hooks: list[tuple[RemovableHandle, ...]] = []

    def __enter__(self) -> trace:
        before = nn.modules.module.register_module_forward_pre_hook(self._note_module)
        after = nn.modules.module.register_module_forward_hook(_leave_module, always_call=True)
        self._hooks.append((before, after))
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks.pop():
            hook.remove()
        if not self._hooks:
            modules.forget()
        self._mode.__exit__(kind, value, traceback)  # type: ignore[no-untyped-call]

    def _note_module(self, module: nn.Module, inputs: Any) -> None:
        if module not in self._seen:
            self._seen.add(module)
            _note_parameters(module)
        modules.enter(module)


def _leave_module(module: nn.Module, inputs: Any, output: Any) -> None:
    modules.leave(module)


def _note_parameters(module: nn.Module) -> None:
    """Keep the longest name of each parameter: the one that the outermost module knows it by."""
    for name, parameter in module.named_parameters():
        known = _parameter_names.get(parameter)
        if known is None or len(known) < len(name):
            _parameter_names[parameter] = name


class _CallMode(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        before = _torch.next_sequence_number()
        result = func(*args, **(kwargs or {}))
        if _torch.next_sequence_number() != before and torch.is_grad_enabled():
            _note_nodes(before, _user_call(func), (result, args[:1]))
        return result


def _note_nodes(first: int, call: UserCall, values: Any) -> None:
    """Mark the nodes numbered ``first`` or later that are reachable from ``values``."""
    stack = [t.grad_fn for t in _tensors_in(values) if not _torch.is_transform_tensor(t)]
    made: list[Node] = []
    while stack:
        node = stack.pop()
        if node is None or _torch.sequence_number(node) < first or _torch.leaf_of(node) is not None:
            continue
        notes = _torch.notes_of(node)
        if _NOTE not in notes:
            notes[_NOTE] = call
            made.append(node)
            stack.extend(child for child, _ in node.next_functions)
    for node in sorted(made, key=_torch.sequence_number):  # a node is younger than those below it
        _note_level(node)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in what a torch call takes or returns: a few levels of tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors_in(item)


def _note_level(node: Node) -> None:
    below = [(child, _level(child)) for child, _ in node.next_functions if child is not None]
    level = 1 + max((height for _, height in below), default=0)
    _torch.notes_of(node)[_LEVEL] = level
    latch(node, level, below)


def _level(node: Node) -> int:
    return int(_torch.notes_of(node).get(_LEVEL, 0))


def _user_call(func: Callable[..., Any]) -> UserCall:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _torch.is_library_file(frame.f_code.co_filename):
        frame = frame.f_back
    name = _function_name(func)
    if frame is None:
        return UserCall(name, "", 0, "", modules.current())
    code = frame.f_code
    line, text = _expression(code, frame.f_lasti)
    return UserCall(name, code.co_filename, line or frame.f_lineno, text, modules.current())


def _function_name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name)


_expressions: dict[tuple[CodeType, int], tuple[int, str]] = {}


def _expression(code: CodeType, instruction: int) -> tuple[int, str]:
    """The line of an instruction, and the source text of exactly its expression."""
    key = (code, instruction)
    if key not in _expressions:
        if len(_expressions) > 100_000:
            _expressions.clear()
        position = next(itertools.islice(code.co_positions(), instruction // 2, None), None)
        _expressions[key] = _source(code.co_filename, position or (None, None, None, None))
    return _expressions[key]


def _source(
    filename: str, position: tuple[int | None, int | None, int | None, int | None]
) -> tuple[int, str]:
    line, end_line, start, end = position
    if line is None:
        return 0, ""
    text = linecache.getline(filename, line).rstrip("\n")
    if start is None or end is None or not text:
        return line, text.strip()
    raw = text.encode()  # columns count bytes, not characters
    if end_line == line:
        return line, raw[start:end].decode(errors="replace")
    return line, raw[start:].decode(errors="replace").rstrip() + " ..."
