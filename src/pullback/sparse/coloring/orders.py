"""In which order a greedy coloring takes its vertices."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .nets import Nets

Order = npt.NDArray[np.int64]

ORDERS = (
    "natural",
    "largest first",
    "smallest last",
    "incidence degree",
    "random",
)
PASSES = {
    "natural": 0,
    "largest first": 1,
    "smallest last": 3,
    "incidence degree": 3,
    "random": 0,
}
"""About how many times the work of a greedy pass it takes to find each order."""
SEED = 20070823


def order_of(nets: Nets, name: str) -> Order:
    """The vertices in the named order; the same at every call.

    ``largest first``: by falling degree. ``smallest last``: the vertex of least degree among those
    that are left goes last. ``incidence degree``: next is the vertex with most neighbors already
    taken. Neighbors are the vertices that share a net; ties go by number, and a crowded net counts
    each of its vertices anew.
    """
    n = nets.num_vertices
    if name == "natural":
        return np.arange(n, dtype=np.int64)
    if name == "random":
        return np.random.default_rng(SEED).permutation(n)
    degrees = _degrees(*nets[:5])
    falling = np.argsort(-degrees, kind="stable")
    if name == "largest first":
        return falling
    if name == "smallest last":
        last_first: Order = _dynamic(*nets[:5], degrees, np.arange(n)[::-1].copy(), -1)
        return last_first[::-1].copy()
    first: Order = _dynamic(*nets[:5], np.zeros(n, np.int64), falling[::-1].copy(), 1)
    return first


@numba.njit(cache=True, nogil=True)
def _degrees(vertex_ptr: Any, vertex_items: Any, net_ptr: Any, net_items: Any, crowd: Any) -> Any:
    n = len(vertex_ptr) - 1
    degrees = np.zeros(n, np.int64)
    seen = np.full(n, -1, np.int64)
    for v in range(n):
        seen[v] = v
        for k in range(vertex_ptr[v], vertex_ptr[v + 1]):
            r = vertex_items[k]
            if crowd[r] >= 0:
                degrees[v] += net_ptr[r + 1] - net_ptr[r] - 1
                continue
            for q in range(net_ptr[r], net_ptr[r + 1]):
                u = net_items[q]
                if seen[u] != v:
                    seen[u] = v
                    degrees[v] += 1
    return degrees


@numba.njit(cache=True, nogil=True)
def _place(v: int, key: int, head: Any, after: Any, before: Any) -> None:
    after[v] = head[key]
    before[v] = -1
    if head[key] >= 0:
        before[head[key]] = v
    head[key] = v


@numba.njit(cache=True, nogil=True)
def _dynamic(
    vertex_ptr: Any,
    vertex_items: Any,
    net_ptr: Any,
    net_items: Any,
    crowd: Any,
    keys: Any,
    entering: Any,
    step: int,
) -> Any:
    """Take the vertex of extreme key again and again; its neighbors' keys then change by ``step``.

    ``step`` -1 takes the least key, +1 the largest. Vertices wait in linked lists, one per key.
    Crowded nets change no keys: all of their vertices would change alike.
    """
    n = len(vertex_ptr) - 1
    head = np.full((keys.max() if n else 0) + n + 1, -1, np.int64)
    after, before = np.empty(n, np.int64), np.empty(n, np.int64)
    for v in entering:
        _place(v, keys[v], head, after, before)
    taken = np.zeros(n, np.bool_)
    seen = np.full(n, -1, np.int64)
    order = np.empty(n, np.int64)
    at = 0
    for k in range(n):
        while head[at] < 0:
            at -= step
        v = head[at]
        head[at] = after[v]
        if after[v] >= 0:
            before[after[v]] = -1
        order[k] = v
        taken[v] = True
        for p in range(vertex_ptr[v], vertex_ptr[v + 1]):
            r = vertex_items[p]
            if crowd[r] >= 0:
                continue
            for q in range(net_ptr[r], net_ptr[r + 1]):
                u = net_items[q]
                if taken[u] or seen[u] == v:
                    continue
                seen[u] = v
                if before[u] >= 0:
                    after[before[u]] = after[u]
                else:
                    head[keys[u]] = after[u]
                if after[u] >= 0:
                    before[after[u]] = before[u]
                keys[u] += step
                _place(u, keys[u], head, after, before)
                if (keys[u] - at) * step > 0:
                    at = keys[u]
    return order
