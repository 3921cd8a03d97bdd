"""The factors of a square matrix: solutions, and the refusal of singular ones."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

import pullback as pb
from pullback._factors import Factors


def sparse(n: int, seed: int = 0) -> scipy.sparse.csr_array:
    draw = np.random.default_rng(seed)
    entries = min(1.0, 2 / n)
    off = scipy.sparse.random_array(
        (n, n), density=entries, rng=draw, data_sampler=draw.standard_normal
    )
    return scipy.sparse.csr_array(off + 4 * scipy.sparse.eye_array(n))


@pytest.mark.parametrize("n", [1, 3, 50])
@pytest.mark.parametrize("full", [False, True])
def test_solutions_solve(n: int, full: bool) -> None:
    draw = np.random.default_rng(1)
    matrix = sparse(n) if not full else scipy.sparse.csr_array(draw.standard_normal((n, n)))
    rows = 10.0 ** draw.integers(-9, 9, n)  # units of the equations
    matrix = scipy.sparse.csr_array(scipy.sparse.diags_array(rows) @ matrix)
    before, b, factors = matrix.copy(), draw.standard_normal(n), Factors("f", matrix)
    size = scipy.sparse.csr_array(abs(matrix))
    for transposed in (False, True):
        x = factors.solve(b, transposed)
        there, sizes = (matrix.T, size.T) if transposed else (matrix, size)
        assert (abs(there @ x - b) <= 1e-13 * n * (sizes @ abs(x) + abs(b))).all()
    assert (matrix != before).nnz == 0


def test_unknowns_of_other_units_are_no_singularity() -> None:
    matrix = sparse(30) @ scipy.sparse.diags_array(10.0 ** np.linspace(-14, 14, 30))
    factors = Factors("f", scipy.sparse.csr_array(matrix))
    np.testing.assert_allclose(matrix @ factors.solve(np.ones(30)), 1, atol=1e-9)


@pytest.mark.parametrize("n", [4, 40])
def test_singular_matrices_are_refused_with_the_reason(n: int) -> None:
    matrix = sparse(n).tolil()

    def refused(change: scipy.sparse.lil_array, reason: str) -> None:
        with pytest.raises(pb.GraphError, match=reason):
            Factors("f", change.tocsr())

    row = matrix.copy()
    row[2, :] = 0
    refused(row, "equation 2 depends on no unknown")
    column = matrix.copy()
    column[:, 3] = 0
    refused(column, "no equation depends on unknown 3")
    twice = matrix.copy()
    twice[1, :] = twice[0, :] * 3
    refused(twice, "dependent|rounding")
    together = matrix.copy()
    together[:3, :] = 0
    together[:3, 0] = 1
    refused(together, "rounding|at most|no equation")
    nan = matrix.copy()
    nan[1, 1] = np.nan
    refused(nan, "row 1 holds a NaN")


def test_a_loop_of_differences_is_singular_to_rounding() -> None:
    """Its rows add up to zero, but the factors do not hold an exact one."""
    n = 60
    weights = np.random.default_rng(0).uniform(1, 2, n)
    ahead = np.roll(np.eye(n), 1, axis=1)
    loop = (np.eye(n) - ahead).T @ np.diag(weights) @ (np.eye(n) - ahead)
    with pytest.raises(pb.GraphError, match="singular"):
        Factors("f", scipy.sparse.csr_array(loop))
