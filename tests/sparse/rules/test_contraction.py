"""Matrix products and their kin: a row of one factor meets a column of the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sparse.rules.base import RULES

from .harness import calls, check, rule_of

A = torch.ops.aten


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


def by_columns(v: tuple[int, int]) -> torch.Tensor:
    return torch.empty_strided(v, (1, v[0]), dtype=torch.float64)


CASES = {
    "mm, right": (lambda v, a: A.mm(a, v), [(3, 4)], [(2, 3)]),
    "mm, left": (lambda v, a: A.mm(v, a), [(2, 3)], [(3, 4)]),
    "mm, square": (lambda v, a: A.mm(a, v), [(3, 3)], [(3, 3)]),
    "mm, inner size 1": (lambda v, a: A.mm(v, a), [(3, 1)], [(1, 3)]),
    "mm, inner size 0": (lambda v, a: A.mm(v, a), [(3, 0)], [(0, 3)]),
    "mm, no rows": (lambda v, a: A.mm(v, a), [(0, 2)], [(2, 3)]),
    "mm, by columns": (lambda v, a: A.mm(a, v), [by_columns((3, 4))], [(2, 3)]),
    "bmm, right": (lambda v, a: A.bmm(a, v), [(2, 3, 3)], [(2, 3, 3)]),
    "bmm, left": (lambda v, a: A.bmm(v, a), [(2, 3, 4)], [(2, 4, 2)]),
    "mv, matrix": (lambda v, a: A.mv(v, a), [(3, 4)], [(4,)]),
    "mv, vector": (lambda v, a: A.mv(a, v), [(4,)], [(3, 4)]),
    "dot": (lambda v, a: A.dot(v, a), [(4,)], [(4,)]),
    "vdot": (lambda v, a: A.vdot(a, v), [(4,)], [(4,)]),
    "addmm, all but one": (lambda u, v, a: A.addmm(u, v, a), [(4,), (3, 2)], [(2, 4)]),
    "addmm, right": (lambda u, v, a: A.addmm(u, a, v), [(3, 1), (2, 4)], [(3, 2)]),
    "baddbmm": (lambda u, v, a: A.baddbmm(u, a, v), [(1, 3, 4), (2, 2, 4)], [(2, 3, 2)]),
    "addbmm": (lambda u, v, a: A.addbmm(u, a, v), [(3, 4), (2, 2, 4)], [(2, 3, 2)]),
    "addmv": (lambda u, v, a: A.addmv(u, a, v), [(3,), (2,)], [(3, 2)]),
    "addr": (lambda u, v, a: A.addr(u, v, a), [(3, 4), (3,)], [(4,)]),
    "outer": (lambda v, a: torch.outer(a, v), [(4,)], [(3,)]),
    "linear": (lambda v, a: torch.nn.functional.linear(v, a), [(2, 2, 3)], [(4, 3)]),
    "tensordot": (lambda v, a: torch.tensordot(v, a, ([1], [0])), [(2, 3, 2)], [(3, 4)]),
    "einsum": (lambda v, a: torch.einsum("bij,bkj->bik", v, a), [(2, 3, 4)], [(2, 2, 4)]),
    "einsum, diagonal": (lambda v, a: torch.einsum("bii,ij->bj", v, a), [(2, 3, 3)], [(3, 4)]),
    "kron": (lambda v, a: torch.kron(a, v), [(2, 2)], [(2, 3)]),
    "bilinear": (
        lambda v, a, w: torch.nn.functional.bilinear(v, a, w),
        [(2, 3)],
        [(2, 4), (2, 3, 4)],
    ),
    "trilinear": (
        lambda v, b, c: A._trilinear(b, v, c, [1, 3], [0], [1, 2], [2, 3]),
        [(4, 3, 2)],
        [(5, 3), (5, 2)],
    ),
    "cross": (lambda v, a: torch.linalg.cross(v, a, dim=0), [(3, 2)], [(3, 2)]),
    "cross, spread": (lambda v, a: torch.linalg.cross(a, v), [(1, 3)], [(2, 3)]),
    "distances": (
        lambda v, x, y: A._cdist_backward(v, x, y, 2.0, torch.cdist(x, y)),
        [(2, 3, 4)],
        [(2, 3, 2), (2, 4, 2)],
    ),
    "distances among one set": (
        lambda v, x: A._pdist_backward(v, x, 2.0, A._pdist_forward(x, 2.0)),
        [(6,)],
        [(4, 2)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_products_read_a_row_and_a_column(case: str) -> None:
    g, vs, others = CASES[case]
    check(g, vs, normal(*others))


def test_rows_of_a_product_share_their_sets() -> None:
    found = rule_of(lambda v, a: A.mm(a, v), [torch.randn(40, 3)], [torch.randn(50, 40)])
    assert found.matrix.sum() == 50 * 3 * 40


BAND = torch.eye(4, dtype=torch.float64) + torch.diag(torch.ones(3, dtype=torch.float64), 1)
STACK = torch.stack([BAND, BAND.T.clone()])


@pytest.mark.parametrize(
    ("g", "shape"),
    [
        (lambda v: A.mm(BAND, v), (4, 3)),
        (lambda v: A.mm(v, BAND), (3, 4)),
        (lambda v: A.mv(BAND, v), (4,)),
        (lambda v: A.mv(v, BAND[0].clone()), (3, 4)),
        (lambda v: A.dot(v, BAND[1].clone()), (4,)),
        (lambda v: A.bmm(STACK, v), (2, 4, 3)),
        (lambda v: A.bmm(v, STACK), (2, 3, 4)),
        (lambda v: A.bmm(BAND.expand(2, 4, 4), v), (2, 4, 3)),
        (lambda v: torch.outer(v, BAND[0]), (3,)),
        (lambda v: torch.nn.functional.linear(v, BAND), (2, 3, 4)),
        (lambda v: A.addmm(torch.zeros(4, dtype=torch.float64), v, BAND), (3, 4)),
    ],
)
def test_the_zeros_of_a_literal_factor_are_used(g, shape) -> None:
    check(g, [shape])


def test_the_zeros_of_a_factor_that_may_change_are_not() -> None:
    found = rule_of(lambda v, a: A.mm(a, v), [torch.randn(4, 3).double()], [BAND])
    assert found.matrix.sum() == 4 * 3 * 4


def test_the_zeros_of_a_guarded_factor_are_used_and_noted() -> None:
    found = rule_of(lambda v, a: A.mm(a, v), [torch.randn(4, 3).double()], [BAND], guarded=[0])
    assert found.matrix.sum() == 7 * 3
    assert found.relied == {"other0"}


@pytest.mark.parametrize(
    "factor",
    [
        lambda a: a.tril(),
        lambda a: a.triu(1).mT,
        lambda a: torch.diag_embed(a[0]),
        lambda a: torch.linalg.cholesky(a @ a.mT + 9 * torch.eye(4, dtype=a.dtype)),
        lambda a: torch.linalg.cholesky(a @ a.mT + 9 * torch.eye(4, dtype=a.dtype), upper=True),
        lambda a: A.cholesky(a @ a.mT + 9 * torch.eye(4, dtype=a.dtype)),
        lambda a: A.cholesky(a @ a.mT + 9 * torch.eye(4, dtype=a.dtype), True),
        lambda a: torch.linalg.qr(a)[1],
        lambda a: torch.linalg.lu(a)[1].T,
        lambda a: torch.linalg.lu(a)[2],
        lambda a: a.tril() * a.triu(-1),
        lambda a: -a.triu().clone(),
    ],
)
def test_the_structure_of_a_factor_is_used(factor) -> None:
    found = check(lambda v, a: factor(a) @ v, [(4, 2)], normal((4, 4)))
    assert found.matrix.sum() < 4 * 2 * 4


def test_a_sum_of_triangles_has_no_structure() -> None:
    found = check(lambda v, a: (a.tril() + a.triu()) @ v, [(4, 2)], normal((4, 4)))
    assert found.matrix.sum() == 4 * 2 * 4


def test_both_factors_at_once_are_not_linear() -> None:
    with pytest.raises(Exception, match="not linear"):
        rule_of(lambda v: A.mm(v, v), [torch.randn(3, 3)])


def test_both_factors_at_once_in_torchs_own_formula_read_row_and_column() -> None:
    found = rule_of(lambda v: A.mm(v, v), [torch.randn(3, 3)], formula="SomeBackward0")
    i, j, r, c = np.ix_(*[range(3)] * 4)
    assert (found.matrix.reshape(3, 3, 3, 3) == ((i == r) | (j == c))).all()


def test_a_missing_union_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES["mm"]
    broken = type(rule)(lambda step: step.nothing(), rule.linear)
    monkeypatch.setitem(RULES, "mm", broken)
    with pytest.raises(AssertionError, match="missed"):
        check(*CASES["mm, right"][:2], normal(*CASES["mm, right"][2]))


def test_the_cases_meet_their_rules() -> None:
    g, vs, others = CASES["trilinear"]
    found = check(g, vs, normal(*others))
    assert calls(found) >= {"aten._trilinear.default"}
