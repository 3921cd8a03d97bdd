"""Star and acyclic colorings of symmetric patterns, which read each pair of entries once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..pattern import SparsityPattern
from .acyclic import acyclic
from .graph import Graph, edge_nets, graph_of_symmetric
from .greedy import Colors
from .orders import Order
from .partial import all_apart
from .postprocess import STEPS, needed_colors, renumbered
from .search import BUDGET, TRIED, Found, Rule, count_of, fewest
from .star import star


def symmetric_coloring(
    pattern: SparsityPattern,
    kind: str,
    orders: Sequence[str],
    *,
    postprocess: bool,
    budget: int = BUDGET,
) -> Found:
    """A star or acyclic coloring of a pattern that is known to be symmetric.

    A vertex without entries is neutral. A diagonal entry needs the color of its vertex.
    """
    if pattern.is_full:
        return all_apart(pattern, pattern.shape[1], orders)
    graph = graph_of_symmetric(pattern)
    nobody = np.zeros(graph.num_vertices, dtype=bool)
    empty = np.diff(pattern.indptr) == 0
    diagonal = _on_diagonal(pattern)

    def attempt(order: Order) -> tuple[Colors, int]:
        return star(graph, order, nobody) if kind == "star" else acyclic(graph, order)

    def finish(colors: Colors) -> Colors:
        held = np.where(empty, np.int32(-1), colors)
        if not postprocess or _all_needed(held[diagonal], count_of(held)):
            return held
        return renumbered(held, needed_colors(pattern, held, held, count_of(held)))

    lower = _least(pattern, graph, diagonal, postprocess=postprocess)
    steps = 0 if not postprocess or len(diagonal) == len(empty) else STEPS * pattern.nnz
    rule = Rule(edge_nets(graph), attempt, finish, lower, (*TRIED, "random"), budget, steps)
    return fewest(rule, orders)


def _on_diagonal(pattern: SparsityPattern) -> npt.NDArray[np.intp]:
    """The vertices that have a diagonal entry."""
    counts = np.diff(pattern.indptr)
    rows = np.repeat(np.arange(pattern.shape[0], dtype=pattern.indices.dtype), counts)
    return np.asarray(rows[rows == pattern.indices], dtype=np.intp)


def _all_needed(on_diagonal: Colors, count: int) -> bool:
    used = np.zeros(count, dtype=bool)
    used[on_diagonal] = True
    return bool(used.all())


def _least(
    pattern: SparsityPattern,
    graph: Graph,
    diagonal: npt.NDArray[np.intp],
    *,
    postprocess: bool,
) -> int:
    """Fewer colors cannot do: neighbors differ, unless one of them may be neutral."""
    if pattern.nnz == 0:
        return 0
    fixed = np.zeros(graph.num_vertices, dtype=bool)
    fixed[diagonal] = True
    both = np.repeat(fixed, np.diff(graph.ptr)) & fixed[graph.items]
    return 2 if both.any() or (len(graph.items) and not postprocess) else 1
