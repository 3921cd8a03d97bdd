"""What running single nodes of a graph needs of torch's private parts, beside ``_torch``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from .nodes import sequence_number


def slot_device(node: Node, slot: int) -> torch.device:
    """Where a node expects the cotangent of one of its outputs to be."""
    return torch.device(node._input_metadata[slot].device)


@cache
def _saved_names(kind: type[Node]) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))


def _is_freed(node: Node) -> bool:
    """Asked without unpacking what is there, which would run the hooks of a checkpoint."""
    for name in _saved_names(type(node)):
        try:
            raw = getattr(node, name)
            if not isinstance(raw, (tuple, list)) and raw.data is None:
                getattr(node, name.replace("_raw", "", 1))
        except RuntimeError as error:
            if "freed" in str(error):
                return True
    return False


def first_freed(nodes: Iterable[Node]) -> Node | None:
    """The node at which a pass over ``nodes`` would find what it needs freed, if there is one."""
    return max(filter(_is_freed, nodes), key=sequence_number, default=None)


def run_first(handle: RemovableHandle) -> None:
    """Have the hook of ``handle`` run before the others of its table."""
    table = handle.hooks_dict_ref() or {}
    for key in [key for key in table if key != handle.id]:
        # Not move_to_end: the engine reads an OrderedDict as the plain dict that it is beneath.
        table[key] = table.pop(key)


@contextmanager
def without_tensor_hooks(leaf: Tensor) -> Iterator[None]:
    """For a gradient on which the hooks of ``leaf`` have run before; they stay registered."""
    hooks = leaf._backward_hooks
    if not hooks:
        yield
        return
    kept = dict(hooks)
    hooks.clear()
    try:
        yield
    finally:
        hooks.update(kept)


_Group = getattr(torch.utils.checkpoint, "GraphExecGroup", None)  # torch 2.10 and later


class Recomputed:
    """Entered around each of several passes that overlap nowhere: what a checkpoint recomputes in
    the first of them serves the others, as it does within one pass."""

    def __init__(self) -> None:
        self._group = None if _Group is None else _Group()

    @contextmanager
    def kept(self) -> Iterator[None]:
        if self._group is None or self._group._get_current_group() is not None:
            yield
        else:
            with self._group:
                yield
