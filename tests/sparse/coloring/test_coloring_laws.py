"""Every coloring obeys its rule and gives the matrix back, over every pattern and order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from pullback.sparse.coloring import Coloring, color, graph, nets
from pullback.sparse.coloring import validity as rules
from pullback.sparse.coloring.orders import ORDERS
from pullback.sparse.pattern import SparsityPattern

from .patterns import ANY, SYMMETRIC, Mask, any_mask, pattern_of, symmetric_mask
from .products import comes_back

Make = Callable[[], SparsityPattern]
ALL_ORDERS: list[str | tuple[str, ...]] = [*ORDERS, "best", ("random", "natural")]
DTYPES = [np.int64, np.float32, np.float64, np.complex64, np.complex128]
GENERAL_KINDS = ["columns", "rows", "bidirectional"]
SYMMETRIC_KINDS = ["star", "acyclic"]


def obeys(pattern: SparsityPattern, coloring: Coloring) -> bool:
    if coloring.kind in ("columns", "rows"):
        return rules.structurally_orthogonal(pattern, coloring.colors, coloring.kind)
    if coloring.kind == "bidirectional":
        return rules.is_bidirectional(pattern, coloring.row_colors, coloring.col_colors)
    check = rules.is_star if coloring.kind == "star" else rules.is_acyclic
    return check(pattern, coloring.colors)


def check(pattern: SparsityPattern, kind: str, order: Any, postprocess: bool = True) -> Coloring:
    coloring = color(pattern, kind, order, postprocess=postprocess)
    assert obeys(pattern, coloring)
    assert kind == "acyclic" or rules.directly_recoverable(pattern, coloring)
    assert comes_back(pattern, coloring)
    used = coloring.colors[coloring.colors >= 0].unique()
    assert torch.equal(used, torch.arange(coloring.num_colors))
    assert coloring.colors.dtype == torch.int64
    return coloring


@pytest.mark.parametrize("kind", GENERAL_KINDS)
@pytest.mark.parametrize("order", ALL_ORDERS, ids=str)
@pytest.mark.parametrize("make", ANY.values(), ids=ANY)
def test_any_pattern_comes_back(make: Make, order: Any, kind: str) -> None:
    check(make(), kind, order)
    check(make(), kind, order, postprocess=False)


@pytest.mark.parametrize("kind", SYMMETRIC_KINDS)
@pytest.mark.parametrize("order", ALL_ORDERS, ids=str)
@pytest.mark.parametrize("make", SYMMETRIC.values(), ids=SYMMETRIC)
def test_a_symmetric_pattern_comes_back(make: Make, order: Any, kind: str) -> None:
    check(make(), kind, order)
    check(make(), kind, order, postprocess=False)


@settings(max_examples=60, deadline=None)
@given(any_mask())
def test_any_random_pattern_comes_back(mask: Mask) -> None:
    for kind in GENERAL_KINDS:
        check(pattern_of(mask), kind, "best")


@settings(max_examples=60, deadline=None)
@given(symmetric_mask())
def test_any_random_symmetric_pattern_comes_back(mask: Mask) -> None:
    for kind in SYMMETRIC_KINDS:
        check(pattern_of(mask), kind, "best")


@pytest.mark.parametrize("kind", [*GENERAL_KINDS, *SYMMETRIC_KINDS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_every_dtype_come_back(kind: str, dtype: Any) -> None:
    pattern = SYMMETRIC["random, half a diagonal"]()
    assert comes_back(pattern, color(pattern, kind), dtype)


@pytest.fixture
def easily_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every net and vertex of more than two counts as crowded."""
    monkeypatch.setattr(nets, "CROWD", 2)
    monkeypatch.setattr(graph, "CROWD", 2)


@pytest.mark.usefixtures("easily_crowded")
@pytest.mark.parametrize("order", ["natural", "random", "smallest last", "best"])
def test_crowded_nets_and_vertices_keep_the_rules(order: str) -> None:
    for make in ANY.values():
        for kind in GENERAL_KINDS:
            check(make(), kind, order)
    for make in SYMMETRIC.values():
        for kind in SYMMETRIC_KINDS:
            check(make(), kind, order)


@pytest.mark.parametrize("kind", [*GENERAL_KINDS, *SYMMETRIC_KINDS])
@pytest.mark.parametrize("order", ["natural", "random"])
def test_crowding_changes_how_colors_are_found_and_not_which(
    kind: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    families = [SYMMETRIC] if kind in SYMMETRIC_KINDS else [ANY, SYMMETRIC]
    patterns = [make() for family in families for make in family.values()]
    plain = [color(pattern, kind, order).colors for pattern in patterns]
    monkeypatch.setattr(nets, "CROWD", 2)
    monkeypatch.setattr(graph, "CROWD", 2)
    for pattern, expected in zip(patterns, plain, strict=True):
        assert torch.equal(color(pattern, kind, order).colors, expected)


@pytest.mark.parametrize("kind", [*GENERAL_KINDS, *SYMMETRIC_KINDS])
def test_best_is_no_worse_than_any_order(kind: str) -> None:
    patterns = SYMMETRIC if kind in SYMMETRIC_KINDS else ANY
    for make in patterns.values():
        best = color(make(), kind).num_colors
        assert all(best <= color(make(), kind, order).num_colors for order in ORDERS)


@pytest.mark.parametrize("kind", [*GENERAL_KINDS, *SYMMETRIC_KINDS])
def test_a_coloring_is_the_same_at_every_call(kind: str) -> None:
    pattern = SYMMETRIC["random"]()
    first, second = color(pattern, kind), color(pattern, kind)
    assert torch.equal(first.colors, second.colors)
    assert first.order == second.order


def test_columns_of_a_matrix_are_rows_of_its_transpose() -> None:
    for make in ANY.values():
        for order in ORDERS:
            rows, columns = color(make(), "rows", order), color(make().T, "columns", order)
            assert torch.equal(rows.colors, columns.colors)


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_rows_and_columns_without_entries_are_neutral(kind: str) -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1, 2] = mask[1, 3] = mask[3, 3] = True
    neutral = color(mask, kind).colors < 0
    empty = ~mask.any(axis=0 if kind == "columns" else 1)
    assert neutral.tolist() == empty.tolist()


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_no_coloring_beats_the_longest_row(kind: str) -> None:
    for make in ANY.values():
        pattern = make()
        longest = (
            pattern.to_scipy().toarray().sum(axis=1 if kind == "columns" else 0).max(initial=0)
        )
        assert color(pattern, kind).num_colors >= longest


def test_a_full_pattern_is_colored_without_its_indices() -> None:
    pattern = SparsityPattern.full((10**7, 10**7))
    assert color(pattern, "columns").num_colors == 10**7
    assert pattern._indices is None
