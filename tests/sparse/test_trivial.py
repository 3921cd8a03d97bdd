"""Calls that change nothing are left out of the graph, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.sparse.arguments import arguments_for
from pullback.sparse.graph import packet_name
from pullback.sparse.study import study

X = torch.tensor([[-2.0, 0.5, 3.0], [1.0, -0.0, 7.0]], dtype=torch.float64)


def names(func: Callable[[Tensor], Tensor], x: Tensor) -> list[str]:
    found = study("test", func, arguments_for("test", (x,), 0, func)).captured
    assert found is not None
    return [packet_name(n) for n in found.graph.nodes if n.op == "call_function"]


def test_a_quadratic_function_has_a_constant_hessian() -> None:
    def func(x: Tensor) -> Tensor:
        return ((1 - x) ** 2).sum() + 3 * (x[0] ** 2).sum()

    plan = pb.plan_hessian(func, X)
    assert plan.num_products == 0
    truth = torch.diag(torch.tensor([8.0, 8.0, 8.0, 2.0, 2.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(pb.hessian(func, plan=plan)(X).to_dense(), truth)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "powers": lambda x: x**1.0 * x**0 + x**1,
    "products": lambda x: (x * 1.0).sin() * (1 * x) / 1.0,
    "of other strides": lambda x: (x.T**1.0).contiguous().view(-1) * 2,
    "expanded": lambda x: (x[:, :1].expand(2, 4) ** 1.0).view(8) * x.sum(),
    "of another dtype": lambda x: x.float() ** 1.0 * torch.ones((), dtype=torch.float64) * x,
    "of whole numbers": lambda x: x * (torch.arange(3) ** 1).double() * (torch.arange(3) * 1),
    "by a true value": lambda x: x * True,
    "negative": lambda x: x**-1.0 * x**2.0 * -1,
    "in place": lambda x: x.clone().mul_(1.0).pow_(1.0).mul_(x),
}


@pytest.mark.parametrize("func", FUNCTIONS.values(), ids=FUNCTIONS)
def test_values_stay(func: Callable[[Tensor], Tensor]) -> None:
    plan = pb.plan_jacobian(func, torch.rand_like(X))
    jac = pb.jacobian(func, plan=plan, layout=torch.strided)
    for point in (X + 0.25, 2 * X + 1):
        torch.testing.assert_close(jac(point), torch.func.jacrev(func)(point), equal_nan=True)


def test_they_are_gone() -> None:
    assert "pow" not in names(lambda x: x**1.0 + x**0 * x, X)
    assert "div" not in names(lambda x: ((x * 1.0).sin() / 1).exp(), X)
    assert "pow" in names(lambda x: x**3, X)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_a_power_of_zero_is_one_everywhere(value: float) -> None:
    x = torch.full((2,), value, dtype=torch.float64)
    hess = pb.hessian(lambda x: (x**2).sum(), layout=torch.strided)
    torch.testing.assert_close(hess(x), 2 * torch.eye(2, dtype=torch.float64))


def test_a_result_is_a_tensor_of_its_own() -> None:
    def func(x: Tensor) -> tuple[Tensor, Tensor]:
        out = x**1.0
        return out, out

    jac = pb.jacobian(func, layout=torch.sparse_csr, has_aux=True)
    x = X.clone()
    for _ in range(5):
        _, aux = jac(x)
        assert aux.data_ptr() != x.data_ptr()
        assert torch.equal(aux, x)
