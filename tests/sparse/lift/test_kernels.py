"""The compiled loops against their definitions."""

from __future__ import annotations

import time

import numpy as np
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.sparse.lift import kernels


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 2)), max_size=8), max_size=6))
@settings(max_examples=200, deadline=None)
def test_equal_terms_are_merged_in_place(entries: list[list[tuple[int, int]]]) -> None:
    starts = np.concatenate([[0], np.cumsum([len(e) for e in entries])]).astype(np.int64)
    flat = [term for entry in entries for term in entry]
    sources = np.array([s for s, _ in flat], dtype=np.int32)
    weights = np.array([w for _, w in flat], dtype=np.float64)
    kept = kernels.merge_equal_terms(starts, sources, weights)
    assert kept == starts[-1]
    for k, entry in enumerate(entries):
        found = list(zip(sources[starts[k] : starts[k + 1]], weights[starts[k] :], strict=False))
        expected: dict[int, int] = {}
        for source, weight in entry:
            expected[source] = expected.get(source, 0) + weight
        assert found == [(s, w) for s, w in expected.items() if w]


def test_merging_a_long_entry_takes_no_quadratic_time() -> None:
    count = 300_000
    began = time.perf_counter()
    starts, sources = np.array([0, count]), np.arange(count, dtype=np.int32)
    assert kernels.merge_equal_terms(starts, sources, np.ones(count)) == count
    assert time.perf_counter() - began < 20  # it took minutes


def sparse(rng: np.random.Generator, rows: int, cols: int) -> scipy.sparse.csr_array:
    found = scipy.sparse.random_array((rows, cols), density=0.3, rng=rng, format="csr")
    found.sort_indices()
    return found


def test_rows_of_a_product_fill_a_larger_pattern() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = sparse(rng, 7, 5), sparse(rng, 5, 6)
        wide = scipy.sparse.csr_array(abs(a @ b) + sparse(rng, 7, 6))
        wide.sort_indices()
        out = np.full(wide.nnz, np.nan)
        for first, last in ((0, 3), (3, 7)):
            kernels.multiply_rows(
                first, last, a.indptr, a.indices, a.data, b.indptr, b.indices, b.data,
                wide.indptr, wide.indices, 6, out,
            )  # fmt: skip
        filled = scipy.sparse.csr_array((out, wide.indices, wide.indptr), shape=wide.shape)
        np.testing.assert_allclose(filled.toarray(), (a @ b).toarray())


def test_entries_outside_of_a_pattern_are_counted() -> None:
    rng = np.random.default_rng(0)
    a = sparse(rng, 6, 6)
    narrow = scipy.sparse.csr_array(scipy.sparse.tril(a))
    narrow.sort_indices()
    out = np.zeros(narrow.nnz)
    arrays = (a.indptr, a.indices, a.data, narrow.indptr, narrow.indices, 6)
    assert kernels.dense_entries(*arrays, out) == a.nnz - narrow.nnz
    np.testing.assert_array_equal(out, narrow.data)
