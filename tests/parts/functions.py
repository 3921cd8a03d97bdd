"""Functions whose parts are known, and a counter of the products that run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import pullback as pb
from pullback import _torch

_torch.load_forward_mode()

Func = Callable[..., Any]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def banded(half_width: int) -> Func:
    """A full band around the diagonal, on both sides."""

    def func(x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (half_width, half_width))
        wide = [padded[k : k + x.numel()] for k in range(2 * half_width + 1)]
        return (
            (torch.stack(wide).sin() * torch.arange(1.0, 2 * half_width + 2)[:, None])
            .sum(0)
            .square()
        )

    return func


def arrow(x: Tensor) -> Tensor:
    return torch.cat([x.square().sum()[None], x[0] * x[1:].sin()])


class Counting:
    """Counts the products that an operator takes, one by one and in batches."""

    def __init__(self, products: Any) -> None:
        self._products, self.count = products, 0

    def one(self, vectors: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self._products.one(vectors, *args, **kwargs)

    def many(self, batch: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        self.count += len(batch[0])
        return self._products.many(batch, *args, **kwargs)


def counted(operator: pb.JacobianOperator | pb.HessianOperator, call: Callable[[], Any]) -> int:
    """The products that ``call`` takes of ``operator``, whose structure is known by then."""
    operator.cost_of("diagonal")
    parts = operator._parts
    parts._structure.batches = True  # whether batches can be believed takes products to find out
    up, down = parts._up, parts._down
    counters = Counting(up), Counting(down)
    parts._up, parts._down = counters
    try:
        call()
    finally:
        parts._up, parts._down = up, down
    return sum(counter.count for counter in counters)
