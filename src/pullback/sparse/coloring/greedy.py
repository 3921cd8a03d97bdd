"""Greedy coloring of vertices such that the vertices of a net all differ."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .nets import Nets
from .orders import Order

Colors = npt.NDArray[np.int32]


def greedy(nets: Nets, order: Order) -> tuple[Colors, int]:
    """The smallest color that no vertex of a common net has yet, vertex by vertex; and the steps
    that this took."""
    colors, steps = _greedy(*nets, order)
    return colors, int(steps)


@numba.njit(cache=True, nogil=True)
def _greedy(
    vertex_ptr: Any,
    vertex_items: Any,
    net_ptr: Any,
    net_items: Any,
    crowd: Any,
    words: int,
    order: Any,
) -> Any:
    n = len(vertex_ptr) - 1
    colors = np.full(n, -1, np.int32)
    barred = np.full(n + 1, -1, np.int64)  # barred[c] == v: a neighbor of v has color c
    used = np.zeros((n + 1 if words else 0, words), np.uint64)  # bit d: crowded net d has color c
    first = np.zeros(64 * words, np.int64)  # crowded net d has every color below first[d]
    mask = np.zeros(words, np.uint64)
    steps = n
    for v in order:
        c = 0
        mask[:] = 0
        for k in range(vertex_ptr[v], vertex_ptr[v + 1]):
            r = vertex_items[k]
            d = crowd[r]
            if d < 0:
                steps += net_ptr[r + 1] - net_ptr[r]
                for q in range(net_ptr[r], net_ptr[r + 1]):
                    taken = colors[net_items[q]]
                    if taken >= 0:
                        barred[taken] = v
                continue
            word, bit = d >> 6, np.uint64(1) << np.uint64(d & 63)
            mask[word] |= bit
            while used[first[d], word] & bit:
                first[d] += 1
            c = max(c, first[d])
        steps -= c * (1 + words)
        while barred[c] == v or _meets(used, c, mask):
            c += 1
        steps += c * (1 + words)
        colors[v] = c
        for word in range(words):
            used[c, word] |= mask[word]
    return colors, steps


@numba.njit(cache=True, nogil=True)
def _meets(used: Any, c: int, mask: Any) -> bool:
    for word in range(len(mask)):  # noqa: SIM110 - numba compiles loops, not generators
        if used[c, word] & mask[word]:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def sorted_by_class(classes: Any, count: int) -> Any:
    """Members sorted by class, in their own order within each, and where each class starts."""
    starts = np.zeros(count + 1, np.int64)
    for c in classes:
        starts[c + 1] += 1
    for c in range(count):
        starts[c + 1] += starts[c]
    at = starts[:-1].copy()
    order = np.empty(len(classes), np.int64)
    for v in range(len(classes)):
        c = classes[v]
        order[at[c]] = v
        at[c] += 1
    return order, starts


def class_order(colors: Colors, ranks: npt.NDArray[np.integer[Any]]) -> Order:
    """Vertices by the rank of their color. A greedy pass in this order needs no more colors.

    A. Culberson, "Iterated greedy graph coloring and the difficulty landscape", 1992: within a
    class no two vertices bar each other, so the k-th class always finds one of the first k colors.
    """
    order: Order = sorted_by_class(ranks[colors], len(ranks))[0]
    return order
