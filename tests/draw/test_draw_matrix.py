"""Arrays laid out as matrices, described and shrunk."""

import numpy as np
import pytest

from pullback.draw import Heatmap, Outline, OutlineRow, Table, as_matrix
from pullback.draw.matrix import describe, finite_limit, shrink


@pytest.mark.parametrize(
    ("given", "laid_out", "row_axis", "column_axis"),
    [
        ((), (1, 1), "", ""),
        ((3,), (1, 3), "", "axis 0"),
        ((2, 3), (2, 3), "axis 0", "axis 1"),
        ((2, 3, 4), (6, 4), "axes 0 x 1", "axis 2"),
        ((2, 1, 0, 4), (0, 4), "axes 0 x 1 x 2", "axis 3"),
        ((2, 0), (2, 0), "axis 0", "axis 1"),
    ],
)
def test_layout_of_any_number_of_axes(
    given: tuple[int, ...], laid_out: tuple[int, int], row_axis: str, column_axis: str
) -> None:
    values = np.arange(np.prod(given, dtype=int), dtype=float).reshape(given)
    matrix, rows, columns = as_matrix(values)
    assert (matrix.shape, rows, columns) == (laid_out, row_axis, column_axis)
    np.testing.assert_array_equal(matrix.ravel(), values.ravel())


def test_bool_and_complex_become_floats() -> None:
    np.testing.assert_array_equal(as_matrix(np.array([True, False]))[0], [[1.0, 0.0]])
    np.testing.assert_array_equal(as_matrix(np.array([3 + 4j]))[0], [[5.0]])


def test_a_heatmap_keeps_its_own_copy_and_names_the_axes_of_other_ranks() -> None:
    values = np.zeros((2, 2))
    heatmap = Heatmap("J", values)
    values[0, 0] = 9.0
    assert heatmap.values[0, 0] == 0.0
    assert not heatmap.values.flags.writeable
    assert (heatmap.row_axis, heatmap.column_axis) == ("row", "column")
    deep = Heatmap("J", np.zeros((2, 3, 4), dtype=complex))
    assert (deep.row_axis, deep.column_axis, deep.unit) == ("axes 0 x 1", "axis 2", "(modulus)")
    assert Heatmap("J", np.zeros(3), "a", "b").column_axis == "b"


@pytest.mark.parametrize(
    ("values", "unit", "words"),
    [
        ([[1.0, -2.0]], "", "1 × 2, from -2 to 1"),
        ([[1.0, -2.0, np.nan, np.inf, -np.inf]], "mm", "1 × 5, from -2 to 1 mm, 1 nan, 2 inf"),
        ([[2.0, 2.0]], "", "1 × 2, all 2"),
        ([[2.0, np.nan]], "", "1 × 2, finite entries 2, 1 nan"),
        ([[np.nan]], "", "1 × 1, no finite entry, 1 nan"),
        ([[]], "", "1 × 0, no entries"),
    ],
)
def test_describe(values: list[list[float]], unit: str, words: str) -> None:
    assert describe(np.array(values), unit) == words


def test_the_limit_ignores_what_is_not_finite() -> None:
    assert finite_limit(np.array([[1.0, -3.0, np.inf]]), np.array([[2.0, np.nan]])) == 3.0
    assert finite_limit(np.array([[np.nan]])) == 0.0
    assert finite_limit() == 0.0


def test_shrinking_keeps_the_largest_of_each_block_with_its_sign() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 10))
    shrunk = shrink(values, 3, 5)
    assert (shrunk.row_step, shrunk.column_step, shrunk.values.shape) == (3, 2, (3, 5))
    for i, j in np.ndindex(3, 5):
        block = values[3 * i : 3 * i + 3, 2 * j : 2 * j + 2].ravel()
        assert shrunk.values[i, j] == block[np.abs(block).argmax()]
    assert shrunk.note == "each cell stands for 3 × 2 entries and shows the one of largest modulus"


def test_shrinking_never_hides_what_is_not_finite() -> None:
    values = np.full((4, 4), 1e300)
    values[1, 1], values[2, 3] = np.nan, -np.inf
    shrunk = shrink(values, 2, 2).values
    assert np.isnan(shrunk[0, 0])
    assert shrunk[1, 1] == -np.inf
    assert np.isfinite(shrunk[[0, 1], [1, 0]]).all()


def test_a_small_matrix_is_not_shrunk() -> None:
    values = np.eye(3)
    assert shrink(values, 3, 3).values is values
    assert shrink(values, 3, 3).note == ""


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError) as table:
        Table("t", ("a", "b"), (("1", "2"), ("3",)))
    assert str(table.value) == (
        "Table: row 1 has 1 cells, but there are 2 columns; give one cell per column, "
        "empty ones included."
    )
    with pytest.raises(ValueError) as outline:
        Outline(("a",), (OutlineRow(0, ("1", "2")),))
    assert str(outline.value) == (
        "Outline: row 0 has 2 cells, but there are 1 columns; give one cell per column, "
        "empty ones included."
    )
