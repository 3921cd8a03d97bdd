"""Solves with a matrix, batch item by batch item; columns of the right-hand side stay apart."""

from __future__ import annotations

from ..dependence import Dependence, union
from .axes import alone, cumulated, mixed, reshaped
from .base import Result, Step, rule


def _solved(step: Step, matrix: str, vector: str, right: str, left: bool = True) -> Dependence:
    """A solution depends on all of its matrix, a column (row) of it on that of the other side.

    ``vector`` names what comes with the matrix and has a dim less, or nothing.
    """
    shape = step.out.shape
    parts = []
    whole, pivots, other = step.dep(matrix), step.dep(vector), step.dep(right)
    if whole is not None:
        parts.append(mixed(whole, [-1, -2], shape))
    if pivots is not None:
        parts.append(mixed(reshaped(pivots, (*pivots.shape, 1)), [-1, -2], shape))
    if other is not None:
        parts.append(mixed(other, [-2 if left else -1], shape))
    return union(parts, shape)


@rule("linalg_solve_triangular", "B")
def _solve_triangular(step: Step) -> Result:
    return _triangular(step, "B", "self", bool(step["upper"]), bool(step["left"]))


@rule("triangular_solve", "self")
def _old_triangular_solve(step: Step) -> Result:
    upper = bool(step["upper"]) != bool(step["transpose"])
    solution = _triangular(step, "self", "A", upper, left=True)
    copy = step.outs[1]
    matrix = step.dep("A")
    assert copy is not None
    return [solution, step.nothing(copy.shape) if matrix is None else matrix.broadcast(copy.shape)]


def _triangular(step: Step, right: str, matrix: str, upper: bool, left: bool) -> Dependence:
    """Entry (i, j) of the solution reads the right-hand side from row i on, or up to it."""
    shape = step.out.shape
    parts = []
    coefficients, dep = step.dep(matrix), step.dep(right)
    if coefficients is not None:
        parts.append(mixed(coefficients, [-1, -2], shape))
    if dep is not None:
        whole = cumulated(dep, len(dep.shape) - (2 if left else 1), lower=upper != left)
        parts.append(whole.broadcast(shape))
    return union(parts, shape)


@rule("linalg_lu_solve", "B")
def _lu_solve(step: Step) -> Result:
    return _solved(step, "LU", "pivots", "B", bool(step["left"]))


@rule("linalg_ldl_solve", "B")
def _ldl_solve(step: Step) -> Result:
    return _solved(step, "LD", "pivots", "B")


@rule("cholesky_solve", "self")
def _cholesky_solve(step: Step) -> Result:
    return _solved(step, "input2", "", "self")


@rule("_cholesky_solve_helper", "self")
def _cholesky_solve_helper(step: Step) -> Result:
    return _solved(step, "A", "", "self")


@rule("_linalg_solve_ex", "B")
def _solve_ex(step: Step) -> Result:
    shape = step.out.shape
    matrix, right = step.meta("A").shape, step.dep("B")
    vector = len(shape) == len(matrix) - 1
    parts = []
    if right is not None and vector:
        parts.append(mixed(right, [-1], shape))
    elif right is not None:
        parts.append(mixed(right, [-2 if step["left"] else -1], shape))
    coefficients = step.dep("A")
    if coefficients is not None:
        item = mixed(coefficients, [-1, -2], (*matrix[:-2], 1, 1))
        parts.append((reshaped(item, (*matrix[:-2], 1)) if vector else item).broadcast(shape))
    factors = [None if m is None else _factors(step, coefficients, m.shape) for m in step.outs[1:]]
    return [union(parts, shape), *factors]


def _factors(step: Step, matrix: Dependence | None, shape: tuple[int, ...]) -> Dependence:
    """The factorization that comes along with a solution: of the matrix alone."""
    if matrix is None:
        return step.nothing(shape)
    item = mixed(matrix, [-1, -2], (*matrix.shape[:-2], 1, 1))
    spare = len(matrix.shape) - len(shape)
    return reshaped(item, (*matrix.shape[:-2], *[1] * (2 - spare))).broadcast(shape)


@rule("_linalg_check_errors", "info")
def _check_errors(step: Step) -> Result:
    return []


@rule("ormqr", "input3")
def _ormqr(step: Step) -> Result:
    return _solved(step, "self", "input2", "input3", bool(step["left"]))


# Linear nowhere. torch's formula of the matrix exponential puts the cotangent into one corner of
# a larger matrix, and its exponential is linear in that corner.
@rule("linalg_matrix_exp", "")
def _matrix_exp(step: Step) -> Result:
    dep = alone(step, "self")
    return mixed(dep, [-1, -2], step.out.shape)
