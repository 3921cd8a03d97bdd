"""Where entries are read, how products are grouped and seeded, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pullback._errors import ArgumentError
from pullback.sparse.coloring import (
    Coloring,
    color,
    grouped,
    recover,
    seeds,
    sources,
    substitution,
)
from pullback.sparse.pattern import SparsityPattern

from .patterns import ANY, SYMMETRIC, arrow, band, crossed, pattern_of
from .products import comes_back, compressed, entries, matrix_on

Make = Callable[[], SparsityPattern]


@pytest.mark.parametrize("make", ANY.values(), ids=ANY)
@pytest.mark.parametrize("kind", ["columns", "rows", "bidirectional"])
def test_chunks_of_products_fill_the_values_as_they_come(make: Make, kind: str) -> None:
    pattern = make()
    coloring = color(pattern, kind)
    found = sources(pattern, coloring)
    order, starts = grouped(found)
    matrix = matrix_on(pattern, np.float64, symmetric=False)
    values = np.full(pattern.nnz, np.nan)
    for c in range(coloring.num_colors):
        seed = seeds(coloring, c, c + 1, np.float64)[0]
        product = seed @ matrix if c < coloring.split.rows else matrix @ seed
        mine = order[starts[c] : starts[c + 1]]
        assert (found.product[mine] == c).all()
        assert (np.diff(mine) > 0).all()
        values[mine] = product[found.position[mine]]
    assert np.array_equal(values, entries(matrix, pattern))
    assert starts.tolist() == sorted(starts.tolist())
    assert len(starts) == coloring.num_colors + 1


def test_the_index_arrays_are_narrow() -> None:
    pattern = ANY["brusselator"]()
    found = sources(pattern, color(pattern, "columns"))
    assert found.product.dtype == found.position.dtype == grouped(found)[0].dtype == np.int32


@pytest.mark.parametrize("make", SYMMETRIC.values(), ids=SYMMETRIC)
@pytest.mark.parametrize("kind", ["star", "acyclic"])
def test_the_steps_of_a_level_do_not_need_each_other(make: Make, kind: str) -> None:
    pattern = make()
    coloring = color(pattern, kind)
    steps = substitution(pattern, coloring)
    matrix = matrix_on(pattern, np.float64, symmetric=True)
    left = compressed(matrix, coloring)[steps.group_product, steps.group_position]
    values = np.full(pattern.nnz, np.nan)
    for start, stop in zip(steps.levels[:-1], steps.levels[1:], strict=True):
        solved = left[steps.group[start:stop]]
        values[steps.entry[start:stop]] = values[steps.mirror[start:stop]] = solved
        onward = steps.mirror_group[start:stop]
        np.subtract.at(left, onward[onward >= 0], solved[onward >= 0])
    assert np.array_equal(values, entries(matrix, pattern))


def test_half_precision_is_solved_in_single() -> None:
    pattern = band(8, 1)
    coloring = color(pattern, "acyclic")
    matrix = np.where(pattern.to_scipy().toarray(), 0.5, 0).astype(np.float16)
    found = recover(pattern, coloring, compressed(matrix, coloring))
    assert found.dtype == np.float16
    assert (found == 0.5).all()


def test_seeds_are_the_members_of_each_color() -> None:
    coloring = color(band(6, 1), "columns", "natural")
    assert coloring.colors.tolist() == [0, 1, 2, 0, 1, 2]
    assert seeds(coloring, 1, 3, np.float32).tolist() == [[0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]
    assert seeds(coloring, 0, 1, np.complex64).dtype == np.complex64


def test_both_sides_are_numbered_from_zero() -> None:
    coloring = color(crossed(10, 20, 2), "bidirectional")
    rows, cols = coloring.row_colors, coloring.col_colors
    assert (coloring.split, coloring.num_colors) == ((2, 2), 4)
    assert rows[rows >= 0].unique().tolist() == cols[cols >= 0].unique().tolist() == [0, 1]
    assert coloring.colors[:10].tolist() == rows.tolist()
    assert coloring.colors[10:].tolist() == torch.where(cols < 0, -1, cols + 2).tolist()
    assert seeds(coloring, 0, 2, float).shape == (2, 10)
    assert seeds(coloring, 2, 4, float).shape == (2, 20)


@pytest.mark.parametrize("kind", ["columns", "rows", "star", "acyclic"])
def test_one_sided_colorings_leave_the_other_side_neutral(kind: str) -> None:
    coloring = color(band(6, 1), kind)
    by_rows = kind != "columns"
    assert coloring.split == ((coloring.num_colors, 0) if by_rows else (0, coloring.num_colors))
    mine, others = coloring.row_colors, coloring.col_colors
    if not by_rows:
        mine, others = others, mine
    assert torch.equal(mine, coloring.colors)
    assert others.tolist() == [-1] * 6


def test_a_coloring_says_what_it_costs() -> None:
    assert repr(color(band(6, 1), "columns", "natural")) == (
        "Coloring(columns of 6 × 6: 3 colors = Jacobian-vector products; order: natural)"
    )
    assert repr(color(arrow(1), "rows", "random")) == (
        "Coloring(rows of 1 × 1: 1 color = vector-Jacobian products; order: random)"
    )
    assert repr(color(crossed(10, 20, 2), "bidirectional", "random")).startswith(
        "Coloring(bidirectional of 10 × 20: "
    )
    bare = pattern_of(np.eye(4, dtype=bool)[::-1])
    assert repr(color(bare, "star", "natural")) == (
        "Coloring(star of 4 × 4: 1 color = Hessian-vector products, 2 neutral; order: natural)"
    )


@pytest.mark.parametrize("kind", ["columns", "rows", "star", "bidirectional"])
def test_a_coloring_of_another_pattern_is_not_read(kind: str) -> None:
    coloring = color(np.eye(3, dtype=bool), kind)
    refused = (
        "sources: `coloring` does not fit `pattern`: the entry (0, 0) stands alone in no product, "
        f'so it cannot be read. Color this pattern: color(pattern, "{kind}").'
    )
    with pytest.raises(ArgumentError, match=re.escape(refused)):
        sources(pattern_of(np.ones((3, 3), bool)), coloring)


def test_a_cycle_cannot_be_solved() -> None:
    square = pattern_of(np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], bool))
    coloring = Coloring("acyclic", "natural", (4, 4), torch.tensor([0, 1, 0, 1]), 2)
    refused = (
        "substitution: `coloring` does not fit `pattern`: the entry (0, 1) stands alone in no "
        'product, so it cannot be read. Color this pattern: color(pattern, "acyclic").'
    )
    with pytest.raises(ArgumentError, match=re.escape(refused)):
        recover(square, coloring, np.zeros((2, 4)))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "kind": (
        lambda: color(np.eye(2, dtype=bool), "diagonals"),
        "color: `kind` is 'diagonals'; it must be 'columns' or 'rows' or 'star' or 'acyclic' or "
        "'bidirectional'.",
    ),
    "order": (
        lambda: color(np.eye(2, dtype=bool), "rows", "largest"),
        "color: `order` is 'largest'; it must be 'natural' or 'largest first' or 'smallest last' "
        "or 'incidence degree' or 'random' or 'best'.",
    ),
    "best among orders": (
        lambda: color(np.eye(2, dtype=bool), "rows", ("natural", "best")),
        "color: `order` is 'best'; it must be 'natural' or 'largest first' or 'smallest last' or "
        "'incidence degree' or 'random'.",
    ),
    "no orders": (
        lambda: color(np.eye(2, dtype=bool), "rows", ()),
        'color: `order` is an empty tuple; name the orders to try, or write order="best".',
    ),
    "postprocess": (
        lambda: color(np.eye(2, dtype=bool), "rows", postprocess=1),  # type: ignore[arg-type]
        "color: `postprocess` is 1; it must be True or False.",
    ),
    "pattern": (
        lambda: color([[1]], "rows"),
        "color: `pattern` is a list; it must be a SparsityPattern, a SciPy sparse array, or a "
        "dense 2-D bool tensor or array. Write SparsityPattern.from_scipy(matrix).",
    ),
    "values": (
        lambda: color(torch.eye(2), "rows"),
        "color: `pattern` is a dense Tensor of dtype torch.float32; its values at one point do not "
        "tell which entries are always zero. If they do, write pattern != 0.",
    ),
    "axes": (
        lambda: color(np.ones(3, bool), "rows"),
        "color: `pattern` has shape (3,); a pattern has two axes, rows and columns. Reshape it to "
        "(m, n).",
    ),
    "not square": (
        lambda: color(np.ones((2, 3), bool), "star"),
        "color: `pattern` has shape (2, 3), but a star coloring is for symmetric matrices, which "
        'are square. Write kind="columns", "rows" or "bidirectional".',
    ),
    "mirror below": (
        lambda: color(np.triu(np.ones((3, 3), bool)), "acyclic"),
        "color: `pattern` has the entry (0, 1) but lacks its mirror (1, 0); an acyclic coloring is "
        "for symmetric matrices. For a symmetric matrix add the mirrored entries; otherwise write "
        'kind="columns", "rows" or "bidirectional".',
    ),
    "mirror above": (
        lambda: color(np.tril(np.ones((3, 3), bool)), "star"),
        "color: `pattern` has the entry (1, 0) but lacks its mirror (0, 1); a star coloring is "
        "for symmetric matrices. For a symmetric matrix add the mirrored entries; otherwise write "
        'kind="columns", "rows" or "bidirectional".',
    ),
    "another shape": (
        lambda: sources(band(4, 1), color(band(5, 1), "rows")),
        "sources: `coloring` is for a (5, 5) pattern, but `pattern` has shape (4, 4). Color this "
        'pattern: color(pattern, "rows").',
    ),
    "too few colors": (
        lambda: Coloring("bidirectional", "natural", (3, 4), torch.zeros(4, dtype=torch.int64), 1),
        "Coloring: `colors` has 4 entries, but this kind and shape have 7 rows or columns to "
        "color. Give each of them a color, -1 for none.",
    ),
    "a color too many": (
        lambda: Coloring("rows", "natural", (3, 4), torch.tensor([0, 1, 2]), 2),
        "Coloring: `colors` goes from 0 to 2, but `num_colors` is 2; colors are counted from 0, "
        "and -1 is neutral. Number them anew.",
    ),
    "acyclic sources": (
        lambda: sources(band(4, 1), color(band(4, 1), "acyclic")),
        "sources: `coloring` is acyclic, and its entries are solved for, not read. Use "
        'substitution(pattern, coloring) or recover, or color with kind="star".',
    ),
    "seeds beyond": (
        lambda: seeds(color(band(4, 1), "rows"), 2, 4, float),
        "seeds: `start` is 2 and `stop` is 4, but there are 3 colors; they must be "
        "0 <= start <= stop <= 3.",
    ),
    "seeds across": (
        lambda: seeds(color(crossed(10, 20, 2), "bidirectional"), 1, 3, float),
        "seeds: the colors 1 to 3 cross from row products to column products, whose seeds differ "
        "in length. Ask for 1 to 2 and 2 to 3.",
    ),
    "products": (
        lambda: recover(band(4, 1), color(band(4, 1), "rows"), np.zeros((2, 4))),
        "recover: `compressed` has shape (2, 4), but the coloring has 3 of these products with 4 "
        "entries each, so it must have shape (3, 4).",
    ),
    "one side": (
        lambda: recover(crossed(9, 9, 2), color(crossed(9, 9, 2), "bidirectional"), np.zeros(2)),
        "recover: `compressed` is a ndarray, but a bidirectional coloring has products of two "
        "lengths. Pass a pair: (row products, column products).",
    ),
}


@pytest.mark.parametrize(("call", "text"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_what_to_write(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        call()
    assert str(refusal.value) == text


def test_the_round_trip_notices_a_wrong_place() -> None:
    pattern = band(9, 1)
    coloring = color(pattern, "columns")
    assert comes_back(pattern, coloring)
    matrix = matrix_on(pattern, np.int64, symmetric=False)
    wrong = recover(pattern, coloring, compressed(matrix, coloring)[::-1])
    assert not np.array_equal(wrong, entries(matrix, pattern))


def test_dense_and_sparse_patterns_are_taken() -> None:
    mask = arrow(6)
    expected = color(pattern_of(mask), "star").colors
    for given in (mask, torch.from_numpy(mask), pattern_of(mask).to_scipy()):
        assert torch.equal(color(given, "star").colors, expected)
