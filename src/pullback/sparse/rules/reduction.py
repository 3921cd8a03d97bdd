"""Sums over dims, and other results that read all elements along some dims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dependence import Dependence, grouped
from .base import Declined, Result, Step, numbers, rule


def reduced_dims(step: Step, rank: int) -> list[int]:
    """The dims that a reduction takes away, counted from 0; all where none is named."""
    dim: Any = step.get("dim")
    dims: Sequence[int] = [dim] if isinstance(dim, int) else list(dim or [])
    return sorted({d % rank for d in dims}) if dims and rank else list(range(rank))


def merged(dep: Dependence, dims: Sequence[int]) -> Dependence:
    """The union over ``dims``, which are taken away."""
    kept = [size for d, size in enumerate(dep.shape) if d not in dims]
    labels = np.expand_dims(numbers(kept), tuple(sorted(dims)))
    return grouped([(dep, np.broadcast_to(labels, dep.shape))], tuple(kept))


def mixed_along(dep: Dependence, dim: int, size: int) -> Dependence:
    """Everything along ``dim`` depends on everything along it; it gets ``size`` places."""
    found = merged(dep, [dim])
    shape = list(dep.shape)
    shape[dim] = size
    return found.with_ids(np.broadcast_to(np.expand_dims(found.grid, dim), tuple(shape)))


@rule("sum mean nansum", "self")
def _sum(step: Step) -> Result:
    _, dep = step.only("self")
    found = merged(dep, reduced_dims(step, len(dep.shape)))
    return found.with_ids(found.ids.reshape(step.out.shape))


# Not linear; torch's own formulas use them to scale what they sum, and to choose.
@rule("amax amin any all", "")
def _extreme(step: Step) -> Result:
    return _sum(step)


@rule("trace", "self")
def _trace(step: Step) -> Result:
    _, dep = step.only("self")
    if len(dep.shape) != 2:
        raise Declined("it is no matrix")
    diagonal = dep.with_ids(np.ascontiguousarray(np.diagonal(dep.grid)))
    return merged(diagonal, [0])
