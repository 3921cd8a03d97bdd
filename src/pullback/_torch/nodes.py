"""What autograd nodes say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .transforms import function_modes_off


class Slot(NamedTuple):
    """What autograd expects to receive at one output of a node."""

    shape: tuple[int, ...]
    dtype: torch.dtype


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


def handed_to_hooks(saved: Any) -> bool:
    """Whether a saved tensor was packed by hooks of the user's or of a checkpoint: reading it
    would run them."""
    return getattr(saved, "unpack_hook", None) is not None


def has_packed(node: Node) -> bool:
    """Whether reading what a node saved would run hooks of the user's or of a checkpoint."""
    for attribute in dir(node):
        if not attribute.startswith("_raw_saved_"):
            continue
        try:
            raw = getattr(node, attribute)
        except RuntimeError:  # freed
            continue
        if any(map(handed_to_hooks, raw if isinstance(raw, (tuple, list)) else (raw,))):
            return True
    return False


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


def nodes_behind(outputs: Sequence[Tensor | GradientEdge]) -> list[Node]:
    """Every node that a backward from ``outputs`` may run, each once."""
    found: list[Node] = []
    with function_modes_off():  # a capture takes a user who looks at nodes for one who hooks
        ends = [o.node if isinstance(o, GradientEdge) else o.grad_fn for o in outputs]
    stack = [node for node in ends if node is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        found.append(node)
        below = {child for child, _ in node.next_functions if child is not None} - seen
        seen |= below
        stack.extend(below)
    return found


def slots(node: Node) -> tuple[Slot, ...]:
    return tuple(Slot(tuple(m.shape), m.dtype) for m in node._input_metadata)


_AccumulateGrad: Any = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]


def leaf_of(node: Node) -> Tensor | None:
    """The tensor that an AccumulateGrad node writes to; None for any other node."""
    return cast(Any, node).variable if type(node) is _AccumulateGrad else None


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


def version_of(tensor: Tensor) -> int:
    """How often ``tensor`` was written in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor looks at the memory of another, so that writing to it writes there."""
    return tensor._is_view()


def has_own_step_hooks(optimizer: Optimizer) -> bool:
    """Whether hooks are registered on this optimizer alone."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


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
