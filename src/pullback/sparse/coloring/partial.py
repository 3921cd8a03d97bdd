"""Columns and rows: no two of one color may meet in a row (or in a column)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ..pattern import SparsityPattern
from .greedy import Colors, greedy
from .nets import nets_of
from .search import BUDGET, TRIED, Found, Rule, count_of, fewest


def partial_coloring(
    pattern: SparsityPattern, kind: str, orders: Sequence[str], budget: int = BUDGET
) -> Found:
    """A coloring of the columns or rows; empty ones are neutral.

    Every color meets a row at most once, so the longest row (column) bounds the count from below,
    and nothing better is sought once it is reached.
    """
    if pattern.is_full:
        return all_apart(pattern, pattern.shape[1 if kind == "columns" else 0], orders)
    finish = partial(_without_the_empty, _holds_entries(pattern, kind))
    if _longest_net(pattern, kind) <= 1:
        alike = finish(np.zeros(pattern.shape[1 if kind == "columns" else 0], dtype=np.int32))
        return Found(alike, count_of(alike), _first_of(orders))
    nets = nets_of(pattern, kind)
    lower = int(np.diff(nets.net_ptr).max())
    return fewest(Rule(nets, partial(greedy, nets), finish, lower, budget=budget), orders)


def all_apart(pattern: SparsityPattern, count: int, orders: Sequence[str]) -> Found:
    """A color each, or none at all where there is no entry."""
    colors = np.arange(count, dtype=np.int32)
    if pattern.nnz == 0:
        colors[:] = -1
    return Found(colors, count_of(colors), _first_of(orders))


def _first_of(orders: Sequence[str]) -> str:
    return TRIED[0] if orders[0] == "best" else orders[0]


def _longest_net(pattern: SparsityPattern, kind: str) -> int:
    sizes = np.diff(pattern.indptr) if kind == "columns" else np.bincount(pattern.indices)
    return int(sizes.max(initial=0))


def _holds_entries(pattern: SparsityPattern, kind: str) -> npt.NDArray[np.bool_]:
    if kind == "rows":
        return np.diff(pattern.indptr) > 0
    holds = np.zeros(pattern.shape[1], dtype=bool)
    holds[pattern.indices] = True
    return holds


def _without_the_empty(holds: npt.NDArray[np.bool_], colors: Colors) -> Colors:
    # A vertex in no net has color 0, and so does some vertex that holds an entry, if one does:
    # the colors that stay are still numbered from 0 without a gap.
    return np.where(holds, colors, np.int32(-1))
