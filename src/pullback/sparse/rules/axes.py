"""Unions along single dims: the parts that most rules are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dependence import Dependence, grouped
from .base import Declined, Step, numbers

Ints = npt.NDArray[np.integer[Any]]
# A rule that would read more set entries than this takes looser sets that many elements share.
ENTRIES_AT_MOST = 2**24


def alone(step: Step, *names: str) -> Dependence:
    """The dependence of the one argument, out of ``names``, that cotangents stand in.

    torch's own formulas may put cotangents in several places at once; this then declines.
    """
    places = step.linear_arguments()
    if len(places) != 1 or not places <= set(names):
        raise Declined(f"cotangents stand in {sorted(places)} at once")
    return step.only(*names)[1]


def merged(dep: Dependence, dims: Sequence[int]) -> Dependence:
    """The union over ``dims``, which stay with size 1."""
    rank = len(dep.shape)
    gone = {d % rank for d in dims} if rank else set()
    if all(dep.shape[d] == 1 for d in gone):
        return dep
    kept = tuple(1 if d in gone else size for d, size in enumerate(dep.shape))
    return grouped([(dep, np.broadcast_to(numbers(kept), dep.shape))], kept)


def mixed(dep: Dependence, dims: Sequence[int], shape: Sequence[int]) -> Dependence:
    """Everything along ``dims`` depends on everything there; broadcast to ``shape``."""
    return merged(dep, dims).broadcast(tuple(shape))


def reshaped(dep: Dependence, shape: Sequence[int]) -> Dependence:
    return dep.with_ids(dep.grid.reshape(tuple(shape)))


def moved(dep: Dependence, source: int, target: int) -> Dependence:
    return dep.with_ids(np.moveaxis(dep.grid, source, target))


def transposed(dep: Dependence) -> Dependence:
    """The last two dims swapped."""
    return dep.with_ids(dep.grid.swapaxes(-1, -2))


def affordable(dep: Dependence, pairs: int) -> bool:
    """Whether to store a union for each of so many (result, source) pairs."""
    mean = float(dep.table.sizes[dep.ids].mean()) if dep.numel else 0.0
    return pairs * max(mean, 1.0) <= ENTRIES_AT_MOST


def along(dep: Dependence, dim: int, targets: Ints, sources: Ints, size: int) -> Dependence:
    """Place t on ``dim``, of ``size`` places, depends on each place s of a pair (t, s).

    Places that read the same sources share their sets.
    """
    grid = np.moveaxis(dep.grid, dim, -1)
    lead = grid.shape[:-1]
    which, targets, sources = _without_repeats(targets, sources, size)
    count = int(which.max(initial=-1)) + 1
    picked = dep.with_ids(grid[..., sources])
    labels = numbers(lead)[..., None] * count + targets
    found = grouped([(picked, labels)], (*lead, count))
    return found.with_ids(np.moveaxis(found.grid[..., which], -1, dim))


def _without_repeats(targets: Ints, sources: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """``which[t]``: the number of t's set of sources; and the pairs (number, source)."""
    order = np.lexsort((sources, targets))
    targets, sources = targets[order], sources[order]
    starts = np.searchsorted(targets, np.arange(size + 1))
    known: dict[bytes, int] = {}
    which = np.empty(size, dtype=np.int64)
    firsts: list[int] = []
    for t in range(size):
        key = sources[starts[t] : starts[t + 1]].tobytes()
        which[t] = known.setdefault(key, len(known))
        if which[t] == len(firsts):
            firsts.append(t)
    kept = np.isin(targets, firsts)
    return which, which[targets[kept]], sources[kept]


def gathered_by(dep: Dependence, labels: Ints, shape: Sequence[int]) -> Dependence:
    """Element ``labels[e] - 1`` of the result depends on element e; 0 is nowhere."""
    return grouped([(dep, labels.astype(np.int64) - 1)], tuple(shape))


def triangle(size: int, lower: bool) -> tuple[Ints, Ints]:
    """The pairs (t, s) with s <= t, or s >= t."""
    t, s = np.tril_indices(size) if lower else np.triu_indices(size)
    return t, s


def cumulated(dep: Dependence, dim: int, lower: bool = True) -> Dependence:
    """Each place along ``dim`` depends on those up to it, or from it on."""
    size = dep.shape[dim]
    if not affordable(dep, dep.numel * (size + 1) // 2):
        return mixed(dep, [dim], dep.shape)
    return along(dep, dim, *triangle(size, lower), size)
