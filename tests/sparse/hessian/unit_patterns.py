"""Small expressions with the Hessian pattern that their second derivatives have.

The list of expressions, and the pattern that another detector expects of each, are those of
``test/test_hessian.jl`` of SparseConnectivityTracer.jl (commit 2ab7dda944c3): what it traces for all
points, and what it traces at one point, of which a pattern for all points has to hold the union.
Julia's ``x[1]`` is ``x[0]`` here. Types, number-theoretic predicates and its tests of its own
tracers cannot be said in torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .functions import Bools, Func


class Case(NamedTuple):
    """``rows`` is the exact pattern over all points, "01/10" for two rows; ``n`` 0 is a number."""

    name: str
    n: int
    func: Func
    rows: str

    @property
    def pattern(self) -> Bools:
        return mask(self.rows)

    def point(self, seed: int) -> Tensor:
        """Somewhere between -1/2 and 3/2: on both sides of what the expressions compare with."""
        shape = (self.n,) if self.n else ()
        generator = torch.Generator().manual_seed(100 + seed)
        return 2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 0.5


def mask(rows: str) -> Bools:
    return np.array([[int(entry) for entry in row] for row in rows.split("/")], dtype=bool)


def zeros(n: int) -> str:
    return "/".join(["0" * n] * n)


NUMBERS: list[tuple[str, Func, str]] = [
    ("identity", lambda x: x, "0"),
    ("sqrt", torch.sqrt, "1"),
    ("1 * x", lambda x: 1 * x, "0"),
    ("x * 1", lambda x: x * 1, "0"),
    ("sign", torch.sign, "0"),
    ("typemax", lambda x: torch.full_like(x, torch.finfo(x.dtype).max), "0"),
    ("x ** (2/3)", lambda x: x ** (2 / 3), "1"),
    ("(2/3) ** x", lambda x: (2 / 3) ** x, "1"),
    ("x ** e", lambda x: x**math.e, "1"),
    ("e ** x", lambda x: math.e**x, "1"),
    ("0", torch.zeros_like, "0"),
    ("sin + cos of degrees", lambda x: torch.deg2rad(x).sin() + torch.deg2rad(x).cos(), "1"),
    ("round", torch.round, "0"),
    ("round to int", lambda x: x.round().to(torch.int64).to(x.dtype), "0"),
    ("round to bool", lambda x: x.round().bool().to(x.dtype), "0"),
    ("round to half", lambda x: x.round().half().to(x.dtype), "0"),
    ("round away from zero", lambda x: torch.sign(x) * torch.floor(x.abs() + 0.5), "0"),
    ("round to digits", lambda x: torch.round(x, decimals=3), "0"),
    ("clamp to numbers", lambda x: torch.clamp(x, 0.1, 0.9), "0"),
    ("fma(x, 1, 1)", lambda x: torch.addcmul(x.new_ones(()), x, x.new_ones(())), "0"),
    ("fma(1, x, 1)", lambda x: torch.addcmul(x.new_ones(()), x.new_ones(()), x), "0"),
    ("fma(1, 1, x)", lambda x: torch.addcmul(x, x.new_ones(()), x.new_ones(())), "0"),
    ("x * clamp(x, 0, 1)", lambda x: x * x.clamp(0.0, 1.0), "1"),
    ("0 ** (2/3)", lambda x: torch.zeros_like(x) ** (2 / 3), "0"),
    ("(2/3) ** 0", lambda x: (2 / 3) ** torch.zeros_like(x), "0"),
    ("0 ** e", lambda x: torch.zeros_like(x) ** math.e, "0"),
    ("e ** 0", lambda x: math.e ** torch.zeros_like(x), "0"),
    ("a random number", lambda x: torch.full_like(x, 0.3), "0"),
]

# Casts to integers end the graph in torch.
FLOATS = (torch.float64, torch.float32, torch.bfloat16)
WHOLE = (torch.int64, torch.uint8, torch.bool)


def _of_casts() -> Iterator[tuple[str, Func, str]]:
    for kind in FLOATS:
        yield f"to {kind}", lambda x, to=kind: x.to(to).double(), "0"
        yield f"square to {kind}", lambda x, to=kind: (x**2).to(to).double(), "1"
        yield f"square of {kind}", lambda x, to=kind: (x.to(to) ** 2).double(), "1"
    for kind in WHOLE:
        yield f"to {kind}", lambda x, to=kind: x.to(to).double(), "0"
        yield f"square to {kind}", lambda x, to=kind: (x**2).to(to).double(), "0"
        yield f"square of {kind}", lambda x, to=kind: x.to(to).double() ** 2, "0"


def _clamp(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    low, high = torch.as_tensor(low, dtype=x.dtype), torch.as_tensor(high, dtype=x.dtype)
    return torch.clamp(x, low, high)


def _sums(x: Tensor) -> Tensor:
    return x[0] + x[1] * x[2] + 1 / x[3] + 1 * x[4]


def _ampgo07(x: Tensor) -> Tensor:
    wall = (x[0] <= 0) * torch.full((), 1e300, dtype=x.dtype)
    return wall + x[0].sin() + (10 / 3 * x[0]).sin() + x[0].abs().log() - 0.84 * x[0] + 3


def _dead_end(x: Tensor) -> Tensor:
    _ = x[0] * x[1]
    return x[2] * x[3]


ONES = "1111/1111/1111/1111"

VECTORS: list[tuple[str, int, Func, str]] = [
    ("sum of diff ** 3", 4, lambda x: (x.diff() ** 3).sum(), "1100/1110/0111/0011"),
    ("clamp(x0, x1, 0.9)", 2, lambda x: _clamp(x[0], x[1], 0.9), zeros(2)),
    ("clamp(x0, 0.1, x1)", 2, lambda x: _clamp(x[0], 0.1, x[1]), zeros(2)),
    ("clamp(x0, x1, x2)", 3, lambda x: _clamp(x[0], x[1], x[2]), zeros(3)),
    ("x0 * clamp", 3, lambda x: x[0] * _clamp(x[0], x[1], x[2]), "111/100/100"),
    ("x1 * clamp", 3, lambda x: x[1] * _clamp(x[0], x[1], x[2]), "010/111/010"),
    ("x2 * clamp", 3, lambda x: x[2] * _clamp(x[0], x[1], x[2]), "001/001/111"),
    ("fma(x0, x1, 1)", 2, lambda x: torch.addcmul(x.new_ones(()), x[0], x[1]), "01/10"),
    ("fma(x0, 1, x1)", 2, lambda x: torch.addcmul(x[1], x[0], x.new_ones(())), zeros(2)),
    ("fma(x0, x1, x2)", 3, lambda x: torch.addcmul(x[2], x[0], x[1]), "010/100/000"),
    (
        "quotients",
        4,
        lambda x: x[0] / x[1] + x[2] / 1 + 1 / x[3],
        "0100/1100/0000/0001",
    ),
    ("products", 4, lambda x: x[0] * x[1] + x[2] * 1 + 1 * x[3], "0100/1000/0000/0000"),
    ("product of products", 4, lambda x: (x[0] * x[1]) * (x[2] * x[3]), "0111/1011/1101/1110"),
    ("product of sums", 4, lambda x: (x[0] + x[1]) * (x[2] + x[3]), "0011/0011/1100/1100"),
    ("square of a sum", 4, lambda x: (x[0] + x[1] + x[2] + x[3]) ** 2, ONES),
    ("inverse of a sum", 4, lambda x: 1 / (x[0] + x[1] + x[2] + x[3]), ONES),
    ("differences", 4, lambda x: (x[0] - x[1]) + (x[2] - 1) + (1 - x[3]), zeros(4)),
    ("sums", 5, _sums, "00000/00100/01000/00010/00000"),
    ("sums and a power", 5, lambda x: _sums(x) + x[1] ** x[4], "00000/01101/01000/00010/01001"),
    (
        "copysign",
        4,
        lambda x: torch.copysign(x[0] * x[1], x[2] * x[3]),
        "0100/1000/0000/0000",
    ),
    (
        "floor division",
        4,
        lambda x: torch.div(x[0] * x[1], x[2] * x[3], rounding_mode="floor").detach(),
        zeros(4),
    ),
    ("dead end", 4, _dead_end, "0000/0000/0001/0010"),
    (
        "where of two",
        4,
        lambda x: torch.where(x[0] > 0.5, x[0] ** x[1], x[2] * x[3]),
        "1100/1100/0001/0010",
    ),
    (
        "where or a number",
        4,
        lambda x: torch.where(x[0] > 0.5, x[0] ** x[1], 1.0),
        "1100/1100/0000/0000",
    ),
    (
        "where of a number or",
        4,
        lambda x: torch.where(x[0] > 0.5, 1.0, x[2] * x[3]),
        "0000/0000/0001/0010",
    ),
    ("ampgo07", 1, _ampgo07, "1"),
    ("0 * x ** 2", 1, lambda x: 0 * x[0] ** 2, "0"),
    ("x ** 2 * 0", 1, lambda x: x[0] ** 2 * 0, "0"),
    (
        "x1 * max(x0, x4)",
        5,
        lambda x: x[0] + x[1] * x[2] + 1 / x[3] + x[1] * torch.maximum(x[0], x[4]),
        "01000/10101/01000/00010/01000",
    ),
    (
        "where of x1 < x2",
        4,
        lambda x: torch.where(x[1] < x[2], x[0] * x[1], x[2] * x[3]),
        "0100/1000/0001/0010",
    ),
    ("sum * clamp below", 2, lambda x: x.sum() * _clamp(x[0], x[1], 1.0), "11/11"),
    ("sum * clamp above", 2, lambda x: x.sum() * _clamp(x[0], 0.0, x[1]), "11/11"),
    ("sum * clamp", 3, lambda x: x.sum() * _clamp(x[0], x[1], x[2]), "111/111/111"),
]

CASES: dict[str, Case] = {
    case.name: case
    for case in [
        *(Case(name, 0, func, rows) for name, func, rows in NUMBERS),
        *(Case(name, 0, func, rows) for name, func, rows in _of_casts()),
        *(Case(*entry) for entry in VECTORS),
    ]
}

# Where the other detector expects another pattern: its own, and the reason.
OTHERS: dict[str, tuple[str, str]] = {
    "0 * x ** 2": ("1", "it keeps what a factor of zero removes"),
    "x ** 2 * 0": ("1", "it keeps what a factor of zero removes"),
    "square to torch.int64": ("1", "a cast to integers ends torch's graph"),
    "square to torch.uint8": ("1", "a cast to integers ends torch's graph"),
    "square to torch.bool": ("1", "a cast to integers ends torch's graph"),
    "square of torch.int64": ("1", "a cast to integers ends torch's graph"),
    "square of torch.uint8": ("1", "a cast to integers ends torch's graph"),
    "square of torch.bool": ("1", "a cast to integers ends torch's graph"),
}

# Where ours is looser than what is possible: its own, the reason, and the nodes that couple it.
LOOSER: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "copysign": (
        "1100/1100/0000/0000",
        "torch divides the result by the input, whose derivative cancels but for rounding",
        ("MaskedFillBackward0", "DivBackward0"),
    ),
}
