"""Each order is what its name says, told from the neighbors in a dense matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from pullback.sparse.coloring.graph import edge_nets, graph_of_symmetric
from pullback.sparse.coloring.greedy import class_order, greedy
from pullback.sparse.coloring.nets import Nets, nets_of
from pullback.sparse.coloring.orders import ORDERS, order_of

from .patterns import ANY, Mask, any_mask, pattern_of, symmetric_mask


def neighbors(mask: Mask) -> npt.NDArray[Any]:
    """Columns that share a row."""
    near = (mask.T.astype(int) @ mask.astype(int)) > 0
    np.fill_diagonal(near, False)
    return near


def holds(nets: Nets, near: npt.NDArray[Any]) -> None:
    n = len(near)
    for name in ORDERS:
        assert sorted(order_of(nets, name)) == list(range(n))
    falling = near.sum(axis=1)[order_of(nets, "largest first")]
    assert (np.diff(falling) <= 0).all()
    last = order_of(nets, "smallest last")
    for k in range(n, 0, -1):
        left = near[np.ix_(last[:k], last[:k])].sum(axis=1)
        assert left[-1] == left.min()
    first = order_of(nets, "incidence degree")
    for k in range(n):
        taken = near[np.ix_(first[k:], first[:k])].sum(axis=1)
        assert taken[0] == taken.max()


@settings(max_examples=60, deadline=None)
@given(any_mask())
def test_orders_of_columns(mask: Mask) -> None:
    holds(nets_of(pattern_of(mask), "columns"), neighbors(mask))
    holds(nets_of(pattern_of(mask), "rows"), neighbors(mask.T))


@settings(max_examples=60, deadline=None)
@given(symmetric_mask())
def test_orders_of_a_graph(mask: Mask) -> None:
    near = mask.copy()
    np.fill_diagonal(near, False)
    holds(edge_nets(graph_of_symmetric(pattern_of(mask))), near)


@pytest.mark.parametrize("name", ORDERS)
def test_a_pass_by_classes_needs_no_more_colors(name: str) -> None:
    rng = np.random.default_rng(0)
    for make in ANY.values():
        nets = nets_of(make(), "columns")
        colors, _ = greedy(nets, order_of(nets, name))
        count = int(colors.max(initial=-1)) + 1
        for _ in range(5):
            colors, _ = greedy(nets, class_order(colors, rng.permutation(count)))
            assert int(colors.max(initial=-1)) + 1 <= count


def test_equal_nets_are_kept_once_and_single_vertices_not_at_all() -> None:
    mask = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=bool)
    nets = nets_of(pattern_of(mask), "columns")
    assert nets.net_ptr.tolist() == [0, 2, 4]
    assert nets.net_items.tolist() == [0, 1, 1, 2]
    assert nets.vertex_items.tolist() == [0, 0, 1, 1]
