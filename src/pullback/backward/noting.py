"""What a torch call leaves behind: notes on the nodes it made, on values that it cut off."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from . import cuts, enginecalls
from .events import UserCall
from .origins import Origin, call_of, children_of, note_origin, noted_origin
from .sites import call_at, function_name, site

Args = Sequence[Any]
Kwargs = Mapping[str, Any]


# Called with every node that a traced call made.
on_new_node: list[Callable[[Node], None]] = []


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in what a torch call takes or returns: a few levels of tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def note_nodes(
    first: int, func: Callable[..., Any], result: Any, args: Args, kwargs: Kwargs
) -> None:
    """Mark the nodes numbered ``first`` or later that are reachable from what the call gave."""
    where = site(3)
    call = call_at(where, function_name(func))
    values = [t for t in _results(result, args) if not _torch.is_transform_tensor(t)]
    made = _made_since(first, [t.grad_fn for t in values])
    # A node is younger than those below it.
    for node in sorted(made, key=_torch.sequence_number) if len(made) > 1 else made:
        note_origin(node, call, made[node])
        for told in on_new_node:
            told(node)
    if values and values[0].grad_fn in made:
        if cuts.any_noted():
            _note_cuts_behind(values[0].grad_fn, (args, tuple(kwargs.values())))
        if where.entered is not None and _torch.is_scaling(where.entered):
            enginecalls.note_scale(values[0], args[1])
    if isinstance(result, tuple):
        _note_indices(call, result, args, kwargs)


def _results(result: Any, args: Args) -> list[Tensor]:
    """What a call gave, and what it was called on, which it may have written to."""
    if isinstance(result, Tensor) and args and isinstance(args[0], Tensor):
        return [result] if result is args[0] else [result, args[0]]
    return list(tensors_in((result, args[:1])))


def _made_since(first: int, stack: list[Node | None]) -> dict[Node, list[Node]]:
    """The nodes numbered ``first`` or later that no call is noted for, with their children."""
    made: dict[Node, list[Node]] = {}
    while stack:
        node = stack.pop()
        if (
            node is None
            or node in made
            or _torch.sequence_number(node) < first
            or _torch.leaf_of(node) is not None
            or call_of(node) is not None
        ):
            continue
        made[node] = children_of(node)
        stack.extend(made[node])
    return made


def _note_indices(call: UserCall, result: tuple[Any, ...], args: Args, kwargs: Kwargs) -> None:
    """Values beside others with a graph that have none, as the indices that ``sort`` returns."""
    plain = [t for t in result if isinstance(t, Tensor) and not t.requires_grad]
    if not plain or any(map(_torch.is_transform_tensor, plain)):
        return
    sources = [t for t in tensors_in((args, tuple(kwargs.values()))) if cuts.carries(t)]
    for tensor in plain:
        if not any(tensor is source for source in sources):
            cuts.note(tensor, cuts.cut(reason_for(call.function, tensor), call, sources))


def _note_cuts_behind(node: Node | None, taken: Any) -> None:
    """What went into ``node`` without a graph, though it had one."""
    found = cuts.latest(each for t in tensors_in(taken) for each in cuts.cuts_of(t))
    origin = None if node is None else noted_origin(node)
    if found and isinstance(origin, Origin):
        origin.cuts = found


_INDEPENDENT = re.compile(r"\w+_like|new_\w+|has_torch_function\w*|is_\w+")
# Of the tensors given, only the first hands on values.
_LIKE_ANOTHER = re.compile(r"\w+_as|to")
_CUTS_BY_NAME = {"detach": "detach", "data": "data", "tensor": "copied"}


def note_cut(func: Callable[..., Any], result: Any, args: Args, kwargs: Kwargs) -> None:
    """Mark values without a graph that were computed from tensors with one."""
    sources = [t for t in tensors_in((args, tuple(kwargs.values()))) if cuts.carries(t)]
    if not sources:
        return
    made = [t for t in tensors_in(result) if not t.requires_grad]
    name = function_name(func)
    if _LIKE_ANOTHER.fullmatch(name):
        sources = [t for t in tensors_in(args[:1]) if cuts.carries(t)]
        if not sources:
            return
    if not made or _INDEPENDENT.fullmatch(name):
        return
    if any(map(_torch.is_transform_tensor, (*sources, *made))):
        return
    call = call_at(site(4), name)
    for tensor in made:
        if not any(tensor is source for source in sources):
            cuts.note(tensor, cuts.cut(reason_for(name, tensor), call, sources))


def reason_for(name: str, result: Tensor) -> str:
    """Why ``result`` has no graph."""
    if name in _CUTS_BY_NAME:
        return _CUTS_BY_NAME[name]
    if result.is_inference():
        return "inference_mode"
    if not torch.is_grad_enabled():
        return "no_grad"
    return "not_differentiable"
