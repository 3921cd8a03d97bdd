"""A backward that hides a part of itself from differentiation is never believed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pullback as pb

HALVES = (torch.bfloat16, torch.float16)
DTYPES = (*HALVES, torch.float32, torch.float64)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return 2 * a * grad


class Partly(torch.autograd.Function):
    """A thousandth of this backward leaves the graph."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 0.999 + grad.detach() * 0.001


class Sine(torch.autograd.Function):
    """An honest backward: differentiable wherever it is differentiated."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return grad * a.cos()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_hidden_backward_is_refused_every_time(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for _ in range(150):
        x, t = torch.randn(2, 20).to(dtype)
        for func in (Once.apply, lambda a: Once.apply(a) + a.sin()):
            with pytest.raises(pb.UnsupportedError):
                pb.jvp(func, (x,), (t,))
        assert pb.JacobianOperator(Once.apply, x).engine != "double VJP"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_partly_hidden_backward_is_refused(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for _ in range(50):
        x, t = torch.randn(2, 9, dtype=dtype)
        with pytest.raises(pb.UnsupportedError):
            pb.jvp(Partly.apply, (x,), (t,))


def test_infinite_entries_do_not_switch_the_check_off() -> None:
    def func(a: Tensor) -> Tensor:
        return torch.cat([Once.apply(a[1:]), a[:1].sqrt()])

    with pytest.raises(pb.UnsupportedError):
        pb.jvp(func, (torch.tensor([0.0, 1, 2]),), (torch.ones(3),))
    with pytest.raises(pb.UnsupportedError):
        pb.jvp(Once.apply, ((torch.randn(5) * 200).half(),), (torch.ones(5).half() * 200,))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_honest_backward_is_believed(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for _ in range(50):
        x, t = torch.randn(2, 30).to(dtype)
        weight = torch.randn(30, 30).to(dtype)
        _, found = pb.jvp(lambda a, w=weight: Sine.apply(w @ Sine.apply(a)).softmax(0), (x,), (t,))
        _, expected = pb.jvp(lambda a, w=weight: (w @ a.sin()).sin().softmax(0), (x,), (t,))
        slack = 0.05 if dtype in HALVES else 1e-5
        torch.testing.assert_close(found, expected, rtol=slack, atol=slack)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns itself while it traces
def test_second_derivatives_through_compiled_functions_are_not_cut() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 3, requires_grad=True)
    z, v = torch.randn(3, requires_grad=True), torch.randn(3)

    def plain(a: Tensor) -> Tensor:
        return torch.tanh(weight @ a) * a

    def second(func: Any) -> tuple[Tensor, ...]:
        gradient = pb.vjp(func, z)[1](v)[0]
        return torch.autograd.grad((gradient**2).sum() + (z**3).sum() + weight.sum(), [z, weight])

    for found, expected in zip(
        second(torch.compile(plain, backend="aot_eager")), second(plain), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore")
def test_an_operator_refuses_to_cut_them() -> None:
    z = torch.randn(3, requires_grad=True)
    text = (
        "pullback: this product may be differentiated again, and it runs through a region that "
        "torch.compile compiled, whose backward torch cannot differentiate. Pass the function that "
        "is not compiled; or take the product under torch.no_grad()."
    )
    J = pb.JacobianOperator(torch.compile(torch.sin, backend="aot_eager"), z)
    with pytest.raises(pb.UnsupportedError, match=f"^{re.escape(text)}$"):
        J.rmatvec(torch.ones(3))
    with torch.no_grad():
        torch.testing.assert_close(J.rmatvec(torch.ones(3)), z.detach().cos())


def test_the_callers_hooks_on_the_output_stay_out_of_the_products() -> None:
    z = torch.randn(3, requires_grad=True)
    out, pull = pb.vjp(torch.sin, z)
    out.register_hook(lambda grad: grad * 10)
    out.retain_grad()
    torch.testing.assert_close(pull(torch.ones(3))[0], z.cos())
    torch.testing.assert_close(pull.batched(torch.eye(3))[0], z.cos().diag())
    assert out.grad is None
    out.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 10 * z.detach().cos())


def test_inference_tensors_are_primals() -> None:
    with torch.inference_mode():
        x = torch.ones(3) * 2
    torch.testing.assert_close(pb.vjp(torch.square, x)[1](torch.ones(3))[0], torch.full((3,), 4.0))
    torch.testing.assert_close(
        pb.jvp(torch.square, (x,), (torch.ones(3),))[1], torch.full((3,), 4.0)
    )


def test_scipy_operands_of_any_kind() -> None:
    J = pb.JacobianOperator(lambda x: 2 * x, torch.zeros(3)).to_scipy()
    np.testing.assert_allclose(J @ (np.ones(3) * 1j), np.full(3, 2j))
    np.testing.assert_allclose(J.matvec(np.arange(3.0)[::-1]), [4, 2, 0])
    frozen = np.ones(3)
    frozen.flags.writeable = False
    np.testing.assert_allclose(J.matvec(frozen), [2, 2, 2])
