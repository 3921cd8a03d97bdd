"""Unions of sets of integers, kept as the rows of a CSR table: the kernels of detection.

Sets are rows of ``indices``, set ``k`` from ``indptr[k]`` to ``indptr[k + 1]``; ``indptr`` is
int64, so that each kernel is compiled for one kind of index in nearly every program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.integer[Any]]
# Up to this many entries, a row is searched for a repeat from its start.
_FEW = 16


@njit(cache=True, nogil=True)
def _join(
    starts: Any, members: Any, indptr: Any, indices: Any, seen: Any, out: Any, filled: Any
) -> None:
    at = 0
    for g in range(starts.size - 1):
        first, reads = at, 0
        for k in range(starts[g], starts[g + 1]):
            reads += indptr[members[k] + 1] - indptr[members[k]]
        few = reads <= _FEW
        for k in range(starts[g], starts[g + 1]):
            row = members[k]
            for e in range(indptr[row], indptr[row + 1]):
                j = indices[e]
                if few:
                    known = False
                    for p in range(first, at):
                        known |= filled[p] == j
                else:
                    known = seen[j] == g
                    seen[j] = g
                if not known:
                    filled[at] = j
                    at += 1
        out[g + 1] = at


def union_rows(
    starts: Ints, members: Ints, indptr: Ints, indices: Ints, width: int, reads: int
) -> tuple[Ints, Ints]:
    """One row per group: the union of the table's rows ``members[starts[g]:starts[g + 1]]``.

    The table holds subsets of ``range(width)``, and ``reads`` is the ``work`` that this takes.
    Within a row the order is that of first meeting.
    """
    seen = np.full(width if reads else 0, -1, dtype=np.int64)
    out = np.zeros(starts.size, dtype=np.int64)
    filled = np.empty(reads, dtype=indices.dtype)
    _join(starts, members, indptr, indices, seen, out, filled)
    used = int(out[-1])
    return out, filled[:used].copy() if used < 0.75 * reads else filled[:used]


@njit(cache=True, nogil=True)
def work(members: Any, indptr: Any) -> int:
    """How many entries ``union_rows`` reads: an upper bound of what it writes."""
    total = 0
    for k in range(members.size):
        total += indptr[members[k] + 1] - indptr[members[k]]
    return total


@njit(cache=True, nogil=True)
def larger(left: Any, right: Any, out: Any) -> bool:
    """``out[e]``: the larger of two numbers; and whether the other is equal or 0 everywhere."""
    plain = True
    for k in range(left.size):
        low, high = min(left[k], right[k]), max(left[k], right[k])
        out[k] = high
        plain &= low == 0 or low == high
    return plain


@njit(cache=True, nogil=True)
def distinct_pairs(left: Any, right: Any, which: Any, pairs: Any) -> int:
    """The distinct pairs, low before high, in ``pairs``, and ``which`` one stands at each place.

    Returns how many there are.
    """
    size = 16
    while size < 2 * left.size:
        size *= 2
    table = np.full(size, -1, np.int64)
    count = 0
    for k in range(left.size):
        low, high = min(left[k], right[k]), max(left[k], right[k])
        mixed = np.uint64(low) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(high)
        mixed *= np.uint64(0xC2B2AE3D27D4EB4F)
        slot = np.int64((mixed >> np.uint64(32)) & np.uint64(size - 1))
        while table[slot] >= 0 and (
            pairs[2 * table[slot]] != low or pairs[2 * table[slot] + 1] != high
        ):
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = count
            pairs[2 * count], pairs[2 * count + 1] = low, high
            count += 1
        which[k] = table[slot]
    return count


@njit(cache=True, nogil=True)
def members_of_groups(ids: Any, groups: Any, sets: int, starts: Any, members: Any) -> None:
    """Sort the numbers ``ids`` by group, without 0 and without repeats in a group.

    Group ``g`` gets ``members[starts[g]:starts[g + 1]]``; negative groups are left out.
    """
    count = starts.size - 1
    for k in range(ids.size):
        if ids[k] > 0 and groups[k] >= 0:
            starts[groups[k] + 1] += 1
    for g in range(count):
        starts[g + 1] += starts[g]
    at = starts[:-1].copy()
    for k in range(ids.size):
        if ids[k] > 0 and groups[k] >= 0:
            members[at[groups[k]]] = ids[k]
            at[groups[k]] += 1
    seen = np.full(sets, -1, np.int64)
    end = 0
    for g in range(count):
        first, last = starts[g], at[g]
        starts[g] = end
        for k in range(first, last):
            if seen[members[k]] != g:
                seen[members[k]] = g
                members[end] = members[k]
                end += 1
    starts[count] = end


@njit(cache=True, nogil=True)
def entries_of_columns(ids: Any, indptr: Any, indices: Any, starts: Any) -> None:
    """Of the matrix whose row ``e`` is set ``ids[e]``: where each column's entries start."""
    for k in range(ids.size):
        for e in range(indptr[ids[k]], indptr[ids[k] + 1]):
            starts[indices[e] + 1] += 1
    for j in range(starts.size - 1):
        starts[j + 1] += starts[j]


@njit(cache=True, nogil=True)
def rows_of_columns(ids: Any, indptr: Any, indices: Any, starts: Any, rows: Any) -> None:
    """The rows of each column, ascending."""
    at = starts[:-1].copy()
    for k in range(ids.size):
        for e in range(indptr[ids[k]], indptr[ids[k] + 1]):
            rows[at[indices[e]]] = k
            at[indices[e]] += 1
