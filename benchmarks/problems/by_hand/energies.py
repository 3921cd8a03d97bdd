"""Hand-written Hessians of sums along a line, and of dense losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stencils import band

Places = NDArray[np.int64]
Values = Callable[[Tensor], Tensor]


def rosenbrock(x: Tensor) -> tuple[Places, Places, Values]:
    """Tridiagonal: in CSR order every third value is of the same diagonal."""
    n = x.numel()
    rows, cols, _ = band(n, 1)

    def values(x: Tensor) -> Tensor:
        entries = x.new_empty(3 * n - 2)
        before = x[:-1]
        torch.mul(before, -400, out=entries[1::3])
        entries[2::3] = entries[1::3]
        main = entries[0::3]
        main.fill_(200)
        main[:1] = 0
        main[:-1] += 1200 * before * before - 400 * x[1:] + 2
        return entries

    return rows, cols, values


def arrowhead(x: Tensor) -> tuple[Places, Places, Values]:
    """Two entries a row, the diagonal and the last column; then the last row."""
    n = x.numel()
    ids = np.arange(n)
    last = np.full(n - 1, n - 1)
    rows = np.concatenate([np.repeat(ids[:-1], 2), np.full(n, n - 1)])
    cols = np.concatenate([np.stack([ids[:-1], last], 1).reshape(-1), ids])

    def values(x: Tensor) -> Tensor:
        entries = x.new_empty(3 * n - 2)
        shaft, tip = x[:-1], x[-1]
        four, tip_square = 4 * shaft * shaft, tip * tip
        border = entries[2 * n - 2 : -1]
        torch.mul(shaft, 8 * tip, out=border)
        pairs = entries[: 2 * n - 2].view(-1, 2)
        torch.add(3 * four, tip_square, alpha=4, out=pairs[:, 0])
        pairs[:, 1] = border
        entries[-1] = four.sum() + 12 * (n - 1) * tip_square
        return entries

    return rows, cols, values


def band_quartic(x: Tensor) -> tuple[Places, Places, Values]:
    """Nine entries a row: sums of 12 s² over the windows s that hold both elements."""
    n = x.numel()
    rows, cols, inside = band(n, 4)
    kept = torch.from_numpy(np.flatnonzero(inside))

    def values(x: Tensor) -> Tensor:
        window = x[:-4] + x[1:-3] + x[2:-2] + x[3:-1] + x[4:]
        bend = torch.nn.functional.pad(12 * window * window, (4, 4))
        entries = x.new_empty(n, 9)
        shared = bend  # of 5 - away windows in a row
        for away in (4, 3, 2, 1, 0):
            entries[: n - away, 4 + away] = entries[away:, 4 - away] = shared[away:n]
            shared = shared[:-1] + bend[5 - away :]
        return entries.view(-1)[kept]

    return rows, cols, values


def broyden_squares(x: Tensor) -> tuple[Places, Places, Values]:
    """Five entries a row: 2 (JᵀJ - 4 diag r), J tridiagonal with the slopes 3 - 4x."""
    n = x.numel()
    rows, cols, inside = band(n, 2)
    kept = torch.from_numpy(np.flatnonzero(inside))
    template = x.new_full((n, 5), 4.0)
    template[:, 2] = 10
    template[0, 2], template[-1, 2] = 2, 8

    def values(x: Tensor) -> Tensor:
        around = torch.nn.functional.pad(x, (1, 1))
        slope = 3 - 4 * x
        residual = (3 - 2 * x) * x - around[:-2] - 2 * around[2:] + 1
        entries = template.clone()
        entries[:, 2] += 2 * slope * slope - 8 * residual
        entries[:-1, 3] = entries[1:, 1] = -4 * slope[:-1] - 2 * slope[1:]
        return entries.view(-1)[kept]

    return rows, cols, values


def logsumexp_rows(x: Tensor, mix: Tensor) -> tuple[Places, Places, Values]:
    """A block a row, M diag(p) Mᵀ - (M p)(M p)ᵀ: one product with all pairs of rows of M."""
    count, inputs = x.shape
    ids = np.arange(x.numel()).reshape(count, inputs)
    shape = (count, inputs, inputs)
    rows, cols = np.broadcast_to(ids[:, :, None], shape), np.broadcast_to(ids[:, None], shape)
    pairs = (mix[:, None] * mix[None]).reshape(-1, mix.shape[1]).t().contiguous()

    def values(x: Tensor) -> Tensor:
        weights = (x @ mix).softmax(1)
        mean = weights @ mix.t()
        blocks = (weights @ pairs).view(shape)
        blocks -= mean[:, :, None] * mean[:, None]
        return blocks.view(-1)

    return rows, cols, values


def mlp_loss(x: Tensor, first: Tensor, second: Tensor) -> tuple[Places, Places, Values]:
    rows, cols = np.indices((x.numel(), x.numel()))

    def values(x: Tensor) -> Tensor:
        bent = (x @ first).tanh()
        slope = 1 - bent * bent
        jacobian = (second.t() * slope) @ first.t()
        curved = -4 * (second @ (bent @ second)) * bent * slope
        return torch.addmm((first * curved) @ first.t(), jacobian.t(), jacobian, alpha=2).view(-1)

    return rows, cols, values


def logistic(x: Tensor, signed: Tensor) -> tuple[Places, Places, Values]:
    rows, cols = np.indices((x.numel(), x.numel()))
    unit = torch.eye(x.numel(), dtype=x.dtype)

    def values(x: Tensor) -> Tensor:
        chance = (signed @ x).sigmoid()
        return torch.addmm(unit, signed.t() * (chance * (1 - chance)), signed).view(-1)

    return rows, cols, values
