"""Solves: batch items never mix, columns of the right-hand side stay apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sparse.arguments import arguments_for
from pullback.sparse.capture import capture
from pullback.sparse.detect import detect
from pullback.sparse.rules import axes
from pullback.sparse.rules.base import RULES
from pullback.sparse.state import State

from .harness import check, rule_of

A = torch.ops.aten


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


SIZES = [
    ((3, 3), (3, 2)),
    ((2, 3, 3), (2, 3, 2)),
    ((2, 3, 3), (3, 2)),
    ((3, 3), (2, 3, 2)),
    ((2, 1, 2, 2), (3, 2, 3)),
    ((2, 2), (2, 2)),
    ((1, 1), (1, 2)),
]
SIZE = pytest.mark.parametrize(("matrix", "right"), SIZES)
LEFT = pytest.mark.parametrize("left", [True, False])


def turned(shape: tuple[int, ...], left: bool) -> tuple[int, ...]:
    return shape if left else (*shape[:-2], shape[-1], shape[-2])


@SIZE
@LEFT
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_triangular(matrix, right, left: bool, upper: bool, unit: bool) -> None:
    check(
        lambda v, a: A.linalg_solve_triangular(a, v, upper=upper, left=left, unitriangular=unit),
        [turned(right, left)],
        normal(matrix),
    )


@SIZE
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_triangular_the_old_way(matrix, right, upper: bool, transpose: bool) -> None:
    check(lambda v, a: A.triangular_solve(v, a, upper, transpose)[0], [right], normal(matrix))


@SIZE
@LEFT
@pytest.mark.parametrize("adjoint", [True, False])
def test_by_lu_factors(matrix, right, left: bool, adjoint: bool) -> None:
    def g(v, a):
        factors, pivots, _ = A.linalg_lu_factor_ex(a)
        return A.linalg_lu_solve(factors, pivots, v, left=left, adjoint=adjoint)

    check(g, [turned(right, left)], normal(matrix))


@SIZE
@LEFT
def test_general(matrix, right, left: bool) -> None:
    if not left and len(matrix) - len(right) == 1 and matrix[:-1] == turned(right, left):
        pytest.skip("torch takes it for vectors")
    check(
        lambda v, a: A._linalg_solve_ex(a, v, left=left)[0], [turned(right, left)], normal(matrix)
    )


@pytest.mark.parametrize(
    ("matrix", "right"), [((3, 3), (3,)), ((2, 3, 3), (2, 3)), ((2, 3, 3), (3,))]
)
def test_general_for_a_vector(matrix, right) -> None:
    check(lambda v, a: A._linalg_solve_ex(a, v)[0], [right], normal(matrix))


@SIZE
@pytest.mark.parametrize("upper", [True, False])
def test_by_a_cholesky_factor(matrix, right, upper: bool) -> None:
    check(lambda v, a: torch.cholesky_solve(v, a, upper), [right], normal(matrix))


@pytest.mark.parametrize(("matrix", "right"), [s for s in SIZES if len(s[0]) == len(s[1])])
def test_by_ldl_factors(matrix, right) -> None:
    def g(v, a):
        factors, pivots, _ = A.linalg_ldl_factor_ex(a + a.mT)
        return A.linalg_ldl_solve(factors, pivots, v)

    check(g, [right], normal(matrix))


@LEFT
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_by_reflectors(left: bool, transpose: bool, batch: tuple[int, ...]) -> None:
    check(
        lambda v, a, tau: A.ormqr(a, tau, v, left, transpose),
        [(*batch, *turned((3, 2), left))],
        normal((*batch, 3, 3), (*batch, 3)),
    )


def test_of_the_matrix_each_item_is_dense() -> None:
    solves = {
        "solve": lambda v, b: A._linalg_solve_ex(v, b)[0],
        "triangular": lambda v, b: A.linalg_solve_triangular(v, b, upper=True),
        "cholesky": lambda v, b: A.cholesky_solve(b, v),
        "exponential": lambda v, b: A.linalg_matrix_exp(v) @ b,
    }
    for g in solves.values():
        for right in ((2, 3, 3), (2, 3, 1)):
            found = rule_of(
                g, [torch.randn(2, 3, 3)], [torch.randn(right)], formula="SomeBackward0"
            )
            blocks = found.matrix.reshape(2, -1, 2, 9)
            assert not found.pessimistic
            assert blocks[0, :, 0].all()
            assert blocks[1, :, 1].all()
            assert not blocks[0, :, 1].any()
            assert not blocks[1, :, 0].any()


def test_what_comes_along_with_a_solution() -> None:
    g = lambda v, b: A._linalg_solve_ex(v, b)[:3]  # noqa: E731
    vs, others = [torch.randn(2, 3, 3)], [torch.randn(2, 3, 1)]
    found = rule_of(g, vs, others, formula="SomeBackward0")
    assert (found.matrix.sum(1) == 9).all()
    of_right = rule_of(lambda v, a: A._linalg_solve_ex(a, v)[:3], others, vs)
    assert not of_right.matrix[6:].any()


@pytest.mark.parametrize("name", ["_linalg_solve_ex", "linalg_lu_solve", "cholesky_solve"])
def test_a_matrix_is_no_linear_argument(name: str) -> None:
    assert all(group.isdisjoint({"A", "LU", "input2"}) for group in RULES[name].linear)


def test_a_solution_without_its_neighbours_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES["linalg_solve_triangular"]
    monkeypatch.setitem(
        RULES,
        "linalg_solve_triangular",
        type(rule)(lambda step: step.dep("B").broadcast(step.out.shape), rule.linear),
    )
    with pytest.raises(AssertionError, match="missed"):
        test_triangular((3, 3), (3, 2), True, True, False)


def test_what_would_grow_too_large_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def g(v, a):
        return A.linalg_solve_triangular(a, v, upper=True)

    tight = rule_of(g, [torch.randn(2, 3, 2)], [torch.randn(2, 3, 3)]).matrix
    monkeypatch.setattr(axes, "ENTRIES_AT_MOST", 1)
    found = check(g, [(2, 3, 2)], normal((2, 3, 3)), exact=False).matrix
    assert found.sum() == 2 * 2 * 3 * 3 > tight.sum() == 2 * 2 * 6


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("upper", [False, True])
def test_the_pattern_of_batched_cholesky(size: int, upper: bool) -> None:
    """Entry (k, m) of the factor reads rows and columns up to k, m of a symmetric matrix."""

    def f(x):
        return torch.linalg.cholesky((x + x.mT) / 2 + 9 * torch.eye(size), upper=upper)

    shape = (3, size, size)
    arguments = arguments_for("test", (torch.randn(shape, dtype=torch.float64),), 0)
    detection = detect("test", capture("test", f, arguments, State.of(f)).graph)
    found = np.asarray(detection.pattern.to_scipy().todense()).reshape(*shape, *shape)
    if upper:
        found = found.swapaxes(1, 2)
    a, k, m, b, i, j = np.ix_(*[range(n) for n in (*shape, *shape)])
    low, high = np.minimum(i, j), np.maximum(i, j)
    assert (found == ((a == b) & (k >= m) & (low <= m) & (high <= k))).all()
