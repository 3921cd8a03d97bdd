"""Rule 13: derivatives of a Jacobian are those of the function itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap
from torch.testing import assert_close

import pullback as pb

from .reference import CSR, matrix_of


class Rounded(torch.autograd.Function):
    """A straight-through estimator: rounds forward, passes the cotangent on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "straight through": lambda x: Rounded.apply(x) ** 2,
    "smooth": lambda x: x.sin() * x.roll(1),
    "mask": lambda x: x[x > 0] ** 3,
    "detach": lambda x: x.detach() * x**2,
    "reading": lambda x: x**3 * float(x.detach().sum()),
    "complex inside": lambda x: torch.fft.fft(x).abs(),
    "in place": lambda x: x.clone().mul_(x).sin_(),
}
LAYOUTS = [CSR, torch.sparse_coo, torch.strided]
every_function = pytest.mark.parametrize("func", FUNCTIONS.values(), ids=FUNCTIONS.keys())


def weights_for(count: int) -> Tensor:
    return torch.arange(1.0, count + 1)


def weighted(matrix: Tensor) -> Tensor:
    """A number that no two entries of a matrix enter alike."""
    dense = matrix if matrix.layout is torch.strided else matrix.to_dense()
    return (dense.reshape(-1) * weights_for(dense.numel())).sum()


def truth(func: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    out = func(x)
    rows = [
        torch.autograd.grad(out, x, unit.reshape(out.shape), create_graph=True)[0]
        for unit in torch.eye(out.numel())
    ]
    return torch.autograd.grad(weighted(torch.stack(rows)), x)[0]


@every_function
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_backward_through_the_matrix(func: Callable[[Tensor], Tensor], layout: Any) -> None:
    sample = torch.rand(4) + 0.5
    plan = pb.plan_jacobian(func, sample)
    for jac in (pb.jacobian(func, plan=plan, layout=layout), pb.jacobian(func, layout=layout)):
        for point in (sample, torch.rand(4) + 0.5):
            x = point.clone().requires_grad_()
            weighted(jac(x)).backward()
            assert_close(x.grad, truth(func, point))


def test_the_second_derivative_of_a_straight_through_estimator_is_2() -> None:
    def func(x: Tensor) -> Tensor:
        return Rounded.apply(x) ** 2

    x = (torch.rand(4) + 0.7).requires_grad_()
    J = pb.jacobian(func, plan=pb.plan_jacobian(func, x))(x)
    J.values().sum().backward()
    assert_close(x.grad, torch.full((4,), 2.0))


@every_function
def test_torch_func_over_a_jacobian(func: Callable[[Tensor], Tensor]) -> None:
    if func is FUNCTIONS["straight through"]:
        pytest.skip("torch.func refuses a Function without setup_context")
    x = torch.rand(4) + 0.5
    plan = pb.plan_jacobian(func, x)
    for jac in (pb.jacobian(func, plan=plan, layout=torch.strided), pb.jacobian(func)):
        assert_close(grad(lambda t, jac=jac: weighted(jac(t)))(x), truth(func, x))


def test_chains_and_nests() -> None:
    def func(x: Tensor) -> Tensor:
        return x.sin() * x.roll(1)

    x = torch.rand(4)
    plan = pb.plan_jacobian(func, x)
    jac = pb.jacobian(func, plan=plan, layout=torch.strided)

    def third(jac: Any) -> tuple[Tensor, Tensor]:
        y = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(weighted(jac(y) ** 2), y, create_graph=True)
        return first.detach(), torch.autograd.grad((first**2).sum(), y)[0]

    assert_close(third(jac), third(jacrev(func)))
    assert_close(
        jacrev(jacrev(lambda t: weighted(jac(t) ** 2)))(x),
        jacrev(jacrev(lambda t: weighted(jacrev(func)(t) ** 2)))(x),
    )
    assert_close(jacrev(jac)(x), jacrev(jacrev(func))(x))
    assert_close(pb.jacobian(jac)(x), jacrev(jacrev(func))(x))
    nested = pb.jacobian(jac, layout=CSR)(x)
    assert_close(nested.to_dense().detach(), jacrev(jacrev(func))(x).reshape(16, 4))


def test_vmap_over_a_jacobian() -> None:
    def func(x: Tensor, i: Tensor) -> Tensor:
        return x[i] ** 2

    X, i = torch.rand(3, 4), torch.tensor([0, 1, 1])
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, X[0], i), layout=torch.strided)
    assert_close(vmap(jac, (0, None))(X, i), torch.stack([matrix_of(func, x, i) for x in X]))


def test_vmap_over_an_index_is_right_or_refused_in_words() -> None:
    def func(x: Tensor, i: Tensor) -> Tensor:
        return x[i] ** 2

    X, places = torch.rand(3, 4), torch.tensor([[0, 1, 1], [3, 2, 0], [2, 2, 2]])
    expected = torch.stack([matrix_of(func, x, i) for x, i in zip(X, places, strict=True)])
    plan = pb.plan_jacobian(func, X[0], places[0])
    for jac in (
        pb.jacobian(func, plan=plan, layout=torch.strided),
        pb.jacobian(func, layout=torch.strided),
    ):
        try:
            found = vmap(jac)(X, places)
        except pb.PullbackError:
            continue
        assert_close(found, expected)


def test_derivatives_with_respect_to_what_is_not_selected() -> None:
    w = torch.rand(4, requires_grad=True)
    x = torch.rand(4)

    def closed(x: Tensor) -> Tensor:
        return (w * x) ** 2

    def given(x: Tensor, w: Tensor) -> Tensor:
        return (w * x) ** 2

    for layout in LAYOUTS:
        w.grad = None
        weighted(pb.jacobian(closed, layout=layout)(x)).backward()
        expected = 4 * w.detach() * x * weights_for(16).view(4, 4).diagonal()
        assert_close(w.grad, expected)
        w.grad = None
        weighted(pb.jacobian(given, layout=layout)(x, w)).backward()
        assert_close(w.grad, expected)
    jac = pb.jacobian(given, plan=pb.plan_jacobian(given, x, w), layout=torch.strided)
    assert_close(grad(lambda w: weighted(jac(x, w)))(w.detach()), expected)


def test_no_graph_where_nobody_asks() -> None:
    w = torch.rand(4, requires_grad=True)
    for func in (lambda x: x**2, lambda x: (w * x) ** 2):
        jac = pb.jacobian(func, layout=CSR)
        with torch.no_grad():
            assert not jac(torch.rand(4, requires_grad=True)).requires_grad
    assert not pb.jacobian(lambda x: x**2, layout=CSR)(torch.rand(4)).requires_grad


def test_a_backward_that_may_run_once_only_is_no_silent_zero() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 3 * x**2 * g

    x = torch.rand(4, requires_grad=True)
    J = pb.jacobian(Once.apply, layout=CSR)(x)
    with pytest.raises(RuntimeError):
        J.values().sum().backward()
