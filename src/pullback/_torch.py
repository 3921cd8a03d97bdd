"""The only reader of torch's private parts.

``_capabilities`` tries each of these facts on the installed torch. Where one does not hold, the
functions below answer "unknown" and the caller says less; they never guess.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

_TORCH_ROOT = str(Path(torch.__file__).parent) + os.sep
_PACKAGE_ROOT = str(Path(__file__).parent) + os.sep
# Programs that pullback ships to be read and run stand where a user's program would.
_USER_SIDE = tuple(_PACKAGE_ROOT + folder + os.sep for folder in ("demo", "lessons"))


class Slot(NamedTuple):
    """What autograd expects to receive at one output of a node."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def is_library_file(filename: str) -> bool:
    """Whether a code object belongs to torch or to pullback, not to the program that uses them."""
    if filename.startswith(_USER_SIDE):
        return False
    return filename.startswith((_TORCH_ROOT, _PACKAGE_ROOT, "<frozen"))


def saved_tensors(node: Node) -> tuple[str, ...]:
    """The names under which a node keeps tensors for its backward; nothing is unpacked."""
    found = []
    for attribute in dir(node):
        if not attribute.startswith("_raw_saved_"):
            continue
        try:
            raw = getattr(node, attribute)
        except RuntimeError:  # freed
            continue
        parts = raw if isinstance(raw, (tuple, list)) else (raw,)
        if any(getattr(part, "data", None) is not None for part in parts):
            found.append(attribute.removeprefix("_raw_saved_"))
    return tuple(found)


def next_sequence_number() -> int:
    """The number that the next autograd node made by this thread will carry."""
    return int(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]


def notes_of(node: Node) -> dict[str, Any]:
    """A dictionary that lives as long as the node. torch's stub calls the property a method."""
    return cast(dict[str, Any], node.metadata)


def sequence_number(node: Node) -> int:
    return int(node._sequence_nr())


def node_name(node: Node) -> str:
    """``PowBackward0``, ``AccumulateGrad``: the class alone, without its C++ namespace."""
    return node.name().rpartition("::")[2]


def slots(node: Node) -> tuple[Slot, ...]:
    return tuple(Slot(tuple(m.shape), m.dtype) for m in node._input_metadata)


def leaf_of(node: Node) -> Tensor | None:
    """The tensor that an AccumulateGrad node writes to; None for any other node."""
    variable = getattr(node, "variable", None)
    return variable if isinstance(variable, Tensor) else None


def custom_function(node: Node) -> type[Any] | None:
    """The user's ``torch.autograd.Function`` behind a node, if it is one."""
    forward_class = getattr(node, "_forward_cls", None)
    return forward_class if isinstance(forward_class, type) else None


def freed_tensor(node: Node) -> str | None:
    """The name of a saved tensor that an earlier backward has freed, or None."""
    for attribute in dir(node):
        if attribute.startswith("_saved_") or attribute == "saved_tensors":
            try:
                getattr(node, attribute)
            except RuntimeError as error:
                if "freed" in str(error):
                    return attribute.removeprefix("_saved_")
    return None


def running_transform() -> str | None:
    """``grad``, ``vmap``, ``jvp``... when called inside a torch.func transform, else None."""
    interpreter = torch._C._functorch.peek_interpreter_stack()
    return None if interpreter is None else str(interpreter.key()).rpartition(".")[2].lower()


def is_transform_tensor(tensor: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


@contextmanager
def outside_transforms() -> Iterator[None]:
    """As if no torch.func transform were running: for work on plain tensors of our own."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    if torch._C._functorch.peek_interpreter_stack() is None:
        yield
    else:
        with temporarily_clear_interpreter_stack():
            yield


def plain_copy(value: Any) -> Any:
    """A copy of an inference tensor that autograd may record; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def plain_sample(tensor: Tensor) -> Tensor:
    """A plain tensor of the shape that a transform shows: of a batch, its first entry."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        batched = functorch.is_batchedtensor(tensor)
        place = functorch.maybe_get_bdim(tensor) if batched else 0
        tensor = functorch.get_unwrapped(tensor)
        if batched:
            with outside_transforms():
                tensor = tensor.select(place, 0)
    return tensor


def plain_autograd_sees_everything() -> bool:
    """Whether ``torch.autograd.grad`` is the outermost differentiation running here."""
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and not torch.is_inference_mode_enabled()
        and not torch.compiler.is_compiling()
    )


_BATCHING = ("_vmap_increment_nesting", "_vmap_decrement_nesting", "_add_batch_dim",
             "_remove_batch_dim")  # fmt: skip
can_map = all(hasattr(torch._C._functorch, name) for name in _BATCHING)


def mapped(
    function: Callable[[Sequence[Tensor]], Sequence[Tensor | None]], batch: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """``torch.func.vmap`` over the first dim, with one draw for all, for flat sequences of tensors:
    without its search through nested arguments, which takes longer than small products."""
    from torch._functorch.vmap import lazy_load_decompositions  # type: ignore[attr-defined]

    lazy_load_decompositions()
    functorch, size = torch._C._functorch, batch[0].shape[0]
    level = functorch._vmap_increment_nesting(size, "same")
    try:
        found = function([functorch._add_batch_dim(t, 0, level) for t in batch])
        return tuple(
            None if t is None else functorch._remove_batch_dim(t, level, size, 0) for t in found
        )
    finally:
        functorch._vmap_decrement_nesting()


def gradient_transform_is_running() -> bool:
    """Whether a reverse-mode torch.func transform runs here, at any level."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(str(level.key()).endswith("Grad") for level in levels)


@cache
def load_forward_mode() -> None:
    """Load what torch loads at the first forward-mode product, without its own deprecation warning.

    torch 2.13 calls its deprecated ``torch.jit.script`` there, so ``torch.func.jvp`` raises in a
    process that turns warnings into errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def handle_hooks(handle: RemovableHandle) -> list[Callable[..., Any]]:
    """Every hook in the table that ``handle`` belongs to, its own included."""
    table = handle.hooks_dict_ref()
    return [] if table is None else list(table.values())


def graph_task() -> int:
    """The number of the backward pass that is running in this thread."""
    return int(torch._C._current_graph_task_id())


class RunningNode(NamedTuple):
    """A node whose backward runs now. ``built_in``: torch's own formula, not a user's Python."""

    name: str
    number: int
    built_in: bool


def running_node() -> RunningNode | None:
    """The node whose backward this thread is in; hooks between nodes are in none."""
    node = cast(Node | None, torch._C._current_autograd_node())
    if node is None:
        return None
    return RunningNode(node_name(node), sequence_number(node), custom_function(node) is None)


_DISPATCH_FILES = tuple(
    _TORCH_ROOT + name for name in ("_compile.py", "_dynamo" + os.sep, "utils" + os.sep + "_python")
)


def runs_a_formula() -> bool:
    """Inside a dispatch mode: whether the call comes from C++ of the engine, not from a hook.

    A hook runs while its node counts as running; but between the engine and the mode stands then a
    frame of Python.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith((_PACKAGE_ROOT, *_DISPATCH_FILES)):
            return code.co_name == "_engine_run_backward"
        frame = frame.f_back
    return True


def user_line() -> str:
    """``model.py:12``: the innermost running line that is neither torch's nor pullback's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not (is_library_file(name) or name.startswith("<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def version_of(tensor: Tensor) -> int:
    """How often ``tensor`` was written in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


# Classes of torch whose instances no operation returns to a user's program with a graph.
_NEVER_COMPUTED = (
    "torch.nn.parameter",
    "torch._subclasses",
    "torch.testing",
    "torch.sparse.semi_structured",
)


def _tensor_types() -> list[type[Any]]:
    """Tensor and its subclasses. Compared by identity: hashing a class may run a user's code."""
    found: dict[int, type[Any]] = {id(Tensor): Tensor}
    stack: list[type[Any]] = [Tensor]
    while stack:
        for child in type.__subclasses__(stack.pop()):
            if id(child) not in found:
                found[id(child)] = child
                stack.append(child)
    return [t for t in found.values() if not str(t.__module__).startswith(_NEVER_COMPUTED)]


def _live_tensors() -> list[Tensor]:
    """Every tensor in Python's reach that may have been computed; a node holds its own weakly.

    Found as what refers to the classes of tensors, as every instance does. ``gc.get_objects()``
    would also hand out the half-built tuples of other threads, whose construction fails while
    somebody else refers to them.
    """
    types = _tensor_types()
    known = set(map(id, types))
    return [found for found in gc.get_referrers(*types) if id(type(found)) in known]


def _attribute(tensor: Tensor, name: str) -> Any:
    try:
        return getattr(tensor, name)
    except Exception:  # a subclass may refuse any attribute, with any exception
        return None


class Watched(NamedTuple):
    """The tensors of a graph on which a backward pass has an effect of the user's making."""

    retaining: list[tuple[Tensor, Tensor | None]]
    hooked: list[Tensor]

    def see_each_pass(self, inputs: Sequence[Tensor]) -> bool:
        """Whether somebody looks at single cotangents on the way, who must not meet a batch.

        A batched tensor is dead after its batch: a hook that keeps it cannot read it, and a
        tensor that retains its gradient cannot add to it.
        """
        return bool(self.retaining or self.hooked or any(t._backward_hooks for t in inputs))


def watched_tensors(nodes: Container[Node]) -> Watched:
    """Non-leaf tensors made by ``nodes``: those that retain their gradient (with it), and those
    that carry hooks."""
    retaining: list[tuple[Tensor, Tensor | None]] = []
    hooked: list[Tensor] = []
    for tensor in _live_tensors():
        has_hooks = bool(_attribute(tensor, "_backward_hooks"))
        retains = bool(_attribute(tensor, "retains_grad"))
        if not (has_hooks or retains) or tensor.grad_fn is None or tensor.grad_fn not in nodes:
            continue
        if has_hooks:
            hooked.append(tensor)
        if retains:
            retaining.append((tensor, tensor.grad))
    return Watched(retaining, hooked)


def frozen_objects() -> int:
    """How many objects ``gc.freeze()`` has put out of the sight of ``watched_tensors``."""
    return gc.get_freeze_count()


@contextmanager
def untouched(nodes: Container[Node]) -> Iterator[Watched]:
    """Undo what a look would leave behind: ``.grad`` of retaining tensors, and the random state.

    ``autograd.grad`` fills the ``.grad`` of every tensor with ``retain_grad()`` on its way. The
    generators belong to the whole process: they are put back only if the pass has drawn.
    """
    watched = watched_tensors(nodes)
    cuda = torch.cuda.is_initialized()
    state = torch.get_rng_state()
    states = torch.cuda.get_rng_state_all() if cuda else []
    try:
        yield watched
    finally:
        if not torch.equal(state, torch.get_rng_state()):
            torch.set_rng_state(state)
        if cuda:
            torch.cuda.set_rng_state_all(states)
        for tensor, grad in watched.retaining:
            if tensor.grad is not grad:
                tensor.grad = grad


def hook_name(hook: Callable[..., Any]) -> str:
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return str(name).replace("<locals>.", "")


def post_accumulate_hook_names(tensor: Tensor) -> tuple[str, ...]:
    """Hooks that run after ``.grad`` of a leaf was written."""
    hooks = getattr(tensor, "_post_accumulate_grad_hooks", None) or {}
    return tuple(hook_name(hook) for hook in hooks.values())


def tensor_hook_names(tensor: Tensor) -> tuple[str, ...]:
    return tuple(hook_name(hook) for hook in (tensor._backward_hooks or {}).values())


@cache
def derivatives_yaml() -> str:
    """torch's own table of derivative formulas, shipped inside torchgen; empty if absent."""
    try:
        path = resources.files("torchgen") / "packaged" / "autograd" / "derivatives.yaml"
        return path.read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return ""


def graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """``graph`` as a module whose code is generated when it is first called, and not before."""
    try:
        from torch.fx._lazy_graph_module import _LazyGraphModule
    except ImportError:
        return fx.GraphModule(root, graph)
    return _LazyGraphModule(root, graph)
