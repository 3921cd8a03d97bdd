"""Objectives of the CUTEst collection, written from their formulas, each with its exact pattern.

Formulas: the problem definitions that CUTEst documents (N. Gould, D. Orban, Ph. Toint, "CUTEst",
Comput. Optim. Appl. 60, 2015) and the papers that they cite; x_1 is ``x[0]`` here. A pattern is the
union of the squares of variables that one nonlinear term couples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .functions import Bools, Func, arrow, band
from .masks import diagonal, full, squares_of


class Problem(NamedTuple):
    func: Func
    n: int
    pattern: Callable[[int], Bools]


def counted(x: Tensor, first: int = 1) -> Tensor:
    return torch.arange(first, first + x.numel(), dtype=x.dtype)


def tridiagonal(n: int) -> Bools:
    return band(n, 1)


def last_arrow(n: int) -> Bools:
    return arrow(n)[::-1, ::-1].copy()


def genrose(x: Tensor) -> Tensor:
    return 1 + (100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2).sum()


def chnrosnb(x: Tensor) -> Tensor:
    alpha = 1.5 + torch.sin(counted(x[1:]))
    return (16 * alpha**2 * (x[:-1] - x[1:] ** 2) ** 2 + (x[1:] - 1) ** 2).sum()


def arwhead(x: Tensor) -> Tensor:
    return ((x[:-1] ** 2 + x[-1] ** 2) ** 2 - 4 * x[:-1] + 3).sum()


def bdqrtic(x: Tensor) -> Tensor:
    m = x.numel() - 4
    parts = sum((k + 1) * x[k : k + m] ** 2 for k in range(4))
    return ((3 - 4 * x[:m]) ** 2 + (parts + 5 * x[-1] ** 2) ** 2).sum()


def of_bdqrtic(n: int) -> Bools:
    return squares_of(n, [(i, i + 1, i + 2, i + 3, n - 1) for i in range(n - 4)])


def dqdrtic(x: Tensor) -> Tensor:
    return (x[:-2] ** 2 + 100 * x[1:-1] ** 2 + 100 * x[2:] ** 2).sum()


def tridia(x: Tensor) -> Tensor:
    return (x[0] - 1) ** 2 + (counted(x[1:], 2) * (2 * x[1:] - x[:-1]) ** 2).sum()


def liarwhd(x: Tensor) -> Tensor:
    return (4 * (x**2 - x[0]) ** 2 + (x - 1) ** 2).sum()


def nondia(x: Tensor) -> Tensor:
    return (x[0] - 1) ** 2 + (100 * (x[0] - x[:-1] ** 2) ** 2).sum()


def of_nondia(n: int) -> Bools:
    return squares_of(n, [(0, i) for i in range(n - 1)])


def edensch(x: Tensor) -> Tensor:
    here, after = x[:-1], x[1:]
    return 16 + ((here - 2) ** 4 + (here * after - 2 * after) ** 2 + (after + 1) ** 2).sum()


def engval1(x: Tensor) -> Tensor:
    return ((x[:-1] ** 2 + x[1:] ** 2) ** 2).sum() + (3 - 4 * x[:-1]).sum()


def cosine(x: Tensor) -> Tensor:
    return torch.cos(x[:-1] ** 2 - 0.5 * x[1:]).sum()


def fletchcr(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] + 1 - x[:-1] ** 2) ** 2).sum()


def power(x: Tensor) -> Tensor:
    return (counted(x) * x**2).sum() ** 2


def woods(x: Tensor) -> Tensor:
    a, b, c, d = x.reshape(-1, 4).unbind(1)
    wells = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
    return (wells + 10 * (b + d - 2) ** 2 + 0.1 * (b - d) ** 2).sum()


def of_woods(n: int) -> Bools:
    pairs = [(k, k + 1) for k in range(0, n, 2)] + [(k + 1, k + 3) for k in range(0, n, 4)]
    return squares_of(n, pairs)


def srosenbr(x: Tensor) -> Tensor:
    return (100 * (x[1::2] - x[::2] ** 2) ** 2 + (1 - x[::2]) ** 2).sum()


def dixmaanb(x: Tensor) -> Tensor:
    m = x.numel() // 3
    bends = (x[:-1] ** 2 * (x[1:] + x[1:] ** 2) ** 2).sum()
    far = (x[: 2 * m] ** 2 * x[m:] ** 4).sum()
    farther = (x[:m] * x[2 * m :]).sum()
    return 1 + (x**2).sum() + 0.0625 * (bends + far + farther)


def of_dixmaanb(n: int) -> Bools:
    m = n // 3
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return np.isin(distance, [0, 1, m, 2 * m])


def arglinb(x: Tensor, equations: int = 20) -> Tensor:
    i = torch.arange(1, equations + 1, dtype=x.dtype)
    return ((i * (counted(x) * x).sum() - 1) ** 2).sum()


def cragglvy(x: Tensor) -> Tensor:
    a, b, c, d = x[:-3:2], x[1:-2:2], x[2:-1:2], x[3::2]
    first = (a.exp() - b) ** 4 + 100 * (b - c) ** 6
    return (first + torch.tan(c - d) ** 4 + a**8 + (d - 1) ** 2).sum()


def quartc(x: Tensor) -> Tensor:
    return ((x - counted(x)) ** 4).sum()


def penalty1(x: Tensor) -> Tensor:
    return 1e-5 * ((x - 1) ** 2).sum() + ((x**2).sum() - 0.25) ** 2


def morebv(x: Tensor) -> Tensor:
    h = 1 / (x.numel() + 1)
    padded = torch.cat([x.new_zeros(1), x, x.new_zeros(1)])
    bend = 2 * x - padded[:-2] - padded[2:]
    return ((bend + h**2 * (x + h * counted(x) + 1) ** 3 / 2) ** 2).sum()


def noncvxun(x: Tensor) -> Tensor:
    n = x.numel()
    i = torch.arange(1, n + 1)
    y = x + x[(2 * i - 1) % n] + x[(3 * i - 1) % n]
    return (y**2 + 4 * torch.cos(y)).sum()


def of_noncvxun(n: int) -> Bools:
    return squares_of(n, [(i - 1, (2 * i - 1) % n, (3 * i - 1) % n) for i in range(1, n + 1)])


def schmvett(x: Tensor) -> Tensor:
    a, b, c = x[:-2], x[1:-1], x[2:]
    bell = -1 / (1 + (a - b) ** 2)
    wave = -torch.sin((torch.pi * b + c) / 2)
    return (bell + wave - torch.exp(-(((a + c) / b - 2) ** 2))).sum()


def sinquad(x: Tensor) -> Tensor:
    inner = (torch.sin(x[1:-1] - x[-1]) - x[0] ** 2 + x[1:-1] ** 2) ** 2
    return (x[0] - 1) ** 4 + inner.sum() + (x[-1] ** 2 - x[0] ** 2) ** 2


def of_sinquad(n: int) -> Bools:
    return squares_of(n, [(0, i, n - 1) for i in range(1, n - 1)])


def brybnd(x: Tensor) -> Tensor:
    n = x.numel()
    wrong = x * (2 + 5 * x**2) + 1
    for k in (-1, 1, 2, 3, 4, 5):
        near = x[max(-k, 0) : n - max(k, 0)]
        near = near * (1 + near)
        wrong = wrong - torch.nn.functional.pad(near, (max(k, 0), max(-k, 0)))
    return (wrong**2).sum()


def of_brybnd(n: int) -> Bools:
    return squares_of(n, [range(max(i - 5, 0), min(i + 2, n)) for i in range(n)])


def broydn7d(x: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(x, (1, 1))
    here = (3 - 2 * x) * x - padded[:-2] - padded[2:] + 1
    half = x.numel() // 2
    return here.abs().pow(7 / 3).sum() + (x[:half] + x[half:]).abs().pow(7 / 3).sum()


def of_broydn7d(n: int) -> Bools:
    around = [range(max(i - 1, 0), min(i + 2, n)) for i in range(n)]
    return squares_of(n, [*around, *((i, i + n // 2) for i in range(n // 2))])


PROBLEMS: dict[str, Problem] = {
    "GENROSE": Problem(genrose, 24, tridiagonal),
    "CHNROSNB": Problem(chnrosnb, 24, tridiagonal),
    "ARWHEAD": Problem(arwhead, 24, last_arrow),
    "BDQRTIC": Problem(bdqrtic, 24, of_bdqrtic),
    "DQDRTIC": Problem(dqdrtic, 24, diagonal),
    "TRIDIA": Problem(tridia, 24, tridiagonal),
    "LIARWHD": Problem(liarwhd, 24, arrow),
    "NONDIA": Problem(nondia, 24, of_nondia),
    "EDENSCH": Problem(edensch, 24, tridiagonal),
    "ENGVAL1": Problem(engval1, 24, tridiagonal),
    "COSINE": Problem(cosine, 24, tridiagonal),
    "FLETCHCR": Problem(fletchcr, 24, tridiagonal),
    "POWER": Problem(power, 12, full),
    "WOODS": Problem(woods, 24, of_woods),
    "SROSENBR": Problem(
        srosenbr, 24, lambda n: squares_of(n, [(k, k + 1) for k in range(0, n, 2)])
    ),
    "DIXMAANB": Problem(dixmaanb, 24, of_dixmaanb),
    "ARGLINB": Problem(arglinb, 10, full),
    "CRAGGLVY": Problem(cragglvy, 24, tridiagonal),
    "QUARTC": Problem(quartc, 24, diagonal),
    "PENALTY1": Problem(penalty1, 12, full),
    "MOREBV": Problem(morebv, 24, lambda n: band(n, 2)),
    "NONCVXUN": Problem(noncvxun, 24, of_noncvxun),
    "SCHMVETT": Problem(schmvett, 24, lambda n: band(n, 2)),
    "SINQUAD": Problem(sinquad, 24, of_sinquad),
    "BRYBND": Problem(brybnd, 24, of_brybnd),
    "BROYDN7D": Problem(broydn7d, 24, of_broydn7d),
}


def arglina(x: Tensor, equations: int = 30) -> Tensor:
    """Its Hessian is twice the identity: what couples the residuals cancels."""
    mean = 2 / equations * x.sum()
    return ((x - mean - 1) ** 2).sum() + (equations - x.numel()) * (mean + 1) ** 2


# Where ours is looser than what is possible: the problem, the exact pattern, ours, the reason.
LOOSER: dict[str, tuple[Problem, Callable[[int], Bools], str]] = {
    "ARGLINA": (
        Problem(arglina, 10, diagonal),
        full,
        "terms of both sums cancel in the matrix, but not in what a backward computes",
    ),
}
