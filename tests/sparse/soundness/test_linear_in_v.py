"""Rule 4: a backward that is not linear in its cotangent is refused, on every path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pullback as pb

from .reference import CSR, assert_right_everywhere, matrix_of, whole


def with_backward(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The identity, with ``rule(cotangent, x)`` for its backward."""

    class Bent(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return rule(g, x)

    return Bent.apply


def nested(g: Tensor, x: Tensor) -> Tensor:
    with torch.enable_grad():
        w = g.detach().requires_grad_()
        return torch.autograd.grad(w.exp().sum(), w)[0]


BENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clamp": lambda g, x: g.clamp(-1, 1),
    "normalised": lambda g, x: g / (g.norm() + 1e-3),
    "square": lambda g, x: g * g,
    "abs": lambda g, x: g.abs(),
    "sign": lambda g, x: g.sign(),
    "exp": lambda g, x: g.exp(),
    "mask of g": lambda g, x: g * (g > 0),
    "where g": lambda g, x: torch.where(g > 0, g, 2 * g),
    "plus one": lambda g, x: g + 1,
    "activity penalty": lambda g, x: g + 0.1 * x.sign(),
    "nested grad": nested,
    "lerp": lambda g, x: torch.lerp(x, x + 1, g),
    "addcmul": lambda g, x: torch.addcmul(x, g, x),
    "truncated": lambda g, x: (7 * g).long().to(g.dtype),
    "softmax": lambda g, x: g.softmax(0),
    "cosine": lambda g, x: g.cos(),
    "cumulative product": lambda g, x: g.cumprod(0),
    "rounded": lambda g, x: (3 * g).round(),
}
# Linear as long as the cotangent stays where it is.
PIECEWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sorted": lambda g, x: g.sort().values,
    "running maximum": lambda g, x: g.cummax(0).values,
    "branch": lambda g, x: 2 * g if float(g.detach().abs().sum()) > 2.5 else g,
}
every_bend = pytest.mark.parametrize("rule", BENT.values(), ids=BENT.keys())


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(pb.UnsupportedError, match="the backward is not linear in its cotangent"):
        call()


def refused_or_right(call: Callable[[], object], func: Callable[..., Any], x: Tensor) -> None:
    try:
        found = whole(call())
    except pb.UnsupportedError:
        return
    assert_close(found, matrix_of(func, x))


def structured(h: Tensor) -> Tensor:
    """Sums and products around the bend, so that seeds of several rows meet in it."""
    return torch.cat([(h * h.roll(1)) * 3, h[:2] ** 2])


@every_bend
@pytest.mark.parametrize("place", ["custom function", "hook"])
@pytest.mark.parametrize("reading", [False, True], ids=["captured", "eager"])
def test_a_bent_backward_is_refused(
    rule: Callable[[Tensor, Tensor], Tensor], place: str, reading: bool
) -> None:
    bent = with_backward(rule)

    def func(x: Tensor) -> Tensor:
        scale = 1 + 0 * float(x.detach().sum()) if reading else 1
        if place == "custom function":
            return structured(bent(x * scale))
        h = x * scale
        held = h.detach()
        h.register_hook(lambda g: rule(g, held))
        return structured(h)

    x = torch.rand(4) + 0.5
    y = x.clone().requires_grad_()
    out = func(y)
    refused(lambda: pb.jacobian(func, layout=CSR)(x))
    refused(lambda: pb.jacobian_of(out, y))


@pytest.mark.parametrize("rule", PIECEWISE.values(), ids=PIECEWISE.keys())
def test_a_piecewise_linear_backward_is_refused_or_taken_row_by_row(
    rule: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """A trial with random numbers may stay within one piece; what comes out is never wrong."""
    bent = with_backward(rule)

    def func(x: Tensor) -> Tensor:
        return structured(bent(x))

    for x in (torch.rand(4), torch.rand(4) + 0.5):
        y = x.clone().requires_grad_()
        refused_or_right(lambda x=x: pb.jacobian(func, layout=CSR)(x), func, x)
        refused_or_right(lambda x=x: pb.jacobian(func)(x), func, x)
        refused_or_right(lambda y=y: pb.jacobian_of(func(y), y), func, x)


def test_the_refusal_names_the_operator_and_says_what_to_do() -> None:
    with pytest.raises(pb.UnsupportedError) as caught:
        pb.plan_jacobian(with_backward(BENT["clamp"]), torch.rand(4))
    text = str(caught.value)
    assert text.startswith("plan_jacobian: the backward is not linear in its cotangent at clamp")
    assert text.endswith(
        "ask torch.func.jacrev, which applies it to one unit cotangent after the other."
    )


def test_a_straight_backward_in_odd_clothes_is_not_refused() -> None:
    straight: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda g, x: g,
        lambda g, x: 2 * g - 3 * g.flip(0),
        lambda g, x: g * x.exp(),
        lambda g, x: torch.where(x > 0.7, g, -g),
        lambda g, x: g.cumsum(0),
        lambda g, x: g.masked_fill(x > 0.7, 0.0),
        lambda g, x: g.float().double(),
        lambda g, x: torch.zeros_like(g),
        lambda g, x: g.new_zeros(4).index_add(0, torch.tensor([0, 0, 2, 3]), g),
        lambda g, x: g @ torch.outer(x, x),
        lambda g, x: torch.fft.irfft(torch.fft.rfft(g), n=4),
    ]
    for k, rule in enumerate(straight):
        bent = with_backward(rule)
        close = 1e-6 if k == 6 else 1e-8
        assert_right_everywhere(
            lambda x, bent=bent: structured(bent(x)), torch.rand(4), close=close
        )


def test_a_hook_that_scales() -> None:
    def func(x: Tensor) -> Tensor:
        h = x.sin()
        h.register_hook(lambda g: 2 * g)
        return h * h.roll(1)

    assert_right_everywhere(func, torch.rand(4))


def test_the_same_bend_where_no_cotangent_passes_does_no_harm() -> None:
    bent = with_backward(BENT["clamp"])
    assert_right_everywhere(lambda x: bent(x).detach() * x**2, torch.rand(4))


def test_torchs_own_formulas_are_never_refused() -> None:
    """They use comparisons and norms of cotangents in pairs that are linear together."""
    A = torch.rand(3, 3) + 3 * torch.eye(3)
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: x / x.norm(),
        lambda x: x.softmax(0),
        lambda x: torch.linalg.solve(A + torch.diag(x), x),
        lambda x: torch.linalg.eigvalsh(A @ A.T + torch.diag(x)),
        lambda x: torch.linalg.qr(A + torch.diag(x))[0],
        lambda x: torch.func.grad(lambda t: (t**3).sum())(x),
    ]
    for func in functions:
        assert_right_everywhere(func, torch.rand(3) + 0.5)
