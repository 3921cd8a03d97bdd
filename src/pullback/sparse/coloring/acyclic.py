"""Acyclic coloring: neighbors differ, and no cycle has only two colors.

Every two colors then span a forest, whose edges can be solved for from the leaves.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .graph import Graph, note_color
from .greedy import Colors
from .orders import Order


def acyclic(graph: Graph, order: Order) -> tuple[Colors, int]:
    """A greedy acyclic coloring, and the steps it took.

    The two-colored trees are kept as disjoint sets of edges. A color is barred if its vertex would
    meet one tree twice.

    Gebremedhin, Tarafdar, Pothen, Walther, "Efficient computation of sparse Hessians using coloring
    and automatic differentiation", INFORMS J. Comput. 21 (2009), Algorithm 3.1.
    """
    ptr, items, edge, _, crowd, crowded = graph
    colors, steps = _acyclic(ptr, items, edge, crowd, len(crowded), order)
    return colors, int(steps)


@numba.njit(cache=True, nogil=True)
def _root(parent: Any, e: int) -> int:
    while parent[e] != e:
        parent[e] = parent[parent[e]]
        e = parent[e]
    return e


@numba.njit(cache=True, nogil=True)
def _unite(parent: Any, size: Any, a: int, b: int) -> None:
    a, b = _root(parent, a), _root(parent, b)
    if a == b:
        return
    if size[a] < size[b]:
        a, b = b, a
    parent[b] = a
    size[a] += size[b]


@numba.njit(cache=True, nogil=True)
def _acyclic(ptr: Any, items: Any, edge: Any, crowd: Any, num_crowded: int, order: Any) -> Any:
    n, count = len(ptr) - 1, len(items) // 2
    colors = np.full(n, -1, np.int32)
    parent = np.arange(count).astype(edge.dtype)
    size = np.ones(count, edge.dtype)
    barred = np.full(n + 1, -1, np.int64)
    met = np.full((2, n + 1), -1, np.int64)  # met[0, c] == v: v met c, first at place met[1, c]
    tree_by = np.full(count, -1, np.int64)  # tree_by[t] == v: v has met tree t, first through
    tree_at = np.full(count, -1, np.int64)  # the neighbor tree_at[t]
    by_color = np.zeros((4, num_crowded), edge.dtype)
    steps = 0
    for v in order:
        for k in range(ptr[v], ptr[v + 1]):
            if colors[items[k]] >= 0:
                barred[colors[items[k]]] = v
        for k in range(ptr[v], ptr[v + 1]):
            w = items[k]
            if colors[w] < 0:
                continue
            d = crowd[w]
            if d >= 0:
                # Edges from w to one color are in one tree: one of them stands for all.
                steps += len(by_color)
                for c in range(len(by_color)):
                    if by_color[c, d] and barred[c] != v:
                        e = by_color[c, d] - 1
                        _meet_tree(_root(parent, e), w, c, v, tree_by, tree_at, barred)
                continue
            steps += ptr[w + 1] - ptr[w]
            for q in range(ptr[w], ptr[w + 1]):
                c = colors[items[q]]
                if c >= 0 and barred[c] != v:
                    _meet_tree(_root(parent, edge[q]), w, c, v, tree_by, tree_at, barred)
        c = 0
        while barred[c] == v:
            c += 1
        colors[v] = c
        steps += c + 1
        _join_trees(v, ptr, items, edge, colors, parent, size, met, crowd, by_color)
        by_color = note_color(v, c, ptr, items, edge, crowd, by_color)
    return colors, steps


@numba.njit(cache=True, nogil=True)
def _meet_tree(tree: int, w: int, c: int, v: int, tree_by: Any, tree_at: Any, barred: Any) -> None:
    if tree_by[tree] != v:
        tree_by[tree], tree_at[tree] = v, w
    elif tree_at[tree] != w:
        barred[c] = v


@numba.njit(cache=True, nogil=True)
def _join_trees(
    v: int,
    ptr: Any,
    items: Any,
    edge: Any,
    colors: Any,
    parent: Any,
    size: Any,
    met: Any,
    crowd: Any,
    by_color: Any,
) -> None:
    """Unite the edges from the newly colored ``v`` with the trees of their two colors."""
    mine = colors[v]
    for k in range(ptr[v], ptr[v + 1]):
        w = items[k]
        c = colors[w]
        if c < 0:
            continue
        if met[0, c] == v:
            _unite(parent, size, edge[k], edge[met[1, c]])
        else:
            met[0, c], met[1, c] = v, k
        if crowd[w] >= 0:
            if mine < len(by_color) and by_color[mine, crowd[w]]:
                _unite(parent, size, edge[k], by_color[mine, crowd[w]] - 1)
            continue
        for q in range(ptr[w], ptr[w + 1]):
            if items[q] != v and colors[items[q]] == mine:
                _unite(parent, size, edge[k], edge[q])
