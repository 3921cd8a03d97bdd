"""Star coloring: neighbors differ, and no path of four vertices has only two colors.

Every two colors then span a forest of stars. An edge is read at a leaf of its star, in the product
of the hub's color, where it stands alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from .graph import Graph, note_color
from .greedy import Colors
from .orders import Order


def star(graph: Graph, order: Order, neutral: npt.NDArray[np.bool_]) -> tuple[Colors, int]:
    """A greedy star coloring of the vertices that are not ``neutral``, and the steps it took.

    A neutral vertex gets no color and no star: its neighbors all differ, so that each of its edges
    is read in the product of its other end. In a two-sided graph each side counts its own colors.

    Gebremedhin, Tarafdar, Manne, Pothen, "New acyclic and star coloring algorithms with application
    to computing Hessians", SIAM J. Sci. Comput. 29 (2007), Algorithm 4.1.
    """
    colors, steps = _star(*graph, order, neutral)
    return colors, int(steps)


@numba.njit(cache=True, nogil=True)
def _star(
    ptr: Any,
    items: Any,
    edge: Any,
    two_sided: bool,
    crowd: Any,
    crowded: Any,
    order: Any,
    neutral: Any,
) -> Any:
    n = len(ptr) - 1
    colors = np.full(n, -1, np.int32)
    star_of = np.full(len(items) // 2, -1, edge.dtype)  # by edge
    hub = np.full(len(items) // 2, -1, np.int64)  # by star; -1: one edge, either end may serve
    barred = np.full(n + 1, -1, np.int64)
    met = np.full((2, n + 1), -1, np.int64)  # met[0, c] == v: v met c, first at place met[1, c]
    treated = np.full(n, -1, np.int64)
    near = Near(
        np.full(len(crowded), -1, np.int64),
        np.zeros(len(crowded), np.bool_),
        np.zeros(len(crowded), np.int64),
        np.zeros(len(crowded), np.int64),
    )
    by_color = np.zeros((4, len(crowded)), edge.dtype)
    steps, stars = 0, 0
    for v in order:
        if neutral[v]:
            continue
        met_crowded = 0
        for k in range(ptr[v], ptr[v + 1]):
            w, steps = items[k], steps + 1
            c = colors[w]
            if neutral[w]:
                strict = True
            elif c < 0:
                continue
            else:
                if not two_sided:
                    barred[c] = v
                strict = met[0, c] == v
                if strict and treated[items[met[1, c]]] != v:
                    first = items[met[1, c]]
                    treated[first] = v
                    if crowd[first] >= 0:
                        met_crowded = _meet(crowd[first], v, True, near, met_crowded)
                    else:
                        steps += _bar_around(first, ptr, items, colors, barred, v)
                if strict:
                    treated[w] = v
                else:
                    met[0, c], met[1, c] = v, k
            if crowd[w] >= 0:
                met_crowded = _meet(crowd[w], v, strict, near, met_crowded)
            elif strict:
                steps += _bar_around(w, ptr, items, colors, barred, v)
            else:
                steps += _bar_hubs(w, ptr, items, edge, colors, star_of, hub, barred, v)
        c = _first_free(met_crowded, near, by_color)
        steps -= c * (1 + met_crowded)
        while barred[c] == v or _crowd_bars(c, met_crowded, near, by_color, crowded, star_of, hub):
            c += 1
        steps += c * (1 + met_crowded)
        colors[v] = c
        stars = _join_stars(v, ptr, items, edge, colors, star_of, hub, met, crowd, by_color, stars)
        by_color = note_color(v, c, ptr, items, edge, crowd, by_color)
    return colors, steps


class Near(NamedTuple):
    """The crowded vertices that the vertex at hand is next to.

    ``stamp[d]`` is the last vertex that met crowded vertex ``d``, ``strict[d]`` whether all colors
    around ``d`` are then barred, ``free[d]`` a color below which all are found around ``d``.
    """

    stamp: npt.NDArray[np.int64]
    strict: npt.NDArray[np.bool_]
    free: npt.NDArray[np.int64]
    listed: npt.NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def _meet(d: int, v: int, strict: bool, near: Any, count: int) -> int:
    if near.stamp[d] != v:
        near.stamp[d] = v
        near.strict[d] = strict
        near.listed[count] = d
        return count + 1
    near.strict[d] |= strict
    return count


@numba.njit(cache=True, nogil=True)
def _first_free(count: int, near: Any, by_color: Any) -> int:
    """A color below which all are barred by some crowded neighbor."""
    start = 0
    for k in range(count):
        d = near.listed[k]
        if near.strict[d]:
            while near.free[d] < len(by_color) and by_color[near.free[d], d]:
                near.free[d] += 1
            start = max(start, near.free[d])
    return start


@numba.njit(cache=True, nogil=True)
def _crowd_bars(
    c: int, count: int, near: Any, by_color: Any, crowded: Any, star_of: Any, hub: Any
) -> bool:
    if c >= len(by_color):
        return False
    for k in range(count):
        d = near.listed[k]
        e = by_color[c, d] - 1
        if e < 0:
            continue
        if near.strict[d]:
            return True
        center = hub[star_of[e]]
        if center >= 0 and center != crowded[d]:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _bar_around(w: int, ptr: Any, items: Any, colors: Any, barred: Any, v: int) -> Any:
    for q in range(ptr[w], ptr[w + 1]):
        if colors[items[q]] >= 0:
            barred[colors[items[q]]] = v
    return ptr[w + 1] - ptr[w]


@numba.njit(cache=True, nogil=True)
def _bar_hubs(
    w: int,
    ptr: Any,
    items: Any,
    edge: Any,
    colors: Any,
    star_of: Any,
    hub: Any,
    barred: Any,
    v: int,
) -> Any:
    for q in range(ptr[w], ptr[w + 1]):
        x = items[q]
        if colors[x] >= 0 and hub[star_of[edge[q]]] == x:
            barred[colors[x]] = v
    return ptr[w + 1] - ptr[w]


@numba.njit(cache=True, nogil=True)
def _same_color_edge(
    w: int, v: int, ptr: Any, items: Any, edge: Any, colors: Any, crowd: Any, by_color: Any
) -> Any:
    """An edge from ``w`` to another vertex of the color of ``v``, or -1."""
    if crowd[w] >= 0:
        return by_color[colors[v], crowd[w]] - 1 if colors[v] < len(by_color) else -1
    for q in range(ptr[w], ptr[w + 1]):
        if items[q] != v and colors[items[q]] == colors[v]:
            return edge[q]
    return -1


@numba.njit(cache=True, nogil=True)
def _join_stars(
    v: int,
    ptr: Any,
    items: Any,
    edge: Any,
    colors: Any,
    star_of: Any,
    hub: Any,
    met: Any,
    crowd: Any,
    by_color: Any,
    stars: int,
) -> int:
    """Put every edge from the newly colored ``v`` to a colored neighbor into a star."""
    for k in range(ptr[v], ptr[v + 1]):
        w = items[k]
        if colors[w] < 0:
            continue
        other = _same_color_edge(w, v, ptr, items, edge, colors, crowd, by_color)
        first = met[1, colors[w]]
        if other >= 0:
            hub[star_of[other]] = w
            star_of[edge[k]] = star_of[other]
        elif first != k:
            hub[star_of[edge[first]]] = v
            star_of[edge[k]] = star_of[edge[first]]
        else:
            star_of[edge[k]] = stars
            stars += 1
    return stars
