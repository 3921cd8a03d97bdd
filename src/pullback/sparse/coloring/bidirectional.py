"""Rows and columns together: every entry is read in a row product or in a column product."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ..pattern import SparsityPattern
from .graph import Graph, edge_nets, graph_of_both_sides
from .greedy import Colors
from .orders import Order
from .partial import partial_coloring
from .postprocess import STEPS, needed_colors, renumbered
from .search import TRIED, Found, Rule, count_of, fewest
from .star import star

Neutral = npt.NDArray[np.bool_]


def bidirectional_coloring(
    pattern: SparsityPattern, orders: Sequence[str], *, postprocess: bool, budget: int
) -> Found:
    """Colors of the rows and then of the columns, numbered on.

    A star coloring of the graph whose vertices are the rows and the columns and whose edges are
    the entries (Gebremedhin, Manne, Pothen, "What color is your Jacobian?", SIAM Review 47 (2005),
    section 6). ``best`` also tries to color all rows or all columns alone, and to keep neutral all
    rows but the longest, or all columns but the longest.
    """
    m, n = pattern.shape
    search, lower = orders[0] == "best", 1
    if pattern.is_full or search:
        by_rows = _one_sided(pattern, "rows", orders, budget)
        by_columns = _one_sided(pattern, "columns", orders, budget)
        alone = min(by_columns, by_rows, key=lambda found: found.count)
        if pattern.is_full or alone.count <= 2:
            return alone
        lower = 2  # one product for all is of one kind
    graph = graph_of_both_sides(pattern)
    nets, finish = edge_nets(graph), partial(_finish, pattern, postprocess)

    def rule(neutral: Neutral) -> Rule:
        attempt = partial(_star_around, graph, neutral)
        steps = STEPS * pattern.nnz
        return Rule(nets, attempt, finish, lower, (*TRIED, "random"), budget, steps)

    free = fewest(rule(np.zeros(m + n, dtype=bool)), orders)
    if not search:
        return free
    covers = (_all_but_long_rows(pattern), _all_but_long_columns(pattern))
    covered = [fewest(rule(neutral), orders) for neutral in covers if neutral is not None]
    return min([alone, free, *covered], key=lambda found: found.count)


def _star_around(graph: Graph, neutral: Neutral, order: Order) -> tuple[Colors, int]:
    return star(graph, order, neutral)


def _finish(pattern: SparsityPattern, postprocess: bool, colors: Colors) -> Colors:
    """From colors that each side counts for itself to products, rows first."""
    m = pattern.shape[0]
    rows, cols = colors[:m], colors[m:]
    offset = np.int32(count_of(rows))
    products = np.concatenate([rows, np.where(cols >= 0, cols + offset, np.int32(-1))])
    products = np.where(_empty(pattern), np.int32(-1), products)
    count = count_of(products)
    used = np.zeros(count, dtype=bool)
    used[products[products >= 0]] = True
    if postprocess:
        used &= needed_colors(pattern, products[:m], products[m:], count)
    return renumbered(products, used)


def _empty(pattern: SparsityPattern) -> Neutral:
    met = np.bincount(pattern.indices, minlength=pattern.shape[1])
    held: Neutral = np.concatenate([np.diff(pattern.indptr), met]) == 0
    return held


def _one_sided(pattern: SparsityPattern, kind: str, orders: Sequence[str], budget: int) -> Found:
    m, n = pattern.shape
    found = partial_coloring(pattern, kind, orders, budget)
    idle = np.full(n if kind == "rows" else m, -1, np.int32)
    pair = (found.colors, idle) if kind == "rows" else (idle, found.colors)
    return Found(np.concatenate(pair), found.count, found.order)


def _all_but_long_rows(pattern: SparsityPattern) -> Neutral | None:
    """Keep neutral the rows but the longest, and the columns that only those meet.

    The longest ``k`` rows need at least as many colors as they have entries in a column, and the
    columns at least as many as the next row has entries; the ``k`` of the least sum is taken.
    """
    m, n = pattern.shape
    lengths = np.diff(pattern.indptr)
    falling = np.argsort(-lengths, kind="stable")
    most, met = min(m, int(lengths.max(initial=0))), np.zeros(n, dtype=np.int64)
    best, least, deepest = 0, int(lengths.max(initial=0)), 0
    for k in range(1, most):
        row = falling[k - 1]
        cols = pattern.indices[pattern.indptr[row] : pattern.indptr[row + 1]]
        met[cols] += 1
        deepest = max(deepest, int(met[cols].max()))
        if deepest + int(lengths[falling[k]]) < least:
            best, least = k, deepest + int(lengths[falling[k]])
        if deepest >= least:
            break
    if best == 0:
        return None
    neutral = np.ones(m + n, dtype=bool)
    neutral[falling[:best]] = False
    rest = neutral[:m].repeat(lengths)
    neutral[m + pattern.indices[rest]] = False
    return neutral


def _all_but_long_columns(pattern: SparsityPattern) -> Neutral | None:
    flipped = _all_but_long_rows(pattern.T)
    n = pattern.shape[1]
    return None if flipped is None else np.concatenate([flipped[n:], flipped[:n]])
