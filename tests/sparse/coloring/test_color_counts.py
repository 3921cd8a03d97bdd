"""How many colors: what theory proves, and what is known of reference matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from pullback.sparse.coloring import color
from pullback.sparse.coloring import validity as rules

from .patterns import arrow, band, brusselator, conv, crossed, differences, pattern_of


@pytest.mark.parametrize("half", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("order", ["natural", "best"])
def test_a_symmetric_band_needs_as_many_colors_as_theory_says(half: int, order: str) -> None:
    # With half = r off-diagonals on each side: any r + 1 neighbors in a row are a clique, and a
    # star coloring needs 2 floor(rho / 2) + 1 colors, an acyclic one floor(rho / 2) + 1, rho = 2 r.
    pattern = band(5000, half)
    assert color(pattern, "star", order).num_colors == 2 * half + 1
    assert color(pattern, "acyclic", order).num_colors == half + 1
    assert color(pattern, "columns", order).num_colors == 2 * half + 1


@pytest.mark.parametrize(
    ("n", "at_most"), [(6, 9), (12, 10), (24, 10), (32, 12), (48, 10), (64, 12), (96, 10)]
)
def test_the_brusselator(n: int, at_most: int) -> None:
    pattern = brusselator(n)
    assert pattern.nnz == 12 * n * n
    # A row has 6 entries; the counts are those of largest first in another program.
    assert 6 <= color(pattern, "columns").num_colors <= at_most
    assert color(pattern, "columns", "largest first").num_colors == at_most


def test_a_convolution_is_cheaper_by_rows() -> None:
    pattern = conv(28, 3, 3, 2)
    assert (pattern.shape, pattern.nnz) == ((1352, 2352), 36504)
    assert color(pattern, "rows").num_colors == 18  # 9 taps of 2 channels: a column's entries
    assert color(pattern, "columns").num_colors == 27  # 9 taps of 3 channels: a row's entries


@pytest.mark.parametrize(("n", "k"), [(50, 1), (10, 3), (40, 6)])
def test_differences_of_order_k_need_one_color_more(n: int, k: int) -> None:
    pattern = differences(n, k)
    assert (pattern.shape, pattern.nnz) == ((n - k, n), (n - k) * (k + 1))
    for kind in ("columns", "rows"):
        count = color(pattern, kind).num_colors
        assert count == (k + 1 if kind == "columns" else min(k + 1, n - k))


def test_an_arrow() -> None:
    pattern = pattern_of(arrow(10))
    assert color(pattern, "rows").num_colors == color(pattern, "columns").num_colors == 10
    assert color(pattern, "star").num_colors == 2
    assert color(pattern, "acyclic").num_colors == 2
    assert color(pattern, "bidirectional").num_colors == 3


@pytest.mark.parametrize("kind", ["star", "bidirectional"])
def test_an_exchange_matrix_is_one_product(kind: str) -> None:
    pattern = pattern_of(np.eye(4, dtype=bool)[::-1])
    assert color(pattern, kind, "natural", postprocess=False).num_colors == 2
    assert color(pattern, kind, "natural").num_colors == 1
    assert color(pattern, kind).num_colors == 1


def test_long_rows_and_columns_need_both_sides() -> None:
    assert color(crossed(10, 20, 2), "bidirectional").num_colors == 4
    assert color(crossed(100, 200, 4), "bidirectional").num_colors == 8
    assert color(np.triu(np.ones((3, 3), bool)), "bidirectional").num_colors == 3


def test_long_rows_and_columns_over_a_diagonal_need_one_color_more() -> None:
    mask = crossed(200, 200, 3).to_scipy().toarray() | np.eye(200, dtype=bool)
    coloring = color(mask, "bidirectional")
    # 3 for the long rows, 3 for the long columns, 1 for what is left of the diagonal.
    assert coloring.num_colors <= 7
    assert (coloring.split.rows, coloring.split.columns) in ((3, 4), (4, 3))


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_many_samples_need_no_more_colors_than_one(kind: str) -> None:
    one = np.ones((8, 16), dtype=bool)
    many = pattern_of(sp.csr_array(sp.block_diag([one] * 50)))
    assert color(many, kind).num_colors == (16 if kind == "columns" else 8)


def test_a_tree_has_an_acyclic_coloring_of_two_and_a_star_coloring_of_three() -> None:
    # Parents before children, so that a greedy pass sees one colored neighbor at a time.
    n = 63
    child = np.arange(1, n)
    tree = sp.coo_array((np.ones(n - 1), (child, (child - 1) // 2)), shape=(n, n)).toarray()
    mask = (tree + tree.T + np.eye(n)).astype(bool)
    assert color(mask, "acyclic", "natural").num_colors == 2
    assert color(mask, "star").num_colors == 3


def test_only_colors_that_some_entry_needs_are_kept() -> None:
    # Without a diagonal one side of a star is enough: the hub's product holds all of its edges.
    mask = arrow(9)
    np.fill_diagonal(mask, False)
    coloring = color(mask, "star")
    assert coloring.colors.tolist() == [0] + [-1] * 8
    assert color(mask, "star", postprocess=False).num_colors == 2
    assert rules.is_star(pattern_of(mask), coloring.colors)


def test_a_long_row_is_not_visited_pair_by_pair() -> None:
    # Pair by pair this arrow would take 10^12 steps.
    n = 1_000_000
    i = np.arange(n)
    rows, cols = np.r_[i, i[1:], 0 * i[1:]], np.r_[i, 0 * i[1:], i[1:]]
    pattern = pattern_of(sp.csr_array((np.ones(3 * n - 2, bool), (rows, cols)), shape=(n, n)))
    assert color(pattern, "columns").num_colors == n
    assert color(pattern, "star").num_colors == 2
    assert color(pattern, "acyclic", "natural").num_colors == 2
