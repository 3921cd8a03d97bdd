"""Rule 2: the sample may itself be closed over, and one tensor may be passed twice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

import pullback as pb

from .reference import CSR, assert_right, assert_right_everywhere, whole


def test_a_function_that_closes_over_the_sample() -> None:
    x0 = torch.rand(4)
    for func in (
        lambda t: t * t * x0,
        lambda t: t - x0 - 0.1 * t * x0.roll(1),
        lambda t: x0 * t.sum() + (t - x0) ** 2,
    ):
        assert_right_everywhere(func, x0)


def test_it_stays_right_when_the_closed_over_sample_changes() -> None:
    x0 = torch.rand(4)

    def func(t: Tensor) -> Tensor:
        return t * t * x0

    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x0))
    assert_right(jac, func, x0)
    x0.mul_(3)
    assert_right(jac, func, x0)
    assert_right(jac, func, x0 + 1)
    x0 = torch.rand(4)
    assert_right(jac, func, torch.rand(4))


def test_one_tensor_passed_twice_stays_two_inputs() -> None:
    x = torch.rand(4)
    for argnums in (0, 1, (0, 1), (1, 0)):
        assert_right_everywhere(lambda a, b: a**2 * b.roll(1), x, x, argnums=argnums)
        jac = pb.jacobian(lambda a, b: a**2 * b.roll(1), argnums=argnums, layout=CSR)
        assert_right(jac, lambda a, b: a**2 * b.roll(1), x, x, argnums=argnums)
        assert_right(jac, lambda a, b: a**2 * b.roll(1), x, torch.rand(4), argnums=argnums)


def test_views_of_one_tensor_as_two_arguments() -> None:
    x = torch.rand(8)
    assert_right_everywhere(lambda a, b: a * b.sin(), x[:4], x[2:6], argnums=(0, 1))


def test_a_write_to_an_argument_that_shares_memory_with_another() -> None:
    def func(x: Tensor, y: Tensor) -> Tensor:
        y.add_(1)
        return 2 * x * y

    jac = pb.jacobian(func, layout=CSR)
    x, y = torch.rand(4), torch.rand(4)
    before = y.clone()
    assert_close(whole(jac(x, y)), torch.diag(2 * (before + 1)))
    assert_close(y, before + 1)
    z = torch.rand(4)
    before = z.clone()
    assert_close(whole(jac(z, z.detach())), torch.diag(2 * (before + 1)))
    assert_close(z, before + 1)


def test_the_identity_of_an_argument() -> None:
    x0 = torch.rand(4)

    def func(t: Tensor) -> Tensor:
        return t * x0 if t is x0 else t * t * x0

    assert_right_everywhere(func, x0)
