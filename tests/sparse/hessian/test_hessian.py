"""Hessians, dense and sparse, against torch.func and against patterns from theory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb

from .functions import (
    PATTERNS,
    Func,
    arrowhead,
    banded_quartic,
    minimal_surface,
    quotient,
    rosenbrock,
    sum_of_squares,
)

N = 16


def of_torch(func: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """Reverse over reverse: forward mode warns where it is loaded."""
    jacrev = torch.func.jacrev
    return jacrev(jacrev(func, argnums=argnums), argnums=argnums)


def point(n: int = N) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) + 0.5


@pytest.mark.parametrize("lift", [True, False, "auto"])
@pytest.mark.parametrize("func", PATTERNS, ids=lambda f: f.__name__)
def test_patterns_and_values(func: Func, lift: Any) -> None:
    x = point()
    plan = pb.plan_hessian(func, torch.rand_like(x), lift=lift)
    assert np.array_equal(plan.pattern.to_scipy().toarray(), PATTERNS[func](N))
    found = pb.hessian(func, plan=plan, layout=torch.strided)(x)
    torch.testing.assert_close(found, of_torch(func)(x))


def test_a_quotient_by_one_element_has_19_entries() -> None:
    assert pb.plan_hessian(quotient, point(10)).pattern.nnz == 19


@pytest.mark.parametrize(
    ("func", "products"),
    [(rosenbrock, 2), (banded_quartic, 3), (arrowhead, 1), (minimal_surface, 2)],
)
def test_few_products_are_left_once_lifted(func: Func, products: int) -> None:
    assert pb.plan_hessian(func, point(100), lift=True).num_products <= products


@pytest.mark.parametrize(
    "layout", [None, torch.strided, torch.sparse_csr, torch.sparse_coo, "scipy"]
)
def test_layouts(layout: Any) -> None:
    x = point()
    found = pb.hessian(rosenbrock, layout=layout)(x)
    dense = found.toarray() if layout == "scipy" else found.to_dense()
    torch.testing.assert_close(torch.as_tensor(dense), of_torch(rosenbrock)(x))


def two(a: dict[str, Tensor], b: Tensor) -> Tensor:
    return (a["w"].sin() * b).sum() + a["u"].prod() * b[0] ** 2


ARGS = ({"w": point(3), "u": point(2)}, point(3))


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1, 0), -1, (-2,)])
def test_the_dense_structure_is_that_of_torch(argnums: Any) -> None:
    found = pb.hessian(two, argnums=argnums)(*ARGS)
    positive = (0,) if argnums == (-2,) else 1 if argnums == -1 else argnums
    truth = of_torch(two, argnums=positive)(*ARGS)
    assert pytree.tree_structure(found) == pytree.tree_structure(truth)
    for ours, theirs in zip(pytree.tree_leaves(found), pytree.tree_leaves(truth), strict=True):
        torch.testing.assert_close(ours, theirs)


def constraints(x: Tensor, scale: float = 2.0) -> dict[str, Tensor]:
    return {"g": scale * x[1:] * x[:-1], "h": (x**3).sum()}


@pytest.mark.parametrize("argnums", [0, -2])
def test_the_hessian_of_a_weighed_output(argnums: int) -> None:
    x, v = point(6), {"g": point(5), "h": torch.tensor(3.0, dtype=torch.float64)}

    def weighed(x: Tensor) -> Tensor:
        out = constraints(x, 4.0)
        return (v["g"] * out["g"]).sum() + v["h"] * out["h"]

    hess = pb.hessian(constraints, argnums=argnums)
    truth = of_torch(weighed)(x)
    torch.testing.assert_close(hess(x, 4.0, cotangents=v), truth)
    plan = pb.plan_hessian(constraints, x, 4.0, argnums=argnums, cotangents=v)
    assert plan.pattern.nnz == 6 + 2 * 5
    sparse = pb.hessian(constraints, argnums=argnums, plan=plan)
    torch.testing.assert_close(sparse(x, 4.0, cotangents=v).to_dense(), truth)
    twice = {name: 2 * t for name, t in v.items()}
    torch.testing.assert_close(sparse(x, 4.0, cotangents=twice).to_dense(), 2 * truth)


def test_aux_comes_along() -> None:
    x = point()
    hess = pb.hessian(lambda x: (rosenbrock(x), {"value": rosenbrock(x), "n": 3}), has_aux=True)
    for _ in range(4):
        matrix, aux = hess(x)
        torch.testing.assert_close(matrix, of_torch(rosenbrock)(x))
        torch.testing.assert_close(aux["value"], rosenbrock(x))
        assert aux["n"] == 3


def test_third_derivatives_go_through_the_function() -> None:
    x = point(5).requires_grad_()
    plan = pb.plan_hessian(rosenbrock, x)
    matrix = pb.hessian(rosenbrock, plan=plan, layout=torch.strided)(x)
    (found,) = torch.autograd.grad(matrix.sum(), x)
    truth = torch.func.grad(lambda x: of_torch(rosenbrock)(x).sum())(x.detach())
    torch.testing.assert_close(found, truth)


def test_under_vmap_and_under_another_hessian() -> None:
    xs = torch.stack([point(4), point(4) + 1])
    torch.testing.assert_close(
        torch.func.vmap(pb.hessian(rosenbrock))(xs),
        torch.func.vmap(of_torch(rosenbrock))(xs),
    )
    torch.testing.assert_close(
        torch.func.jacrev(pb.hessian(rosenbrock))(xs[0]),
        torch.func.jacrev(of_torch(rosenbrock))(xs[0]),
    )


def test_a_closure_is_read_again() -> None:
    scale = torch.tensor(2.0, dtype=torch.float64)
    hess = pb.hessian(lambda x: (scale * x**3).sum(), layout=torch.sparse_csr)
    x = point(4)
    for value in (2.0, 2.0, 2.0, 5.0, 7.0):
        scale.fill_(value)
        torch.testing.assert_close(hess(x).to_dense(), torch.diag(6 * value * x))


def test_planning_reads_the_function_and_not_the_wrapper() -> None:
    assert pb.plan_hessian(sum_of_squares, point()).notes == ()


def test_a_real_function_of_complex_numbers() -> None:
    z = torch.complex(point(3), point(3) - 1)

    def func(z: Tensor) -> Tensor:
        return (z.abs() ** 4).sum() + (z[0] * z[1].conj()).imag

    def on_reals(parts: Tensor) -> Tensor:
        return func(torch.view_as_complex(parts))

    truth = of_torch(on_reals)(torch.view_as_real(z)).reshape(6, 6)
    found = pb.hessian(func, layout=torch.sparse_csr)(z)
    torch.testing.assert_close(found.to_dense(), truth)


def test_a_function_without_second_derivatives() -> None:
    x = point(4)
    for func in (lambda x: x.sum(), lambda x: torch.zeros((), dtype=x.dtype)):
        assert pb.plan_hessian(func, x).pattern.nnz == 0
        assert not pb.hessian(func)(x).any()


REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: pb.hessian(torch.sin)(point(3)), pb.ArgumentError, r"shape \(3,\).*cotangents=v"),
    (lambda: pb.hessian(lambda x: (x.sum(), x.prod()))(point(3)), pb.ArgumentError, "2 tensors"),
    (lambda: pb.plan_hessian(lambda x: x.sum(), torch.arange(3)), pb.ArgumentError, "int64"),
    (lambda: pb.plan_hessian(torch.sum, point(3), mode="mixed"), pb.ArgumentError, "'mixed'"),
    (
        lambda: pb.hessian(torch.sin)(point(3), cotangents=point(2)),
        pb.CotangentError,
        r"shape \(2,\)",
    ),
    (lambda: pb.hessian(lambda x: x.sum() * 1j)(point(3)), pb.UnsupportedError, "complex128"),
]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Any:
        return 2 * ctx.saved_tensors[0] * grad


NOT_TWICE: dict[str, Callable[[Tensor], Tensor]] = {
    "backward of pdist": lambda x: torch.nn.functional.pdist(x.reshape(2, 2)).square().sum(),
    "backward of hardsigmoid": lambda x: torch.nn.functional.hardsigmoid(x).prod(),
    "@once_differentiable": lambda x: Once.apply(x).prod(),
}


@pytest.mark.parametrize("words", NOT_TWICE)
def test_a_backward_without_a_derivative_is_named(words: str) -> None:
    func, x = NOT_TWICE[words], point(4)
    for call in (
        lambda: pb.hessian(func)(x),
        lambda: pb.hessian(func, layout=torch.sparse_csr)(x),
        lambda: pb.plan_hessian(func, x),
    ):
        with pytest.raises(pb.UnsupportedError, match=words):
            call()


@pytest.mark.parametrize(("call", "kind", "words"), REFUSALS)
def test_refusals(call: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()


def test_a_plan_knows_what_it_is_of() -> None:
    x = point()
    hess, jac = pb.plan_hessian(rosenbrock, x), pb.plan_jacobian(torch.sin, x)
    assert (hess.kind, jac.kind) == ("hessian", "jacobian")
    assert repr(hess).startswith("Plan of a Hessian 16 × 16: ")
    with pytest.raises(pb.ArgumentError, match=r"jacobian: the plan is one of a hessian"):
        pb.jacobian(torch.sin, plan=hess)(x)
    with pytest.raises(pb.ArgumentError, match=r"hessian: the plan is one of a jacobian"):
        pb.hessian(rosenbrock, plan=jac)(x)


@pytest.mark.parametrize(
    ("plan", "make"), [(pb.plan_hessian, pb.hessian), (pb.plan_jacobian, pb.jacobian)]
)
def test_a_plan_in_the_place_of_argnums_is_named(plan: Any, make: Any) -> None:
    x = torch.ones(3)
    func = (lambda x: (x**3).sum()) if make is pb.hessian else (lambda x: x**3)
    made = plan(func, x)
    words = "`argnums` is a Plan; it must be .* A plan is handed in as `plan=`.$"
    with pytest.raises(pb.ArgumentError, match=words):
        make(func, made)(x)
