"""Patterns against dense booleans: construction, comparison, transposition, text and picture."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure

from pullback._errors import ArgumentError, TreeError
from pullback.sparse.pattern import SparsityPattern, index_dtype

FORMATS = ("csr", "csc", "coo", "bsr", "dok", "lil")
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7)
MASKS = st.one_of(
    hnp.arrays(bool, SHAPES), SHAPES.map(lambda s: np.ones(s, bool)), SHAPES.map(np.zeros)
).map(lambda mask: mask.astype(bool))


def dense(pattern: SparsityPattern) -> np.ndarray:
    """Mark the places one by one, straight from the arrays, after checking their order."""
    mask = np.zeros(pattern.shape, dtype=bool)
    assert len(pattern.indptr) == pattern.shape[0] + 1
    assert (pattern.indptr[0], pattern.indptr[-1]) == (0, len(pattern.indices))
    for i in range(pattern.shape[0]):
        cols = pattern.indices[pattern.indptr[i] : pattern.indptr[i + 1]]
        assert (np.diff(cols) > 0).all()
        mask[i, cols] = True
    assert pattern.nnz == mask.sum()
    return mask


@st.composite
def stored(draw: st.DrawFn) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """A messy CSR matrix (unsorted, repeated, explicit and cancelling zeros) and its places."""
    m, n = draw(SHAPES)
    place = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1), st.sampled_from([-1.0, 0, 1]))
    entries = draw(st.lists(place, max_size=20)) if m and n else []
    entries.sort(key=lambda entry: entry[0])
    rows = np.array([entry[0] for entry in entries], dtype=int)
    indices = np.array([entry[1] for entry in entries], dtype=draw(st.sampled_from(["i4", "i8"])))
    values = np.array([entry[2] for entry in entries])
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=m)))).astype(indices.dtype)
    mask = np.zeros((m, n), dtype=bool)
    mask[rows, indices] = True
    spare = draw(st.integers(0, 2))  # SciPy allows arrays that are longer than their content
    matrix = scipy.sparse.csr_array((m, n))
    matrix.data = np.append(values, np.full(spare, 7.0))
    matrix.indices = np.append(indices, np.zeros(spare, indices.dtype))
    matrix.indptr = indptr
    return matrix, mask


def test_the_reader_above_refuses_unsorted_and_repeated_columns() -> None:
    for cols in ([1, 0], [1, 1]):
        with pytest.raises(AssertionError):
            dense(SparsityPattern((1, 2), np.array([0, 2]), np.array(cols)))


@given(MASKS)
def test_a_numpy_array_gives_its_nonzero_places(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(dense(SparsityPattern.from_scipy(mask)), mask)
    np.testing.assert_array_equal(dense(SparsityPattern.from_scipy(mask * -2.5)), mask)
    np.testing.assert_array_equal(dense(SparsityPattern.from_torch(torch.tensor(mask))), mask)


@given(stored())
def test_stored_places_are_read_and_the_matrix_left_alone(
    case: tuple[scipy.sparse.csr_array, np.ndarray],
) -> None:
    matrix, mask = case
    arrays = [matrix.data, matrix.indices, matrix.indptr]
    before = [array.copy() for array in arrays]
    pattern = SparsityPattern.from_scipy(matrix)
    np.testing.assert_array_equal(dense(pattern), mask)
    now = [matrix.data, matrix.indices, matrix.indptr]
    assert all(array is same for array, same in zip(arrays, now, strict=True))
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@given(stored())
def test_the_pattern_shares_no_memory_with_its_matrix(
    case: tuple[scipy.sparse.csr_array, np.ndarray],
) -> None:
    matrix, mask = case
    pattern = SparsityPattern.from_scipy(matrix)
    matrix.indices[:] = 0
    matrix.indptr[:] = 0
    np.testing.assert_array_equal(dense(pattern), mask)


@given(stored(), st.sampled_from(FORMATS))
def test_every_format_gives_the_same_places(
    case: tuple[scipy.sparse.csr_array, np.ndarray], name: str
) -> None:
    mask = case[1]
    for kind in (scipy.sparse.coo_array, scipy.sparse.coo_matrix):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.sparse.SparseEfficiencyWarning)
            given = kind(mask.astype(float))
            # Larger blocks would store the zeros inside them, and stored places count.
            matrix = given.tobsr(blocksize=(1, 1)) if name == "bsr" else given.asformat(name)
        np.testing.assert_array_equal(dense(SparsityPattern.from_scipy(matrix)), mask)


def test_stored_zeros_and_repeats_count_in_every_format() -> None:
    rows, cols = np.array([1, 0, 1, 1]), np.array([2, 0, 0, 2])
    coo = scipy.sparse.coo_array((np.array([1.0, 0.0, 5.0, -1.0]), (rows, cols)), shape=(2, 3))
    places = [[True, False, False], [True, False, True]]
    assert dense(SparsityPattern.from_scipy(coo)).tolist() == places
    assert (coo.nnz, coo.row.tolist()) == (4, [1, 0, 1, 1])
    csc = scipy.sparse.csc_array(
        (np.zeros(4), np.array([1, 0, 1, 1]), np.array([0, 2, 2, 4])), shape=(2, 3)
    )
    assert dense(SparsityPattern.from_scipy(csc)).tolist() == places
    assert csc.indices.tolist() == [1, 0, 1, 1]
    bsr = scipy.sparse.bsr_array((np.zeros((1, 2, 3)), [0], [0, 1]), shape=(2, 6))
    assert dense(SparsityPattern.from_scipy(bsr)).tolist() == [[True] * 3 + [False] * 3] * 2


@given(MASKS)
def test_a_stored_diagonal_counts_where_it_is_zero(mask: np.ndarray) -> None:
    dia = scipy.sparse.dia_array(scipy.sparse.coo_array(mask.astype(float)))
    row, column = np.indices(mask.shape)
    on_one = np.isin(column - row, dia.offsets) & (column < dia.data.shape[1])
    pattern = SparsityPattern.from_scipy(dia)
    np.testing.assert_array_equal(dense(pattern), on_one)
    assert pattern.contains(SparsityPattern.from_scipy(mask))


@given(stored())
def test_sparse_tensors_give_their_stored_places(
    case: tuple[scipy.sparse.csr_array, np.ndarray],
) -> None:
    matrix, mask = case
    nnz = int(matrix.indptr[-1])
    rows = np.repeat(np.arange(mask.shape[0]), np.diff(matrix.indptr))
    places = torch.tensor(np.stack([rows, matrix.indices[:nnz].astype(np.int64)]))
    values = torch.tensor(matrix.data[:nnz])
    coo = torch.sparse_coo_tensor(places, values, mask.shape, check_invariants=True)
    np.testing.assert_array_equal(dense(SparsityPattern.from_torch(coo)), mask)
    assert coo.is_coalesced() == (nnz < 2)  # as before: reading did not coalesce it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        csr = torch.sparse_csr_tensor(
            torch.tensor(matrix.indptr), torch.tensor(matrix.indices[:nnz]), values, mask.shape,
            check_invariants=False,
        )  # fmt: skip
    before = csr.col_indices().clone()
    np.testing.assert_array_equal(dense(SparsityPattern.from_torch(csr)), mask)
    assert torch.equal(csr.col_indices(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.int64, torch.float64])
def test_dense_tensors_of_any_dtype(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 3, 0], [-1, 0, 0]]).to(dtype)
    assert dense(SparsityPattern.from_torch(tensor)).tolist() == (tensor != 0).tolist()
    assert dense(SparsityPattern.from_torch(tensor.T)).tolist() == (tensor.T != 0).tolist()


def test_a_tensor_of_a_graph_and_nans() -> None:
    tensor = torch.tensor([[float("nan"), -0.0]], requires_grad=True)
    assert dense(SparsityPattern.from_torch(tensor)).tolist() == [[True, False]]
    assert dense(SparsityPattern.from_scipy(tensor.detach().numpy())).tolist() == [[True, False]]


@given(MASKS)
def test_rows_and_columns_list_the_places_in_c_order(mask: np.ndarray) -> None:
    for pattern in both_ways(mask):
        assert (pattern.rows.dtype, pattern.cols.dtype) == (torch.int64, torch.int64)
        places = np.stack([pattern.rows.numpy(), pattern.cols.numpy()], axis=1)
        np.testing.assert_array_equal(places, np.argwhere(mask))
        assert (pattern.shape, pattern.is_full) == (mask.shape, bool(mask.all()))
        assert pattern.density == (mask.mean() if mask.size else 0.0)


def both_ways(mask: np.ndarray) -> list[SparsityPattern]:
    """The pattern by its arrays, and by ``full`` where it is full."""
    csr = scipy.sparse.csr_array(mask)
    ways = [SparsityPattern(mask.shape, csr.indptr, csr.indices)]
    return [*ways, SparsityPattern.full(mask.shape)] if mask.all() else ways


@given(MASKS)
def test_the_transpose_and_its_transpose(mask: np.ndarray) -> None:
    for pattern in both_ways(mask):
        np.testing.assert_array_equal(dense(pattern.T), mask.T)
        assert pattern == pattern.T.T


@given(MASKS)
def test_to_scipy_is_boolean_and_the_callers_own(mask: np.ndarray) -> None:
    for pattern in both_ways(mask):
        matrix = pattern.to_scipy()
        assert isinstance(matrix, scipy.sparse.csr_array)
        assert matrix.dtype == bool
        np.testing.assert_array_equal(matrix.toarray(), mask)
        assert SparsityPattern.from_scipy(matrix) == pattern
        matrix.indices[:] = 0
        matrix.indptr[:] = 0
        np.testing.assert_array_equal(dense(pattern), mask)


@given(SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(bool, shape)] * 2)))
def test_comparison_is_comparison_of_booleans(masks: tuple[np.ndarray, np.ndarray]) -> None:
    one, two = masks
    for mask, other in ((one, two), (one, one & two), (one | two, two), (one, np.ones_like(one))):
        for a in both_ways(mask):
            for b in both_ways(other):
                lost = np.argwhere(other & ~mask)
                assert a.missing(b) == (tuple(lost[0].tolist()) if len(lost) else None)
                assert a.contains(b) == (not len(lost))
                assert (a == b) == bool((mask == other).all())
                assert (a != b) == bool((mask != other).any())


def test_patterns_of_other_shapes_and_other_things() -> None:
    a, b = SparsityPattern.full((2, 3)), SparsityPattern.full((3, 2))
    assert a != b
    assert not a.contains(b)
    assert a != "pattern"
    with pytest.raises(TypeError):
        hash(a)
    text = (
        "SparsityPattern.missing: `other` has shape (3, 2), but this pattern has shape (2, 3); "
        "they are compared place by place. Compare patterns of one function at arguments of one "
        "size."
    )
    with pytest.raises(ArgumentError, match=f"^{re.escape(text)}$"):
        a.missing(b)


def test_a_full_pattern_too_large_to_expand() -> None:
    huge = SparsityPattern.full((10**9, 10**9))
    eye = SparsityPattern((10**3, 10**9), np.arange(1001), np.arange(1000))
    assert (huge.nnz, huge.density, huge == huge.T) == (10**18, 1.0, True)
    assert eye.missing(SparsityPattern.full(eye.shape)) == (0, 1)
    assert SparsityPattern.full(eye.shape).contains(eye)
    assert repr(huge).startswith("SparsityPattern 1,000,000,000 × 1,000,000,000, 1,000")
    assert isinstance(huge.plot(), Figure)


def test_indices_are_as_narrow_as_they_can_be() -> None:
    assert index_dtype(2**31 - 1) is np.int32
    assert index_dtype(2**31) is np.int64
    wide = scipy.sparse.coo_array(([1.0], ([0], [2**31])), shape=(1, 2**31 + 1))
    assert SparsityPattern.from_scipy(wide).indices.dtype == np.int64
    for pattern in (
        SparsityPattern.from_scipy(np.eye(3)),
        SparsityPattern.from_torch(torch.eye(3)),
        SparsityPattern.from_torch(torch.eye(3).to_sparse()),
        SparsityPattern.full((3, 3)),
    ):
        assert (pattern.indptr.dtype, pattern.indices.dtype) == (np.int32, np.int32)


def test_a_full_matrix_keeps_no_indices() -> None:
    for pattern in (
        SparsityPattern.from_scipy(np.ones((2, 3))),
        SparsityPattern.from_scipy(scipy.sparse.csr_array(np.ones((2, 3)))),
        SparsityPattern.from_torch(torch.ones(2, 3)),
    ):
        assert pattern.is_full
        assert pattern._indices is None


def test_the_text_is_a_header_and_a_drawing() -> None:
    band = SparsityPattern.from_scipy(
        scipy.sparse.diags_array(np.ones((3, 8)), offsets=[-1, 0, 1], shape=(8, 8))
    )
    expected = (
        "SparsityPattern 8 × 8, 22 nonzeros, density 34 %, 2 to 3 per row\n"
        "┌────┐\n"
        "│⠻⣦⡀⠀│\n"
        "│⠀⠈⠻⣦│\n"
        "└────┘"
    )
    assert repr(band) == str(band) == expected


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (SparsityPattern.full((0, 5)), "SparsityPattern 0 × 5, no entries"),
        (SparsityPattern.full((5, 0)), "SparsityPattern 5 × 0, no entries"),
        (SparsityPattern.full((1, 1)), "SparsityPattern 1 × 1, 1 nonzero, density 100 %, 1 per row\n┌─┐\n│⠁│\n└─┘"),
        (
            SparsityPattern.from_scipy(np.zeros((1, 1))),
            "SparsityPattern 1 × 1, 0 nonzeros, density 0 %, 0 per row\n┌─┐\n│\u2800│\n└─┘",
        ),
    ],
)  # fmt: skip
def test_the_smallest_patterns_read_well(pattern: SparsityPattern, text: str) -> None:
    assert repr(pattern) == text


def test_plot_draws_tints_and_uses_the_axes_it_is_given() -> None:
    pattern = SparsityPattern.from_scipy(np.tri(3, 2))
    figure = Figure()
    axes = figure.add_subplot()
    assert pattern.plot(axes, colors=torch.tensor([0, 1]), title="J") is figure
    assert axes.get_title(loc="left") == "J"
    assert axes.get_xlabel().endswith("2 colors")
    (by_rows,) = pattern.plot(colors=[0, 0, -1], by="rows").axes
    assert by_rows.get_xlabel().endswith("1 color, 1 neutral (gray)")
    (empty,) = SparsityPattern.full((0, 0)).plot(colors=[]).axes
    assert empty.texts[0].get_text() == "0 × 0, no entries"


def test_patterns_do_without_matplotlib_until_they_are_plotted() -> None:
    code = (
        "import sys, numpy; from pullback.sparse.pattern import SparsityPattern as P; "
        "p = P.from_scipy(numpy.eye(2)); repr(p); early = 'matplotlib' in sys.modules; p.plot(); "
        "sys.exit(early or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SCIPY, TORCH, PLOT = (f"SparsityPattern.{name}" for name in ("from_scipy", "from_torch", "plot"))
NOT_RISING = (
    "the index pointer of `{0}` does not rise from 0 to the number of stored entries, so `{0}` is "
    "not a valid matrix. Build it from coordinates, such as with scipy.sparse.coo_array((values, "
    "(rows, columns)), shape=...)."
)
OUTSIDE = (
    "`{0}` stores an entry at index {1} of an axis of size {2}; indices count from 0 to size - 1. "
    "Build `{0}` with the shape that its indices need, or correct them."
)
TWO_AXES = (
    "`{0}` has {1}, and a pattern has 2: rows and columns. Write {0}.reshape(m, n) with one row "
    "per output element and one column per input element."
)


def broken(kind: Any, indptr: list[int], indices: list[int], shape: tuple[int, int]) -> Any:
    matrix = kind(shape)
    matrix.indptr, matrix.indices = np.array(indptr), np.array(indices)
    matrix.data = np.ones(len(indices))
    return matrix


def bad_csr(indptr: list[int], cols: list[int]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(
            torch.tensor(indptr), torch.tensor(cols), torch.ones(len(cols)),
            (len(indptr) - 1, 3), check_invariants=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("matrix", "error", "text"),
    [
        ([[1.0]], TreeError, "`matrix` is a list, not a SciPy sparse array or a NumPy array. Write numpy.array(...) around it."),
        (torch.eye(2), TreeError, "`matrix` is a Tensor, not a SciPy sparse array or a NumPy array. Write SparsityPattern.from_torch(...) for tensors."),
        (None, TreeError, "`matrix` is None, not a SciPy sparse array or a NumPy array. Convert it, such as with scipy.sparse.csr_array(...)."),
        (np.ones(3), ArgumentError, TWO_AXES.format("matrix", "1 axis (shape (3,))")),
        (np.ones((2, 2, 2)), ArgumentError, TWO_AXES.format("matrix", "3 axes (shape (2, 2, 2))")),
        (scipy.sparse.coo_array(np.ones(3)), ArgumentError, TWO_AXES.format("matrix", "1 axis (shape (3,))")),
        (np.array([["a"]]), ArgumentError, "`matrix` has dtype <U1, which does not hold plain numbers. Write matrix.astype(float), or matrix != 0 for its nonzero places."),
        (
            np.ma.masked_array(np.eye(2), np.eye(2)),
            ArgumentError,
            "`matrix` is a masked array, and a masked entry is neither zero nor nonzero. Write matrix.filled(1) to count masked entries in, matrix.filled(0) to leave them out.",
        ),
        (broken(scipy.sparse.csr_array, [0, 1], [5], (1, 3)), ArgumentError, OUTSIDE.format("matrix", 5, 3)),
        (broken(scipy.sparse.csc_array, [0, 1, 1], [-1], (4, 2)), ArgumentError, OUTSIDE.format("matrix", -1, 4)),
        (broken(scipy.sparse.csr_array, [0, 2, 1], [0, 1], (2, 3)), ArgumentError, NOT_RISING.format("matrix")),
        (broken(scipy.sparse.csr_array, [1, 2], [0, 1], (1, 3)), ArgumentError, NOT_RISING.format("matrix")),
        (broken(scipy.sparse.csr_array, [0, 3], [0, 1], (1, 3)), ArgumentError, NOT_RISING.format("matrix")),
    ],
)  # fmt: skip
def test_from_scipy_refuses(matrix: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(f'{SCIPY}: {text}')}$"):
        SparsityPattern.from_scipy(matrix)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: np.eye(2), TreeError, "`tensor` is a ndarray, not a tensor. Write SparsityPattern.from_scipy(...) for SciPy matrices and NumPy arrays."),
        (lambda: torch.ones(3), ArgumentError, TWO_AXES.format("tensor", "1 axis (shape (3,))")),
        (lambda: torch.ones(2, 2, device="meta"), ArgumentError, "`tensor` is on the meta device, where it has no values. Make it on a device that stores them, such as device='cpu'."),
        (
            lambda: torch.eye(2).to_sparse(1),
            ArgumentError,
            "`tensor` stores 1 axis sparse and 1 axis dense; both must be sparse. Write tensor.to_dense().to_sparse().",
        ),
        (lambda: bad_csr([0, 1], [5]), ArgumentError, OUTSIDE.format("tensor", 5, 3)),
        (lambda: bad_csr([0, 2, 1], [0, 1]), ArgumentError, NOT_RISING.format("tensor")),
        (
            lambda: torch.sparse_coo_tensor(torch.tensor([[0], [5]]), torch.ones(1), (2, 3), check_invariants=False),
            ArgumentError,
            OUTSIDE.format("tensor", 5, 3),
        ),
    ],
)  # fmt: skip
def test_from_torch_refuses(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(f'{TORCH}: {text}')}$"):
        SparsityPattern.from_torch(make())


def test_from_torch_refuses_other_layouts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.eye(2).to_sparse_csc()
    text = (
        f"{TORCH}: `tensor` has layout torch.sparse_csc; the layouts read here are torch.strided, "
        f"torch.sparse_coo and torch.sparse_csr. Write tensor.to_sparse_csr() or tensor.to_dense()."
    )
    with pytest.raises(ArgumentError, match=f"^{re.escape(text)}$"):
        SparsityPattern.from_torch(tensor)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"ax": Figure()}, TreeError, "`ax` is a Figure, not a matplotlib Axes. Write figure.add_subplot(), or leave `ax` out for a new figure."),
        ({"by": "cols"}, ArgumentError, "`by` is 'cols'; it must be 'columns' or 'rows'."),
        ({"colors": [0.5, 1, 2]}, ArgumentError, "`colors` has shape (3,) and dtype float64; it must be one axis of whole numbers, one for each of the columns. Pass the .colors of a coloring."),
        ({"colors": [[0, 1, 2]]}, ArgumentError, "`colors` has shape (1, 3) and dtype int64; it must be one axis of whole numbers, one for each of the columns. Pass the .colors of a coloring."),
        ({"colors": [0, 1]}, ArgumentError, "`colors` has shape (2,), but the pattern has 3 columns; each of the columns has one color. Write by='rows' if these color the rows."),
        ({"colors": [0, 1, 2], "by": "rows"}, ArgumentError, "`colors` has shape (3,), but the pattern has 2 rows; each of the rows has one color. Write by='columns' if these color the columns."),
        ({"colors": [0] * 9}, ArgumentError, "`colors` has shape (9,), but the pattern has 3 columns; each of the columns has one color."),
        ({"colors": [0, -2, 0]}, ArgumentError, "`colors` holds -2; colors count from 0, and -1 stands for neutral. Write -1 where there is no color."),
    ],
)  # fmt: skip
def test_plot_refuses(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(f'{PLOT}: {text}')}$"):
        SparsityPattern.full((2, 3)).plot(**arguments)
