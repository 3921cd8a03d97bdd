"""Rule 1: arguments that are no tensors, and what of a tensor argument a capture depends on."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pullback as pb

from .reference import CSR, assert_right, matrix_of, whole


@pytest.mark.parametrize(
    ("func", "values"),
    [
        (lambda x, k: x**2 * k, [0.1, 0.2, np.float64(0.3), 2]),
        (lambda x, how: x.sin() if how == "sin" else x.cos(), ["sin", "cos", "sin"]),
        (lambda x, flag: x**2 if flag else x**3, [True, False, None]),
        (lambda x, a: x**2 * torch.from_numpy(a), [np.ones(4), np.arange(4.0)]),
        (lambda x, table: x**2 * table["k"], [{"k": 1.0}, {"k": 2.0}]),
        (lambda x, o: x**2 * o.k, [types.SimpleNamespace(k=1.0), types.SimpleNamespace(k=2.0)]),
        (lambda x, layer: layer(x).sin(), [nn.Linear(4, 4).double(), nn.Linear(4, 4).double()]),
    ],
    ids=["number", "string", "flag", "array", "dict", "object", "module"],
)
def test_arguments_that_are_no_tensors(func: Callable[..., Any], values: list[Any]) -> None:
    x = torch.rand(4)
    own = pb.jacobian(func, layout=CSR)
    given = pb.jacobian(func, plan=pb.plan_jacobian(func, x, values[0]))
    for value in [*values, *values]:
        for jac in (own, given):
            assert_right(jac, func, x, value)
            with torch.no_grad():
                assert_right(jac, func, x, value)


def test_an_argument_changes_in_place() -> None:
    settings, weights = types.SimpleNamespace(k=1.0), np.ones(4)

    def func(x: Tensor, s: Any, w: Any) -> Tensor:
        return x**2 * s.k * torch.from_numpy(w)

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    assert_right(jac, func, x, settings, weights)
    settings.k = 3.0
    assert_right(jac, func, x, settings, weights)
    weights[2] = 9.0
    assert_right(jac, func, x, settings, weights)


def test_an_argument_that_asks_for_gradients_and_is_differentiated_inside() -> None:
    def func(x: Tensor, w: Tensor) -> Tensor:
        (found,) = torch.autograd.grad((x * w**2).sum(), w, create_graph=True)
        return found * x

    w = torch.rand(4, requires_grad=True)
    jac = pb.jacobian(func, layout=CSR)
    for x in (torch.rand(4), torch.rand(4)):
        assert_right(jac, func, x, w)


def test_strides_of_an_argument_are_part_of_what_was_captured() -> None:
    def by_layout(x: Tensor) -> Tensor:
        return x * 2 if x.is_contiguous() else x**2

    jac = pb.jacobian(by_layout, layout=CSR)
    X = torch.rand(3, 3)
    assert_close(whole(jac(X)), 2 * torch.eye(9))
    assert_close(whole(jac(X.T)), torch.diag(2 * X.T.reshape(-1)))
    assert_close(whole(jac(X)), 2 * torch.eye(9))


def test_whether_another_argument_asks_for_gradients() -> None:
    def func(x: Tensor, w: Tensor) -> Tensor:
        return x * w if w.requires_grad else x * w * w

    jac = pb.jacobian(func, layout=CSR)
    x, w = torch.rand(4), torch.rand(4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for asks in (False, True, False):
                assert_right(jac, func, x, w.clone().requires_grad_(asks))


def test_parameters_and_plain_subclasses_as_arguments() -> None:
    class Named(torch.Tensor):
        pass

    x = torch.rand(4)
    jac = pb.jacobian(lambda x: x**2 * x.roll(1), layout=CSR)
    expected = matrix_of(lambda x: x**2 * x.roll(1), x)
    for given in (x, nn.Parameter(x.clone()), x.clone().as_subclass(Named)):
        assert_close(whole(jac(given)).as_subclass(torch.Tensor), expected)


def test_functions_slices_and_dtypes_as_arguments() -> None:
    k = [2.0]
    cases: list[tuple[Callable[..., Any], list[Any]]] = [
        (lambda x, g: g(x), [torch.sin, torch.cos, lambda t: t * t * k[0]]),
        (lambda x, s: x[s] ** 2, [slice(0, 2), slice(1, 3), 1, 2, [0, 3]]),
        (lambda x, s: x[list(s)] ** 2, [{0, 1}, {1, 2}, range(2), range(1, 3)]),
        (lambda x, d: x.to(d).double() * x, [torch.float32, torch.bfloat16, torch.float64]),
    ]
    x = torch.rand(4)
    for func, values in cases:
        jac = pb.jacobian(func, layout=CSR)
        for value in values + values[::-1]:
            assert_right(jac, func, x, value, close=1e-5)
    jac = pb.jacobian(cases[0][0], layout=CSR)
    for factor in (2.0, 3.0):
        k[0] = factor
        assert_right(jac, cases[0][0], x, cases[0][1][2])
