"""``objective``: what ``minimize`` finds with it, by every method that takes derivatives."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess, rosen_hess_prod
from torch import Tensor

import pullback as pb
from pullback.interop.scipy import objective


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


POINTS = np.random.default_rng(0).standard_normal((4, 9))


@pytest.mark.parametrize("x", POINTS)
def test_derivatives_are_those_that_scipy_knows(x: np.ndarray) -> None:
    o, p = objective(rosenbrock, np.zeros(9)), np.linspace(-1, 1, 9)
    assert o.fun(x) == pytest.approx(rosen(x))
    np.testing.assert_allclose(o.jac(x), rosen_der(x), rtol=1e-12)
    np.testing.assert_allclose(o.hessp(x, p), rosen_hess_prod(x, p), rtol=1e-10, atol=1e-9)
    assert o.plan is None
    np.testing.assert_allclose(o.hess(x).toarray(), rosen_hess(x), rtol=1e-12)
    assert o.plan is not None
    np.testing.assert_allclose(o.hessp(x, p), rosen_hess_prod(x, p), rtol=1e-10, atol=1e-9)
    value, gradient = o.both(x)
    assert value == pytest.approx(rosen(x))
    np.testing.assert_allclose(gradient, rosen_der(x), rtol=1e-12)


SPARSE = ("trust-constr", "Newton-CG")
PRODUCTS = ("trust-krylov", "trust-ncg", "trust-constr", "Newton-CG")
DENSE = ("trust-exact", "dogleg", "trust-ncg", "trust-constr", "Newton-CG")


@pytest.mark.parametrize(
    ("method", "how"),
    [
        *((m, "sparse") for m in SPARSE),
        *((m, "products") for m in PRODUCTS),
        *((m, "planned products") for m in PRODUCTS),
        *((m, "dense") for m in DENSE),
        *((m, "gradient") for m in ("BFGS", "L-BFGS-B", "CG")),
    ],
)
def test_methods_of_minimize(method: str, how: str) -> None:
    x0 = np.zeros(6)
    o = objective(rosenbrock, x0, dense=how == "dense")
    options: dict[str, Any] = {}
    if how in ("sparse", "dense"):
        options["hess"] = o.hess
    if "products" in how:
        options["hessp"] = o.hessp
    if how == "planned products":
        o.hess(x0)
    if method == "Newton-CG":
        options["options"] = {"xtol": 1e-10}
    found = minimize(o.fun, x0, jac=o.jac, method=method, **options)
    np.testing.assert_allclose(found.x, 1, atol=1e-4)
    at_once = minimize(o.both, x0, jac=True, method=method, **options)
    np.testing.assert_allclose(at_once.x, found.x, atol=1e-4)


def test_the_hessian_is_sparse_and_the_callers_own() -> None:
    o = objective(rosenbrock, np.zeros(40))
    first = o.hess(np.zeros(40))
    assert scipy.sparse.issparse(first)
    assert first.nnz == 40 + 2 * 39
    kept = first.toarray()
    for _ in range(5):
        o.hess(np.ones(40)).data[:] = np.nan
    np.testing.assert_array_equal(first.toarray(), kept)
    plan = pb.plan_hessian(rosenbrock, torch.zeros(40, dtype=torch.float64))
    assert objective(rosenbrock, np.zeros(40), plan=plan).hess(np.zeros(40)).nnz == first.nnz


def test_a_value_and_its_gradient_share_one_forward_pass() -> None:
    o = objective(rosenbrock, np.ones(3))
    x = np.array([1.0, 2.0, 3.0])
    o.fun(x)
    assert o._pull is not None
    forward, o._forward = o._forward, None  # type: ignore[method-assign, assignment]
    np.testing.assert_allclose(o.jac(x.copy()), rosen_der(x))
    o._forward = forward  # type: ignore[method-assign]
    np.testing.assert_allclose(o.jac(x), rosen_der(x))


def test_a_solver_that_moves_its_point_in_place() -> None:
    o = objective(lambda x: (x**3).sum(), np.ones(2))
    x = np.array([1.0, 2.0])
    o.fun(x)
    x *= 2
    np.testing.assert_array_equal(o.jac(x), 3 * x**2)
    o.fun(x)
    x *= 2
    x /= 2
    np.testing.assert_array_equal(o.jac(x), 3 * x**2)
    np.testing.assert_array_equal(o.hessp(x, np.ones(2)), 6 * x)
    there = x.copy()
    o.fun(x)
    x[:] = 0
    np.testing.assert_array_equal(o.jac(there), 3 * there**2)
    x[0] = 7
    np.testing.assert_array_equal(o.hessp(x, np.ones(2)), 6 * x)


def test_what_changes_between_value_and_gradient_is_seen() -> None:
    weight, memory, settings = torch.ones(()), np.ones(3), {"power": 2}
    shared = torch.from_numpy(memory)
    o = objective(
        lambda x, w: (w * shared * x ** settings["power"]).sum(), np.ones(3), args=(weight,)
    )
    x = np.array([1.0, 2.0, 3.0])

    def change_weight() -> None:
        weight.fill_(5.0)

    def change_memory() -> None:
        memory[:] = 4

    def change_settings() -> None:
        settings["power"] = 3

    for change in (change_weight, change_memory, change_settings):
        o.fun(x)
        o.hessp(x, x)
        change()
        k, scale = settings["power"], float(weight) * memory
        np.testing.assert_allclose(o.jac(x), scale * k * x ** (k - 1))
        np.testing.assert_allclose(o.hessp(x, x), scale * k * (k - 1) * x ** (k - 2) * x)
        np.testing.assert_allclose(o.hess(x).diagonal(), scale * k * (k - 1) * x ** (k - 2))
    o.hessp(x, x)
    weight.fill_(7.0)
    assert o.fun(x) == pytest.approx(7 * 4 * (x**3).sum())  # products of before are not of now
    np.testing.assert_allclose(o.hessp(x, x), 7 * 4 * 6 * x * x)
    weight.fill_(2.0)
    np.testing.assert_allclose(o.hessp(x, x), 2 * 4 * 6 * x * x)
    np.testing.assert_allclose(o.jac(x), 2 * 4 * 3 * x**2)


def test_a_vector_is_no_objective() -> None:
    text = "objective: `func` returned shape (3,), 3 elements; an objective is one number."
    with pytest.raises(pb.ArgumentError, match=re.escape(text)):
        objective(lambda x: x, np.zeros(3))
    assert objective(lambda x: x.sum().reshape(1, 1), np.zeros(3)).fun(np.ones(3)) == 3.0


def test_sizes_are_told() -> None:
    o = objective(rosenbrock, np.zeros(3))
    for call in (o.fun, o.jac, o.hess, o.both):
        with pytest.raises(pb.ArgumentError, match="prepared for 3"):
            call(np.zeros(4))
    with pytest.raises(pb.ArgumentError, match="prepared for 3"):
        o.hessp(np.zeros(3), np.zeros(4))


def test_a_state_of_any_shape() -> None:
    def func(x: Tensor) -> Tensor:
        return ((x.T * 2) ** 2).sum()

    o = objective(func, np.zeros((2, 2)))
    x = np.arange(4.0)
    assert o.fun(x) == 4 * 14.0
    np.testing.assert_array_equal(o.jac(x), 8 * x)
    np.testing.assert_array_equal(o.hess(x).toarray(), 8 * np.eye(4))
    np.testing.assert_array_equal(x, np.arange(4.0))


def test_modes_of_the_caller_change_nothing() -> None:
    x, weight = np.arange(3.0), torch.ones(3, requires_grad=True)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            o = objective(lambda x: (weight * x**3).sum(), x)
            assert o.fun(x) == 9.0
            np.testing.assert_array_equal(o.jac(x), 3 * x**2)
            np.testing.assert_array_equal(o.hessp(x, x), 6 * x**2)
            np.testing.assert_array_equal(o.hess(x).diagonal(), 6 * x)
    assert weight.grad is None
