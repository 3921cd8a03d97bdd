"""Functions whose backward is known to be honest or false, on which a test is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checking import generator

Apply = Callable[[Tensor], Tensor]

RELATIVE = (
    "values may be of any size: compare the gap with the two sides, as in gap <= 1e-6 * "
    "max(abs(forward), abs(backward)), not with a fixed number."
)


@dataclass(frozen=True)
class Specimen:
    """``text`` tells forward and backward; ``hint`` is for who takes it for the other kind."""

    text: str
    apply: Apply
    x: Tensor
    honest: bool
    hint: str


def made(forward: Apply, pull: Callable[[Tensor, Tensor], Tensor]) -> Apply:
    """The ``apply`` of a Function with ``pull(x, v)`` for its backward."""

    class Made(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return forward(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Tensor:
            (x,) = ctx.saved_tensors
            return pull(x, cotangents[0])

    apply: Apply = Made.apply
    return apply


def _drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(12), dtype=torch.float64)


def _one_entry(x: Tensor, v: Tensor) -> Tensor:
    factor = torch.ones_like(x)
    factor[-1, -1] = 1.01
    return factor * x.cos() * v


def _cube(x: Tensor) -> Tensor:
    return (x + 10).pow(3).t()


def specimens() -> list[Specimen]:
    """Honest ones first, then false ones, the plainest of them first."""
    return [
        Specimen(
            "y = (x + 10).pow(3).t(), an honest backward",
            made(_cube, lambda x, v: 3 * (x + 10).pow(2) * v.t()),
            torch.eye(4, 5, dtype=torch.float64),
            True,
            "differences are not exact: central ones with h near 1e-5 agree to some nine digits, "
            "so equal to within 1e-6, relatively, is equal.",
        ),
        Specimen(
            "y = x.sum(0), an honest backward",
            made(lambda x: x.sum(0), lambda x, v: v.expand_as(x)),
            _drawn(3, 4),
            True,
            "w weighs the output and has the shape of f(x); t moves the input and has that of x.",
        ),
        Specimen(
            "y = 1e6 * x.cumsum(0), an honest backward",
            made(
                lambda x: 1e6 * x.cumsum(0),
                lambda x, v: 1e6 * v.flip(0).cumsum(0).flip(0),
            ),
            _drawn(5, 3),
            True,
            RELATIVE,
        ),
        Specimen(
            "y = (x + 10).pow(3).t(), a backward with 6 for 3",
            made(_cube, lambda x, v: 6 * (x + 10).pow(2) * v.t()),
            torch.eye(4, 5, dtype=torch.float64),
            False,
            "a factor 2 went through. Is <w, J t> from forward alone? pb.jvp and torch's "
            "autograd take it from the backward that is on trial.",
        ),
        Specimen(
            "y = x.roll(1, 0), a backward that returns v as it is",
            made(lambda x: x.roll(1, 0), lambda x, v: v),
            _drawn(4, 3),
            False,
            "a permutation went through. Ones look the same in any order, and so does what meets "
            "them: draw w and t at random, both.",
        ),
        Specimen(
            "y = x.sin(), a backward whose last entry is 1 % too large",
            made(torch.sin, _one_entry),
            _drawn(3, 4),
            False,
            "one entry is off by 1 %. Every entry of w and t has to take part, and the tolerance "
            "has to be well below that.",
        ),
        Specimen(
            "y = x.sin(), a backward with v.abs() for v",
            made(torch.sin, lambda x, v: x.cos() * v.abs()),
            _drawn(6, 5),
            False,
            "a backward with v.abs() went through: it is right for every w >= 0, the unit "
            "cotangents of gradcheck among them. Draw w with both signs.",
        ),
        Specimen(
            "y = x.sin(), a backward that clips v to [-1, 1]",
            made(torch.sin, lambda x, v: x.cos() * v.clamp(-1, 1)),
            _drawn(6, 5),
            False,
            "a clipped v went through: your w stayed within [-1, 1]. Draw it larger, randn or "
            "more.",
        ),
        Specimen(
            "y = 1e-9 * x.sin(), a backward that is twice too large",
            made(lambda x: 1e-9 * x.sin(), lambda x, v: 2e-9 * x.cos() * v),
            _drawn(3, 4),
            False,
            RELATIVE,
        ),
    ]
