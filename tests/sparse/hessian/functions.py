"""Scalar functions of one vector whose Hessian pattern follows from their definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bools = npt.NDArray[np.bool_]
Func = Callable[[Tensor], Tensor]


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def arrowhead(x: Tensor) -> Tensor:
    return (x[0] * x[1:] ** 2).sum() + (x**4).sum()


def banded_quartic(x: Tensor) -> Tensor:
    return sum(((x[k:] - x[: x.numel() - k]) ** 4).sum() for k in (1, 2, 3)) + (x**4).sum()


def minimal_surface(x: Tensor) -> Tensor:
    u = x.reshape(int(x.numel() ** 0.5), -1)
    down, right = u[1:, :-1] - u[:-1, :-1], u[:-1, 1:] - u[:-1, :-1]
    return (1 + down**2 + right**2).sqrt().sum()


def quotient(x: Tensor) -> Tensor:
    return x.sum() / x[0] + x[0] ** 4


def square_of_a_sum(x: Tensor) -> Tensor:
    return x.sum() ** 2


def sum_of_squares(x: Tensor) -> Tensor:
    return (x**2).sum()


def linear(x: Tensor) -> Tensor:
    return (x * torch.arange(x.numel(), dtype=x.dtype)).sum()


def band(n: int, width: int) -> Bools:
    k = np.arange(n)
    return np.abs(k[:, None] - k[None]) <= width


def arrow(n: int) -> Bools:
    mask = np.eye(n, dtype=bool)
    mask[0], mask[:, 0] = True, True
    return mask


def first_row_and_column(n: int) -> Bools:
    mask = np.zeros((n, n), dtype=bool)
    mask[0], mask[:, 0] = True, True
    return mask


def cells(n: int) -> Bools:
    """Every two of the three corners of a cell that its term reads."""
    side = int(n**0.5)
    mask = np.zeros((n, n), dtype=bool)
    for i in range(side - 1):
        for j in range(side - 1):
            corners = [i * side + j, (i + 1) * side + j, i * side + j + 1]
            mask[np.ix_(corners, corners)] = True
    return mask


PATTERNS: dict[Func, Callable[[int], Bools]] = {
    rosenbrock: lambda n: band(n, 1),
    arrowhead: arrow,
    banded_quartic: lambda n: band(n, 3),
    minimal_surface: cells,
    quotient: first_row_and_column,
    square_of_a_sum: lambda n: np.ones((n, n), dtype=bool),
    sum_of_squares: lambda n: np.eye(n, dtype=bool),
    linear: lambda n: np.zeros((n, n), dtype=bool),
}
