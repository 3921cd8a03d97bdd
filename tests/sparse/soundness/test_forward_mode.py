"""Rule 14: products J t are those of the backward's J."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.testing import assert_close

import pullback as pb
from pullback.sparse import parts, recording

from .reference import CSR, assert_right, matrix_of, whole


class WrongJvp(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * g

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return 0 * t + 7


class Doubling(torch.autograd.Function):
    """A backward that is not the derivative of the forward, and has no jvp."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g


class WrongTwice(torch.autograd.Function):
    """Doubles; its derivative, which a double VJP would ask for, says five times."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 5 * g


class HidingIt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return WrongTwice.apply(g)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "wrong jvp": lambda x: torch.cat([WrongJvp.apply(x), WrongJvp.apply(x).roll(1) * x]),
    "doubling": lambda x: torch.cat([Doubling.apply(x) ** 2, x.roll(1) * x, x]),
    "tall": lambda x: torch.cat([x * x, x.roll(1) * x, x.sin()]),
    "reading": lambda x: torch.cat([x**3 * float(x.detach().sum()), x * x]),
    "dropout": lambda x: F.dropout(torch.cat([x * x, x * x.roll(1)]), 0.5),
    "complex inside": lambda x: torch.cat([torch.fft.fft(x).abs(), x]),
    "gather": lambda x: x[torch.tensor([0, 0, 1, 1, 2, 3, 3])] ** 2,
    "conv": lambda x: F.conv1d(x.view(1, 1, 4), torch.ones(3, 1, 2)) ** 2,
    "cholesky": lambda x: torch.linalg.cholesky(torch.diag(x + 3) + 0.1) * x[0],
    "detached": lambda x: torch.cat([x.detach() * x, x**2]),
    "no graph beside": lambda x: torch.cat([x**2, torch.ones(4), x.roll(1) * x]),
    "wrong double backward": lambda x: torch.cat([HidingIt.apply(x), x**2, x.roll(1) * x]),
    "wrong double backward, reading": lambda x: torch.cat(
        [HidingIt.apply(x) * float(x.detach().sum()), x**2, x.roll(1) * x]
    ),
    "custom of a custom": lambda x: torch.cat([Doubling.apply(WrongJvp.apply(x)), x, x]),
}


@pytest.mark.parametrize("func", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_every_mode_gives_the_same_matrix(func: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(4) + 0.3
    for mode in ("fwd", "rev", "mixed", "dense", "auto"):
        try:
            plan = pb.plan_jacobian(func, x, mode=mode)
        except pb.UnsupportedError:
            if mode in ("rev", "dense", "auto"):
                raise
            continue
        jac = pb.jacobian(func, plan=plan)
        for grad in (True, False):
            for point in (x, torch.rand(4) + 0.3):
                for asks in (False, True):
                    with torch.set_grad_enabled(grad):
                        assert_right(jac, func, point.clone().requires_grad_(asks))


def test_forward_mode_is_to_be_had_where_it_pays() -> None:
    def func(x: Tensor) -> Tensor:
        return torch.cat([WrongJvp.apply(x), WrongJvp.apply(x).roll(1) * 2, x.sin()])

    plan = pb.plan_jacobian(func, torch.rand(4), mode="fwd")
    assert plan.mode == "fwd"
    jac = pb.jacobian(func, plan=plan)
    with torch.no_grad():
        assert_right(jac, func, torch.rand(4))


def test_dense_forward_mode() -> None:
    for func in FUNCTIONS.values():
        x = torch.rand(4) + 0.3
        torch.manual_seed(1)
        found = pb.jacobian(func)(x)
        torch.manual_seed(1)
        expected = matrix_of(func, x)
        assert_close(whole(found).reshape(expected.shape), expected)


def test_a_differentiable_matrix_in_forward_mode() -> None:
    def func(x: Tensor) -> Tensor:
        return torch.cat([x**3, x.roll(1) * x])

    x = torch.rand(4, requires_grad=True)
    plan = pb.plan_jacobian(func, x, mode="fwd")
    J = pb.jacobian(func, plan=plan, layout=CSR)(x)
    J.values().sum().backward()
    assert_close(x.grad, 6 * x.detach() + 2)


def test_a_transposed_part_that_was_recorded_wrongly_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here a recorder that takes what it is given for constants: right at the sample alone."""

    def frozen(run: Any, tensors: Any) -> Any:
        module = recording.recorded(run, tensors)
        first = next(iter(module.graph.find_nodes(op="placeholder")))
        module.register_buffer("stale", tensors[0].clone())
        with module.graph.inserting_after(first):
            first.replace_all_uses_with(module.graph.get_attr("stale"))
        module.recompile()
        return module

    monkeypatch.setattr(parts, "recorded", frozen)
    func = lambda x: x.sin() * x.roll(1).cos()  # noqa: E731
    x = torch.linspace(0.1, 1, 8, dtype=torch.float64)
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x, mode="fwd", lift=True))
    for k in range(5):
        torch.testing.assert_close(jac(x + k).to_dense(), torch.func.jacrev(func)(x + k))
