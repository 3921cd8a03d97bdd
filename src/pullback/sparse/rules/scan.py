"""Running sums: each place reads the places before it along one dim."""

from __future__ import annotations

import numpy as np

from ..dependence import Dependence, grouped
from .base import Result, Step, numbers, rule
from .indexing import at_least_1d, reshaped
from .reduction import mixed_along

# Above this many pairs of a place and one before it, every place reads the whole line.
_PAIRS_AT_MOST = 2**23


def running(dep: Dependence, dim: int) -> Dependence:
    """What stands at or before each place along ``dim``."""
    length = dep.shape[dim]
    if dep.numel * (length + 1) // 2 > _PAIRS_AT_MOST:
        return mixed_along(dep, dim, length)
    before, after = np.tril_indices(length)[::-1]
    places = np.moveaxis(numbers(dep.shape), dim, -1)
    moved = np.moveaxis(dep.grid, dim, -1)
    reads = dep.with_ids(moved[..., before])
    return grouped([(reads, places[..., after])], dep.shape)


def _scan(step: Step) -> Result:
    _, dep = step.only("self")
    line = at_least_1d(dep)
    return reshaped(running(line, step["dim"] % len(line.shape)), step.out.shape)


rule("cumsum", "self")(_scan)
# Not linear; the formula for the gradient of logcumsumexp takes logarithms of cotangents.
rule("logcumsumexp", "")(_scan)
