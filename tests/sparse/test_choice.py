"""The choice of products: a pure function of the pattern, checked against the colorings it compares."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pullback as pb
from pullback.sparse.choice import Choice, choose

Bools = npt.NDArray[np.bool_]


def pattern(mask: Any) -> pb.SparsityPattern:
    return pb.SparsityPattern.from_scipy(np.asarray(mask, dtype=bool))


def arrow(n: int) -> Bools:
    mask = np.eye(n, dtype=bool)
    mask[0] = mask[:, 0] = True
    return mask


def band(n: int, width: int) -> Bools:
    i, j = np.indices((n, n))
    found: Bools = (j - i >= 0) & (j - i < width)
    return found


# No two rows are disjoint, and no two columns: 3 products either way, as without a coloring.
TRIANGLE = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=bool)


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def recoverable(mask: Bools, choice: Choice) -> bool:
    """Whether every entry is alone, in its row or its column, in the product that reads it."""
    rows, cols = choice.coloring.row_colors.numpy(), choice.coloring.col_colors.numpy()
    for i, j in np.argwhere(mask):
        alone_by_row = rows[i] >= 0 and mask[rows == rows[i], j].sum() == 1
        alone_by_col = cols[j] >= 0 and mask[i, cols == cols[j]].sum() == 1
        if not (alone_by_row or alone_by_col):
            return False
    return True


def test_the_recovery_check_can_fail() -> None:
    good = choose(pattern(np.eye(3)), "rev")
    assert recoverable(np.eye(3, dtype=bool), good)
    assert not recoverable(np.ones((3, 3), dtype=bool), good)


MASKS = {
    "diagonal": np.eye(7, dtype=bool),
    "band": band(12, 3),
    "arrow": arrow(20),
    "full": np.ones((3, 5), dtype=bool),
    "tall full": np.ones((5, 3), dtype=bool),
    "one column": np.ones((6, 1), dtype=bool),
    "empty": np.zeros((4, 3), dtype=bool),
    "no rows": np.zeros((0, 3), dtype=bool),
    "no columns": np.zeros((3, 0), dtype=bool),
    "triangle": TRIANGLE,
    "one row and the rest": np.vstack([np.ones((1, 9)), np.eye(9)]).astype(bool),
    "one column and the rest": np.hstack([np.ones((9, 1)), np.eye(9)]).astype(bool),
}


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev", "mixed", "dense"])
@pytest.mark.parametrize("name", MASKS)
def test_every_mode_reads_every_entry(name: str, mode: str) -> None:
    mask = MASKS[name]
    choice = choose(pattern(mask), mode)
    assert choice.mode == mode or mode == "auto"
    assert choice.num_products == choice.coloring.num_colors == sum(choice.coloring.split)
    assert recoverable(mask, choice)
    if choice.mode == "rev":
        assert choice.coloring.split.columns == 0
    if choice.mode == "fwd":
        assert choice.coloring.split.rows == 0


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.booleans())
)
def test_auto_takes_the_fewest_products_and_says_so(mask: Bools) -> None:
    spots = pattern(mask)
    choice = choose(spots, "auto")
    rows, columns = pb.color(spots, "rows").num_colors, pb.color(spots, "columns").num_colors
    assert recoverable(mask, choice)
    assert choice.num_products <= min(
        rows, columns, *mask.shape
    ) or choice.num_products <= 1.1 * min(rows, columns)
    if choice.mode == "rev":
        assert rows <= 1.1 * columns
        assert numbers(choice.reason) == [rows, columns]
    elif choice.mode == "fwd":
        assert 1.1 * columns < rows
        assert numbers(choice.reason) == [columns, rows]
    elif choice.mode == "mixed":
        assert numbers(choice.reason) == [*choice.coloring.split, rows, columns]
        assert choice.num_products < 0.7 * min(rows, columns)
    else:
        assert mask.all() or min(rows, columns) == min(mask.shape)
        assert numbers(choice.reason)[-1] == choice.num_products == min(mask.shape)


@pytest.mark.parametrize("n", [12, 40, 100])
def test_an_arrow_is_mixed(n: int) -> None:
    choice = choose(pattern(arrow(n)), "auto")
    assert choice.mode == "mixed"
    # A VJP for the full row and a JVP for the full column; one more for what is left, the diagonal.
    assert choice.num_products == 3
    rows, columns = choice.coloring.split
    assert choice.reason == (
        f"{rows} VJP{'s' * (rows > 1)} and {columns} JVP{'s' * (columns > 1)} cover all entries; "
        f"{n} VJPs would cover the rows, {n} JVPs the columns"
    )


def test_a_few_products_are_never_mixed() -> None:
    assert choose(pattern(arrow(5)), "auto").mode == "dense"


@pytest.mark.parametrize(("width", "mode"), [(1, "rev"), (3, "rev")])
def test_ties_go_to_vjps(width: int, mode: str) -> None:
    choice = choose(pattern(band(20, width)), "auto")
    assert (choice.mode, choice.num_products) == (mode, width)


def test_a_full_row_asks_for_vjps_and_a_full_column_for_jvps() -> None:
    row = choose(pattern(MASKS["one row and the rest"]), "auto")
    assert (row.mode, row.num_products) == ("rev", 2)
    assert row.reason == "2 VJPs cover the rows; 9 JVPs would cover the columns"
    column = choose(pattern(MASKS["one column and the rest"]), "auto")
    assert (column.mode, column.num_products) == ("fwd", 2)
    assert column.reason == "2 JVPs cover the columns; 9 VJPs would cover the rows"


def test_without_jvps_auto_takes_vjps_and_says_why() -> None:
    choice = choose(pattern(band(9, 2)), "auto", forward="an op has no second derivative")
    assert (choice.mode, choice.num_products) == ("rev", 2)
    assert choice.reason == (
        "2 VJPs cover the rows; there are no JVPs: an op has no second derivative"
    )


@pytest.mark.parametrize("name", MASKS)
def test_without_jvps_no_mode_but_those_of_vjps_is_chosen(name: str) -> None:
    for mode in ("auto", "rev", "dense"):
        choice = choose(pattern(MASKS[name]), mode, forward="none")
        assert choice.coloring.split.columns == 0
        assert recoverable(MASKS[name], choice)


@pytest.mark.parametrize(("shape", "reason"), [
    ((3, 5), "every entry of the 3 × 5 matrix may be nonzero: 3 VJPs, one per row"),
    ((5, 3), "every entry of the 5 × 3 matrix may be nonzero: 3 JVPs, one per column"),
    ((4, 4), "every entry of the 4 × 4 matrix may be nonzero: 4 VJPs, one per row"),
    ((1, 6), "every entry of the 1 × 6 matrix may be nonzero: 1 VJP, one per row"),
])  # fmt: skip
def test_a_full_matrix_goes_along_its_shorter_side(shape: tuple[int, int], reason: str) -> None:
    choice = choose(pb.SparsityPattern.full(shape), "auto")
    assert (choice.mode, choice.reason) == ("dense", reason)
    assert choice.num_products == min(shape)


def test_a_coloring_that_saves_nothing_is_dense() -> None:
    choice = choose(pattern(TRIANGLE), "auto")
    assert (choice.mode, choice.num_products) == ("dense", 3)
    assert choice.reason == "no coloring needs fewer than 3 products: 3 VJPs, one per row"


def test_a_full_pattern_is_never_expanded() -> None:
    spots = pb.SparsityPattern.full((100_000, 200_000))
    for mode in ("auto", "dense"):
        assert choose(spots, mode).num_products == 100_000
    assert spots._indices is None
    assert spots._indptr is None


@pytest.mark.parametrize("name", ["empty", "no rows", "no columns"])
@pytest.mark.parametrize("mode", ["auto", "fwd", "rev", "mixed"])
def test_nothing_takes_no_product(name: str, mode: str) -> None:
    assert choose(pattern(MASKS[name]), mode).num_products == 0


def test_the_choice_is_a_function_of_the_pattern() -> None:
    once, again = (choose(pattern(arrow(30)), "auto") for _ in range(2))
    assert (once.mode, once.reason) == (again.mode, again.reason)
    assert once.coloring.colors.equal(again.coloring.colors)


@pytest.mark.parametrize(("mode", "reason"), [
    ("rev", "rev was asked for: 2 VJPs cover the rows"),
    ("fwd", "fwd was asked for: 2 JVPs cover the columns"),
    ("dense", "dense was asked for: 9 × 9: 9 VJPs, one per row"),
])  # fmt: skip
def test_a_mode_that_was_asked_for_is_taken(mode: str, reason: str) -> None:
    choice = choose(pattern(band(9, 2)), mode)
    assert (choice.mode, choice.reason) == (mode, reason)
