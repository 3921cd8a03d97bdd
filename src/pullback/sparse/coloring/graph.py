"""The graph of a symmetric pattern, or of any pattern with its rows and columns as vertices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from ..._checks import coloring as checks
from ..pattern import Indices, SparsityPattern, index_dtype
from .nets import CROWD, Nets, make_nets, transposed


class Graph(NamedTuple):
    """Vertex ``v`` has the neighbors ``items[ptr[v]:ptr[v + 1]]``, ascending, itself not among
    them. ``edge`` numbers the edges, the same number from either end. In a ``two_sided`` graph
    neighbors are on different sides and may have equal colors, since each side has its own.
    ``crowded`` lists the vertices of so many neighbors that these are looked up by color, not
    visited one by one; ``crowd[v]`` is the place of ``v`` in that list, or -1."""

    ptr: Indices
    items: Indices
    edge: Indices
    two_sided: bool
    crowd: npt.NDArray[np.int32]
    crowded: npt.NDArray[np.int64]

    @property
    def num_vertices(self) -> int:
        return len(self.ptr) - 1


@numba.njit(cache=True, nogil=True)
def twins_of(ptr: Any, items: Any, flipped_ptr: Any) -> Any:
    """Where each entry stands among those of the transposed pattern."""
    at = flipped_ptr[:-1].copy()
    twins = np.empty(len(items), np.int64)
    for r in range(len(ptr) - 1):
        for e in range(ptr[r], ptr[r + 1]):
            twins[e] = at[items[e]]
            at[items[e]] += 1
    return twins


@numba.njit(cache=True, nogil=True)
def _numbered(ptr: Any, items: Any, zero: Any) -> Any:
    """A number for every edge, met from both of its ends, in the order of the lower end."""
    at = ptr[:-1].copy()
    edge = np.full(len(items), zero)
    count = zero
    for v in range(len(ptr) - 1):
        for k in range(ptr[v], ptr[v + 1]):
            u = items[k]
            if u > v:
                # The lists are ascending, so u meets its lower neighbors in the order of v.
                edge[k] = edge[at[u]] = count
                at[u] += 1
                count += 1
    return edge


def symmetric(caller: str, pattern: SparsityPattern, kind: str) -> None:
    """Refuse a pattern that is not square or has an entry without its mirror."""
    checks.square(caller, kind, pattern.shape)
    if pattern.is_full:
        return
    entry = _without_mirror(pattern.indptr, pattern.indices)
    if entry[0] >= 0:
        raise checks.lacks_mirror(caller, kind, (int(entry[0]), int(entry[1])))


def is_symmetric(pattern: SparsityPattern) -> bool:
    """Whether every entry has its mirror."""
    m, n = pattern.shape
    if m != n or pattern.is_full:
        return m == n
    return int(_without_mirror(pattern.indptr, pattern.indices)[0]) < 0


@numba.njit(cache=True, nogil=True)
def _without_mirror(ptr: Any, items: Any) -> Any:
    n = len(ptr) - 1
    flipped_ptr, flipped = transposed(ptr, items, n)
    for v in range(n):
        a, b = ptr[v], flipped_ptr[v]
        while a < ptr[v + 1] or b < flipped_ptr[v + 1]:
            if b == flipped_ptr[v + 1] or (a < ptr[v + 1] and items[a] < flipped[b]):
                return v, np.int64(items[a])
            if a == ptr[v + 1] or flipped[b] < items[a]:
                return np.int64(flipped[b]), v
            a += 1
            b += 1
    return -1, np.int64(-1)


def graph_of_symmetric(pattern: SparsityPattern) -> Graph:
    """Vertices are the columns; an edge is a pair of mirrored entries off the diagonal."""
    n = pattern.shape[0]
    counts = np.diff(pattern.indptr)
    off = pattern.indices != np.repeat(np.arange(n, dtype=pattern.indices.dtype), counts)
    kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(off, dtype=np.int64)])
    ptr, items = kept[pattern.indptr], pattern.indices[off]
    return _with_edges(ptr, items, two_sided=False)


def graph_of_both_sides(pattern: SparsityPattern) -> Graph:
    """Vertices are the rows and then the columns; every entry is an edge between the two."""
    m, n = pattern.shape
    kind = index_dtype(max(m + n, 1))
    entries = pattern.indices.astype(kind, copy=False)
    ptr = pattern.indptr.astype(np.int64, copy=False)
    col_ptr, col_items = transposed(ptr, entries, n)
    both = np.concatenate([ptr, col_ptr[1:] + ptr[-1]])
    items = np.concatenate([entries + kind(m), col_items])
    return _with_edges(both, items, two_sided=True)


def _with_edges(ptr: Indices, items: Indices, *, two_sided: bool) -> Graph:
    edge = _numbered(ptr, items, index_dtype(max(len(items), 1))(0))
    crowded = np.flatnonzero(np.diff(ptr) > CROWD)
    crowd = np.full(len(ptr) - 1, -1, dtype=np.int32)
    crowd[crowded] = np.arange(len(crowded), dtype=np.int32)
    return Graph(ptr, items, edge, two_sided, crowd, crowded)


@numba.njit(cache=True, nogil=True)
def note_color(
    v: int, c: int, ptr: Any, items: Any, edge: Any, crowd: Any, edge_by_color: Any
) -> Any:
    """Let the crowded neighbors of ``v`` know that it has color ``c``.

    ``edge_by_color[c, d]`` is 0, or 1 + the edge from crowded vertex ``d`` to its first neighbor of
    color ``c``. The table, which grows with the colors, is returned.
    """
    for k in range(ptr[v], ptr[v + 1]):
        d = crowd[items[k]]
        if d < 0:
            continue
        if c >= len(edge_by_color):
            wider = np.zeros((2 * c + 2, edge_by_color.shape[1]), edge_by_color.dtype)
            wider[: len(edge_by_color)] = edge_by_color
            edge_by_color = wider
        if edge_by_color[c, d] == 0:
            edge_by_color[c, d] = edge[k] + 1
    return edge_by_color


def edge_nets(graph: Graph) -> Nets:
    """A net of two vertices for every edge, so that orders follow the graph's degrees."""
    n, count = graph.num_vertices, len(graph.items) // 2
    lower = np.repeat(np.arange(n), np.diff(graph.ptr))
    once = lower < graph.items
    ends = np.empty((count, 2), dtype=index_dtype(max(n, count, 1)))
    ends[:, 0], ends[:, 1] = lower[once], graph.items[once]
    return make_nets(np.arange(count + 1, dtype=np.int64) * 2, ends.reshape(-1), n, distinct=True)
