"""Products of a known matrix, as any engine would form them, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pullback.sparse.coloring import Coloring, recover, seeds
from pullback.sparse.pattern import SparsityPattern


def matrix_on(pattern: SparsityPattern, dtype: Any, *, symmetric: bool) -> npt.NDArray[Any]:
    """Random values at the places of the pattern; whole numbers, so that sums are exact."""
    rng = np.random.default_rng(pattern.nnz)
    values = rng.integers(1, 1000, pattern.shape).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * rng.integers(1, 1000, pattern.shape)
    if symmetric:
        values = np.triu(values) + np.triu(values, 1).T
    return np.asarray(np.where(pattern.to_scipy().toarray(), values, 0), dtype=dtype)


def compressed(matrix: npt.NDArray[Any], coloring: Coloring) -> Any:
    rows, total = coloring.split.rows, coloring.num_colors
    by_rows = np.zeros((0, matrix.shape[1]), matrix.dtype)
    by_columns = np.zeros((0, matrix.shape[0]), matrix.dtype)
    if rows:
        by_rows = seeds(coloring, 0, rows, matrix.dtype) @ matrix
    if total > rows:
        by_columns = seeds(coloring, rows, total, matrix.dtype) @ matrix.T
    if coloring.kind == "bidirectional":
        return by_rows, by_columns
    return by_columns if coloring.kind == "columns" else by_rows


def entries(matrix: npt.NDArray[Any], pattern: SparsityPattern) -> npt.NDArray[Any]:
    return np.asarray(matrix[pattern.rows.numpy(), pattern.cols.numpy()])


def comes_back(pattern: SparsityPattern, coloring: Coloring, dtype: Any = np.int64) -> bool:
    matrix = matrix_on(pattern, dtype, symmetric=coloring.kind in ("star", "acyclic"))
    found = recover(pattern, coloring, compressed(matrix, coloring))
    return found.dtype == dtype and bool(np.array_equal(found, entries(matrix, pattern)))
