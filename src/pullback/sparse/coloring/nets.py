"""Vertices to color, and the nets within which no two vertices may share a color.

For a columns coloring the vertices are the columns and every row is a net: the columns that are
nonzero in it. For a graph the nets are its edges. Both directions are kept as index arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from ..pattern import Indices, index_dtype

if TYPE_CHECKING:
    from ..pattern import SparsityPattern

CROWD = 512
"""A net of more vertices is crowded: its colors are kept as bits, not read from its vertices."""


class Nets(NamedTuple):
    """Net ``r`` holds ``net_items[net_ptr[r]:net_ptr[r + 1]]``; vertex ``v`` lies in the nets
    ``vertex_items[vertex_ptr[v]:vertex_ptr[v + 1]]``. ``crowd[r]`` numbers the crowded nets; it is
    -1 for the others."""

    vertex_ptr: Indices
    vertex_items: Indices
    net_ptr: Indices
    net_items: Indices
    crowd: npt.NDArray[np.int32]
    words: int

    @property
    def num_vertices(self) -> int:
        return len(self.vertex_ptr) - 1


@numba.njit(cache=True, nogil=True)
def transposed(ptr: Any, items: Any, n: int) -> Any:
    """The index arrays of the other direction, ascending within each list."""
    flipped_ptr = np.zeros(n + 1, np.int64)
    for item in items:
        flipped_ptr[item + 1] += 1
    for v in range(n):
        flipped_ptr[v + 1] += flipped_ptr[v]
    at = flipped_ptr[:-1].copy()
    flipped = np.empty(len(items), items.dtype)
    for r in range(len(ptr) - 1):
        for k in range(ptr[r], ptr[r + 1]):
            v = items[k]
            flipped[at[v]] = r
            at[v] += 1
    return flipped_ptr, flipped


@numba.njit(cache=True, nogil=True)
def _distinct(ptr: Any, items: Any) -> Any:
    """The nets of two vertices or more, one of each; equal nets are told by content."""
    m = len(ptr) - 1
    size = 16
    while size < 2 * m:
        size *= 2
    table = np.full(size, -1, np.int64)
    keep = np.zeros(m, np.bool_)
    for r in range(m):
        start, length = ptr[r], ptr[r + 1] - ptr[r]
        if length < 2:
            continue
        mixed = np.uint64(length)
        for k in range(length):
            mixed = (mixed ^ np.uint64(items[start + k])) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        slot = np.int64(mixed & np.uint64(size - 1))
        while True:
            other = table[slot]
            if other < 0:
                table[slot] = r
                keep[r] = True
                break
            same = ptr[other + 1] - ptr[other] == length
            k = 0
            while same and k < length:
                same = items[start + k] == items[ptr[other] + k]
                k += 1
            if same:
                break
            slot = (slot + 1) & (size - 1)
    return keep


def _crowded(sizes: npt.NDArray[np.int64], n: int) -> tuple[npt.NDArray[np.int32], int]:
    """Numbers for the crowded nets, and how many 64-bit words their bits take per color."""
    crowd = np.full(len(sizes), -1, dtype=np.int32)
    most = 64 * max(1, int(sizes.sum()) // max(n, 1))  # bits of n colors stay below 8 bytes x nnz
    found = np.flatnonzero(sizes > CROWD)
    found = found[np.argsort(-sizes[found], kind="stable")][:most]
    crowd[found] = np.arange(len(found), dtype=np.int32)
    return crowd, (len(found) + 63) // 64


def make_nets(ptr: Indices, items: Indices, n: int, *, distinct: bool = False) -> Nets:
    """Nets over ``n`` vertices; with ``distinct`` they are known to differ and to be pairs."""
    ptr = ptr.astype(np.int64, copy=False)
    items = items.astype(index_dtype(max(n, len(ptr))), copy=False)
    if not distinct:
        keep = _distinct(ptr, items)
        if not keep.all():
            sizes = np.diff(ptr)
            items = items[np.repeat(keep, sizes)]
            ptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[keep])])
    vertex_ptr, vertex_items = transposed(ptr, items, n)
    crowd, words = _crowded(np.diff(ptr), n)
    return Nets(vertex_ptr, vertex_items, ptr, items, crowd, words)


def nets_of(pattern: SparsityPattern, kind: str) -> Nets:
    """The nets of a ``columns`` or ``rows`` coloring of a pattern."""
    m, n = pattern.shape
    if kind == "columns":
        return make_nets(pattern.indptr, pattern.indices, n)
    kept = pattern.indices.astype(index_dtype(max(m, n)), copy=False)
    ptr, items = transposed(pattern.indptr.astype(np.int64, copy=False), kept, n)
    return make_nets(ptr, items, m)
