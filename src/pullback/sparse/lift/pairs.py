"""Two factors multiplied out: entries as sums of products of what varies in the one and the other.

Where a second factor scales and hands on, as a pointwise function between two stencils does, this
spares both factors their values, and the multiplication of sparse matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pattern import SparsityPattern
from . import kernels
from .factor import Terms

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
# More terms for each entry than this, and multiplying the factors' values takes less.
_TERMS_AT_MOST = 6


@dataclass(eq=False)
class Pairs:
    """``values[e]`` is the sum of ``weights[k] * f[first[k]] * g[second[k]]`` over
    ``starts[e] <= k < starts[e + 1]``; ``f`` and ``g`` are the products of the two factors, with a
    1 behind the last one of each that ``ones`` tells."""

    starts: Ints
    first: Ints
    second: Ints
    weights: Floats
    ones: tuple[bool, bool]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.starts, self.first, self.second, self.weights))


def pairs_of(
    terms: Sequence[Terms],
    patterns: Sequence[SparsityPattern],
    sizes: Sequence[int],
    whole: SparsityPattern,
) -> Pairs | None:
    """Both factors multiplied out into ``whole``; None where that takes too many terms.

    ``sizes`` are the lengths of the two factors' products.
    """
    if len(terms) != 2:
        return None
    (a_starts, a_sources, a_weights), (b_starts, b_sources, b_weights) = map(
        _with_template, terms, sizes
    )
    (a_ptr, a), (b_ptr, b), (ptr, cols) = map(_by_rows, (*patterns, whole))
    counts = np.zeros(whole.nnz + 1, dtype=np.int64)
    kernels.count_pairs(a_ptr, a, a_starts, b_ptr, b, b_starts, ptr, cols, whole.shape[1], counts)
    starts = np.cumsum(counts)
    total = int(starts[-1])
    if total > _TERMS_AT_MOST * whole.nnz:
        return None
    first, second = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32)
    weights = np.empty(total)
    kernels.fill_pairs(
        a_ptr, a, a_starts, a_sources, a_weights, b_ptr, b, b_starts, b_sources, b_weights,
        ptr, cols, whole.shape[1], starts[:-1].copy(), first, second, weights,
    )  # fmt: skip
    ones = (bool((first == sizes[0]).any()), bool((second == sizes[1]).any()))
    return Pairs(starts.astype(np.int32), first, second, weights, ones)


def _with_template(terms: Terms, size: int) -> tuple[Ints, Ints, Floats]:
    """The terms with those of the template among them, which read the 1 past the end."""
    weights = terms.weight
    if terms.template is None:
        return terms.starts.astype(np.int64), terms.sources, weights
    there = terms.template != 0
    starts = terms.starts.astype(np.int64)
    starts[1:] += np.cumsum(there)
    last = starts[1:][there] - 1
    sources = np.empty(starts[-1], dtype=np.int32)
    weighed = np.empty(starts[-1])
    own = np.ones(starts[-1], dtype=bool)
    own[last] = False
    sources[own], weighed[own] = terms.sources, weights
    sources[last], weighed[last] = size, terms.template[there]
    return starts, sources, weighed


def _by_rows(pattern: SparsityPattern) -> tuple[Ints, Ints]:
    return pattern.indptr.astype(np.int64, copy=False), pattern.indices.astype(np.int32, copy=False)
