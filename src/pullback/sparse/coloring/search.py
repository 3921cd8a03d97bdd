"""The coloring of fewest colors that several orders and some recoloring find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .greedy import Colors, class_order
from .nets import Nets
from .orders import PASSES, SEED, Order, order_of

BUDGET = 200_000_000
"""How many steps, as counted by the greedy passes, a search may take: on patterns of up to a
million entries it ends by itself before; on larger ones it ends after a second or so beyond the
first pass, or with the first pass if that alone took so many."""
MOST_PASSES = 200
STALE_PASSES = 24
TRIED = ("largest first", "natural", "smallest last", "incidence degree")


@dataclass(frozen=True, eq=False)
class Found:
    """Colors from 0 (-1: neutral), how many there are, and the order that led to them."""

    colors: Colors
    count: int
    order: str


@dataclass(frozen=True, eq=False)
class Rule:
    """What a search tries: ``attempt`` colors in an order and counts its steps, ``finish`` drops
    the colors that no entry needs, and no coloring has fewer than ``lower``."""

    nets: Nets
    attempt: Callable[[Order], tuple[Colors, int]]
    finish: Callable[[Colors], Colors]
    lower: int
    tried: Sequence[str] = TRIED
    budget: int = BUDGET
    finish_steps: int = 0


def count_of(colors: Colors) -> int:
    return int(colors.max()) + 1 if len(colors) else 0


def fewest(rule: Rule, orders: Sequence[str]) -> Found:
    """The best of the orders; for ``best``, of all that the budget allows, then recolored."""
    search = orders[0] == "best"
    best, raw, spent, cost = None, np.zeros(0, np.int32), 0, 0
    for name in rule.tried if search else orders:
        if search and best is not None and spent + (PASSES[name] + 1) * cost > rule.budget:
            continue
        colors, cost = rule.attempt(order_of(rule.nets, name))
        spent += (PASSES[name] + 1) * cost + rule.finish_steps
        found = Found(rule.finish(colors), 0, name)
        count = count_of(found.colors)
        if best is None or count < best.count:
            best, raw = Found(found.colors, count, name), colors
        if best.count <= rule.lower:
            return best
    assert best is not None
    return _recolored(rule, best, raw, rule.budget - spent) if search else best


def _recolored(rule: Rule, found: Found, raw: Colors, budget: int) -> Found:
    """More passes, each taking the color classes of the one before one after the other.

    Where colors are barred by single vertices, as in nets, such a pass never needs more colors.
    """
    best, colors, stale, cost = found, raw, 0, 0
    rng = np.random.default_rng(SEED)
    for turn in range(MOST_PASSES):
        if best.count <= rule.lower or stale >= STALE_PASSES or budget < cost:
            break
        tried, cost = rule.attempt(class_order(colors, _class_ranks(colors, turn, rng)))
        budget, stale = budget - cost - rule.finish_steps, stale + 1
        finished = rule.finish(tried)
        count = count_of(finished)
        if count < best.count:
            best, stale = Found(finished, count, f"{found.order}, recolored"), 0
        if count <= best.count:
            colors = tried
    return best


def _class_ranks(colors: Colors, turn: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """When each color class is taken: last first, largest first, or at random, by turns."""
    sizes = np.bincount(np.maximum(colors, 0))
    if turn % 3 == 0:
        return np.arange(len(sizes))[::-1].copy()
    if turn % 3 == 1:
        return np.argsort(np.argsort(-sizes, kind="stable"))
    return rng.permutation(len(sizes))
