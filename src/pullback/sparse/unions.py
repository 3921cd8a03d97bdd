"""Unions of sets of integers, kept as the rows of a CSR table: the kernels of detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.integer[Any]]


@njit(cache=True, nogil=True)
def _sizes(starts: Ints, members: Ints, indptr: Ints, indices: Ints, width: int) -> Ints:
    seen = np.full(width, -1, dtype=np.int64)
    out = np.zeros(starts.size, dtype=np.int64)
    for g in range(starts.size - 1):
        count = 0
        for k in range(starts[g], starts[g + 1]):
            row = members[k]
            for e in range(indptr[row], indptr[row + 1]):
                j = indices[e]
                if seen[j] != g:
                    seen[j] = g
                    count += 1
        out[g + 1] = out[g] + count
    return out


@njit(cache=True, nogil=True)
def _fill(
    starts: Ints, members: Ints, indptr: Ints, indices: Ints, width: int, out: Ints, filled: Ints
) -> None:
    seen = np.full(width, -1, dtype=np.int64)
    for g in range(starts.size - 1):
        at = out[g]
        for k in range(starts[g], starts[g + 1]):
            row = members[k]
            for e in range(indptr[row], indptr[row + 1]):
                j = indices[e]
                if seen[j] != g:
                    seen[j] = g
                    filled[at] = j
                    at += 1


def union_rows(
    starts: Ints, members: Ints, indptr: Ints, indices: Ints, width: int
) -> tuple[Ints, Ints]:
    """One row per group: the union of the table's rows ``members[starts[g]:starts[g + 1]]``.

    The table holds subsets of ``range(width)``. Within a row the order is that of first meeting.
    """
    out = _sizes(starts, members, indptr, indices, width)
    filled = np.empty(out[-1], dtype=indices.dtype)
    _fill(starts, members, indptr, indices, width, out, filled)
    return out, filled


@njit(cache=True, nogil=True)
def work(starts: Ints, members: Ints, indptr: Ints) -> int:
    """How many entries ``union_rows`` reads: an upper bound of what it writes."""
    total = 0
    for k in range(members.size):
        total += indptr[members[k] + 1] - indptr[members[k]]
    return total


@njit(cache=True, nogil=True)
def gather_rows(rows: Ints, indptr: Ints, indices: Ints, out: Ints, filled: Ints) -> None:
    for k in range(rows.size):
        at = out[k]
        for e in range(indptr[rows[k]], indptr[rows[k] + 1]):
            filled[at] = indices[e]
            at += 1
