"""The factors of a square matrix, made once: solutions with it and with its transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import structural_rank
from scipy.sparse.linalg import splu

from . import _checks

Vector = NDArray[np.float64]
# Fuller matrices than this are factorized faster as dense ones.
_DENSE_FROM = 0.2
# A pivot this small beside entries of 1, in roundings per row, is left over from cancellation.
_ROUNDINGS = 8.0
# How often scales are made better, which halves what is amiss in their logarithms.
_SCALINGS = 10


class Factors:
    """``solve(b)`` and ``solve(b, transposed=True)`` for one matrix, in double precision.

    Rows and columns are scaled to a largest entry of about 1 first, so that the units of equations
    and unknowns play no part in the judgment whether the matrix is singular.

    Raises:
        GraphError: it is.
    """

    def __init__(self, caller: str, matrix: Any) -> None:
        csr = scipy.sparse.csr_array(matrix, dtype=np.float64, copy=True)
        csr.sum_duplicates()
        self._caller, self.size = caller, csr.shape[0]
        _refuse_plainly_singular(caller, csr)
        self._rows, self._columns = _scales(csr)
        csr.data *= np.repeat(self._rows, np.diff(csr.indptr)) * self._columns[csr.indices]
        if csr.nnz > _DENSE_FROM * self.size**2:
            self._solve, pivots = _dense(csr.toarray())
        else:
            self._solve, pivots = _sparse(caller, csr)
        if (np.abs(pivots) <= _ROUNDINGS * self.size * np.finfo(np.float64).eps).any():
            detail = "what is left of a column after elimination is no more than rounding"
            raise _checks.singular(caller, detail)

    def solve(self, b: Vector, transposed: bool = False) -> Vector:
        """The solution for ``b`` of shape (n,), or for every column of shape (n, k)."""
        rows, columns = self._rows, self._columns
        if b.ndim == 2:
            rows, columns = rows[:, None], columns[:, None]
        if transposed:
            return rows * self._solve(columns * b, True)
        return columns * self._solve(rows * b, False)


_Solve = Callable[[Vector, bool], Vector]


def _dense(matrix: NDArray[np.float64]) -> tuple[_Solve, Vector]:
    # SciPy warns about a zero on the diagonal, which is looked for afterwards.
    lapack = scipy.linalg.get_lapack_funcs(("getrf", "getrs"), (matrix,))
    factors, swaps, _ = lapack[0](matrix, overwrite_a=True)

    def solve(b: Vector, transposed: bool) -> Vector:
        found: Vector = lapack[1](factors, swaps, b, trans=int(transposed))[0]
        return found

    return solve, np.diagonal(factors)


def _sparse(caller: str, csr: Any) -> tuple[_Solve, Vector]:
    try:
        factors = splu(csr.tocsc())
    except RuntimeError as error:
        raise _checks.singular(caller, _why_singular(csr)) from error

    def solve(b: Vector, transposed: bool) -> Vector:
        found: Vector = factors.solve(b, "T" if transposed else "N")
        return found

    return solve, factors.U.diagonal()


def _scales(csr: Any) -> tuple[Vector, Vector]:
    """Factors for rows and columns that bring the largest entry of each near 1.

    Method: D. Ruiz, "A scaling algorithm to equilibrate both rows and columns norms in matrices",
    2001.
    """
    csc = csr.tocsc()
    sizes = np.abs(csr.data), np.abs(csc.data)
    rows, columns = np.ones(csr.shape[0]), np.ones(csr.shape[1])
    for _ in range(_SCALINGS):
        in_rows = np.maximum.reduceat(sizes[0] * columns[csr.indices], csr.indptr[:-1]) * rows
        in_columns = np.maximum.reduceat(sizes[1] * rows[csc.indices], csc.indptr[:-1]) * columns
        rows, columns = rows / np.sqrt(in_rows), columns / np.sqrt(in_columns)
        if max(np.ptp(np.log2(in_rows)), np.ptp(np.log2(in_columns))) < 1:
            break
    return rows, columns


def _refuse_plainly_singular(caller: str, csr: Any) -> None:
    largest = abs(csr).max(axis=1).toarray().reshape(-1)
    if not np.isfinite(csr.data).all():
        row = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise _checks.singular(caller, f"row {row} holds a NaN or an infinity")
    if (largest == 0).any():
        row = int(np.flatnonzero(largest == 0)[0])
        detail = f"equation {row} depends on no unknown (its row is zero)"
        raise _checks.singular(caller, detail)
    used = np.zeros(csr.shape[1], dtype=bool)
    used[csr.indices[csr.data != 0]] = True
    if not used.all():
        column = int(np.flatnonzero(~used)[0])
        detail = f"no equation depends on unknown {column} (its column is zero)"
        raise _checks.singular(caller, detail)


def _why_singular(csr: Any) -> str:
    csr.eliminate_zeros()
    rank = structural_rank(csr)
    if rank < csr.shape[0]:
        return f"its {csr.shape[0]} equations can determine {rank} unknowns at most"
    return "its equations are dependent at this point"
