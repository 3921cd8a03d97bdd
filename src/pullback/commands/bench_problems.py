"""What ``pullback bench`` measures: functions in the words that torch and jax.numpy share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """``func(xp, x, *constants)``, where ``xp`` is torch or jax.numpy; ``arrays`` gives ``x`` and
    the constants."""

    about: str
    func: Callable[..., Any]
    arrays: Callable[[np.random.Generator], tuple[NDArray[Any], ...]]

    def in_torch(self) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        x, *constants = map(torch.from_numpy, self.arrays(np.random.default_rng(0)))
        return lambda x: self.func(torch, x, *constants), x

    def in_jax(self, xp: Any) -> tuple[Callable[[Any], Any], Any]:
        """Index arrays stay NumPy's: constants of the trace, which the detection can read."""
        arrays = self.arrays(np.random.default_rng(0))
        x, *constants = (xp.asarray(a) if a.dtype.kind == "f" else a for a in arrays)
        return lambda x: self.func(xp, x, *constants), x


def _brusselator(xp: Any, x: Any) -> Any:
    u, v = x[0], x[1]
    beside = xp.roll(x, 1, 1) + xp.roll(x, -1, 1) + xp.roll(x, 1, 2) + xp.roll(x, -1, 2)
    reaction = xp.stack([1 + u**2 * v - 4.4 * u, 3.4 * u - u**2 * v])
    return reaction + 0.02 * x.shape[-1] ** 2 * (beside - 4 * x)


def _burgers(xp: Any, u: Any) -> Any:
    left, here, right = u[:-2], u[1:-1], u[2:]
    return 0.1 * (left - 2 * here + right) - here * (right - left) / 2


def _heat(xp: Any, u: Any) -> Any:
    down, across = u[:, 1:-1], u[1:-1]
    south = _flow(down[1:], down[:-1])
    east = _flow(across[:, 1:], across[:, :-1])
    return south[1:] - south[:-1] + east[:, 1:] - east[:, :-1]


def _flow(here: Any, before: Any) -> Any:
    return (1 + ((here + before) / 2) ** 2) * (here - before)


def _mlp(xp: Any, x: Any, first: Any, second: Any) -> Any:
    return xp.tanh(x @ first) @ second


def _transpose(xp: Any, x: Any) -> Any:
    return ((x + 1) ** 2).T


def _springs(xp: Any, x: Any, tail: Any, head: Any) -> Any:
    apart = x[head] - x[tail]
    return (1 - 1 / xp.sqrt((apart**2).sum(1)))[:, None] * apart


def _mlp_arrays(draw: np.random.Generator) -> tuple[NDArray[Any], ...]:
    sizes = (128, 16), (16, 32), (32, 8)
    return tuple(draw.standard_normal(size) / 4 for size in sizes)


def _springs_arrays(draw: np.random.Generator) -> tuple[NDArray[Any], ...]:
    points, springs = 500, 1500
    tail = draw.integers(points, size=springs)
    head = (tail + draw.integers(1, points, size=springs)) % points
    return draw.standard_normal((points, 3)), tail, head


def _normal(*shape: int) -> Callable[[np.random.Generator], tuple[NDArray[Any], ...]]:
    return partial(_drawn, shape)


def _drawn(shape: tuple[int, ...], draw: np.random.Generator) -> tuple[NDArray[Any], ...]:
    return (draw.standard_normal(shape),)


PROBLEMS: dict[str, Problem] = {
    "brusselator": Problem("two species on a 32 × 32 torus", _brusselator, _normal(2, 32, 32)),
    "burgers": Problem("Burgers' equation at 2,000 points", _burgers, _normal(2000)),
    "heat": Problem("nonlinear conduction on 48 × 48 points", _heat, _normal(48, 48)),
    "mlp": Problem("a network 16-32-8, sample by sample, 128 samples", _mlp, _mlp_arrays),
    "transpose": Problem("((x + 1)²)ᵀ of 40 × 50", _transpose, _normal(40, 50)),
    "springs": Problem("1,500 springs between 500 points in space", _springs, _springs_arrays),
}
