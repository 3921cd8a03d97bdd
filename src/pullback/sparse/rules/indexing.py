"""Reads at places that an index tensor names.

An index that cannot change unnoticed is followed; any other stands for every value it may take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..dependence import Dependence
from ..graph import Meta
from .base import Declined, Result, Step, blockwise, numbers, rule
from .movement import moved
from .reduction import merged, mixed_along


def at_least_1d(dep: Dependence) -> Dependence:
    """Operators with a ``dim`` take a number for a list of one."""
    return dep if dep.shape else dep.with_ids(dep.ids.reshape(1))


def is_followed(step: Step, *names: str) -> bool:
    """Whether the data of all tensors in these arguments is known."""
    nodes = [n for name in names for n in pytree.tree_leaves(step[name])]
    return all(step.data(n) is not None for n in nodes if isinstance(n, fx.Node))


def corner(dep: Dependence, shape: tuple[int, ...]) -> Dependence:
    """The first ``shape[d]`` places along each dim."""
    return dep.with_ids(dep.grid[tuple(slice(0, size) for size in shape)])


def reshaped(dep: Dependence, shape: tuple[int, ...]) -> Dependence:
    return dep.with_ids(dep.ids.reshape(shape))


@dataclass(frozen=True)
class Indexed:
    """Which dims of a tensor an index list takes away, and where the others end up in the result.

    ``kept[k]`` of the tensor is dim ``places[k]`` of the result, which has ``rank`` dims.
    """

    kept: tuple[int, ...]
    places: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, step: Step, rank: int, indices: Any) -> Indexed:
        taken: list[int] = []
        shared = 0
        dim = 0
        for entry in indices:
            meta = step.meta_of(entry) if isinstance(entry, fx.Node) else None
            if meta is None:
                dim += 1
                continue
            spans = _spans(meta)
            taken += range(dim, dim + spans)
            shared = max(shared, len(meta.shape) if spans == 1 and not _is_mask(meta) else 1)
            dim += spans
        if not taken:
            raise Declined("no index is a tensor")
        kept = tuple(d for d in range(rank) if d not in taken)
        adjacent = taken == list(range(taken[0], taken[-1] + 1))
        first = taken[0] if adjacent else 0
        places = tuple(d if k < first else k + shared for k, d in enumerate(kept))
        return cls(kept, places, shared + len(kept))


def _is_mask(meta: Meta) -> bool:
    return str(meta.dtype) in ("torch.bool", "torch.uint8")


def _spans(meta: Meta) -> int:
    """How many dims an index stands for: a mask for as many as it has."""
    if not _is_mask(meta):
        return 1
    if not meta.shape:
        raise Declined("a mask without dims")
    return len(meta.shape)


@rule("index _unsafe_index", "self")
def _index(step: Step) -> Result:
    return moved(step) if is_followed(step, "indices") else _anywhere(step)


def _anywhere(step: Step) -> Dependence:
    """Any element along the indexed dims."""
    _, dep = step.only("self")
    taken = Indexed.of(step, len(dep.shape), step["indices"])
    if taken.rank != len(step.out.shape):
        raise Declined("its result has another rank than its indices say")
    return blockwise(step, [(dep, taken.kept)], step.out, taken.places)


@rule("_unsafe_masked_index", "self")
def _masked_index(step: Step) -> Result:
    _, dep = step.only("self")
    places = masked_places(step, dep.shape)
    if places is not None:
        return dep.with_ids(np.append(dep.ids, dep.ids.dtype.type(0))[places])
    found = _anywhere(step)
    mask = step.nonzero("mask")
    return found if mask is None else found.where(np.broadcast_to(mask, step.out.shape))


def masked_places(step: Step, shape: tuple[int, ...]) -> npt.NDArray[np.int64] | None:
    """The numbers of the elements that fixed indices name under a mask, -1 where it is False."""
    if not is_followed(step, "indices"):
        return None
    mask = step.data("mask")
    given = [None if entry is None else step.data(entry) for entry in step["indices"]]
    indices = [None if entry is None else entry.cpu() for entry in given]
    within = torch.ones(step.meta("mask").shape, dtype=torch.bool) if mask is None else mask.cpu()
    grid = torch.from_numpy(numbers(shape))
    found: Tensor = torch.ops.aten._unsafe_masked_index(grid, within, indices, -1)
    return found.numpy()


@rule("index_select", "self")
def _index_select(step: Step) -> Result:
    if is_followed(step, "index"):
        return moved(step)
    _, dep = step.only("self")
    dep = at_least_1d(dep)
    count = step.meta("index").numel
    return reshaped(mixed_along(dep, step["dim"] % len(dep.shape), count), step.out.shape)


@rule("gather", "self")
def _gather(step: Step) -> Result:
    if is_followed(step, "index"):
        return moved(step)
    _, dep = step.only("self")
    dep = at_least_1d(dep)
    dim = step["dim"] % len(dep.shape)
    shape = step.out.shape or (1,)
    reach = tuple(dep.shape[d] if d == dim else size for d, size in enumerate(shape))
    return reshaped(mixed_along(corner(dep, reach), dim, shape[dim]), step.out.shape)


@rule("take", "self")
def _take(step: Step) -> Result:
    if is_followed(step, "index"):
        return moved(step)
    _, dep = step.only("self")
    return merged(dep, range(len(dep.shape))).broadcast_all(step.out.shape)


@rule("masked_scatter_backward", "grad_output")
def _masked_select(step: Step) -> Result:
    """The elements under a mask, one after the other, and zeros to fill up."""
    _, dep = step.only("grad_output")
    shape = step.out.shape
    mask = step.nonzero("mask")
    if mask is None:
        return merged(dep, range(len(dep.shape))).broadcast_all(shape)
    both = np.broadcast_shapes(mask.shape, dep.shape)
    chosen = dep.broadcast(both).grid[np.broadcast_to(mask, both)]
    ids = np.zeros(step.out.numel, dtype=dep.ids.dtype)
    count = min(chosen.size, ids.size)
    ids[:count] = chosen[:count]
    return dep.with_ids(ids.reshape(shape))
