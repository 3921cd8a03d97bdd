"""The problems of the Jacobian benchmarks: names, sizes and numbers, in NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Problem:
    """One function at one size; ``kind`` and ``size`` find it in every framework."""

    name: str
    kind: str
    size: tuple[int, ...]


QUICK = (
    Problem("Brusselator N=32", "brusselator", (32,)),
    Problem("conv 3×3, 28×28×3 → 2", "conv", (28, 3, 2, 0)),
    Problem("per-sample MLP 16-32-8, batch 32", "mlp", (32, 16, 32, 8)),
    Problem("elementwise (x+1)²ᵀ, 40×50", "elementwise", (40, 50)),
    Problem("gather, 8 cameras, 60 points, 300 views", "views", (8, 60, 300)),
)

FULL = (
    *(Problem(f"Brusselator N={n}", "brusselator", (n,)) for n in (32, 64, 128, 256, 512)),
    Problem("conv 3×3, 28×28×3 → 2", "conv", (28, 3, 2, 0)),
    Problem("conv 3×3 padded, 32×32×8 → 8", "conv", (32, 8, 8, 1)),
    Problem("per-sample MLP 16-32-8, batch 64", "mlp", (64, 16, 32, 8)),
    Problem("per-sample MLP 16-32-8, batch 1024", "mlp", (1024, 16, 32, 8)),
    Problem("elementwise (x+1)²ᵀ, 2000×2500", "elementwise", (2000, 2500)),
    Problem("gather, 8 cameras, 60 points, 300 views", "views", (8, 60, 300)),
    Problem("gather, 50 cameras, 5000 points, 20000 views", "views", (50, 5000, 20000)),
)


def arrays(problem: Problem) -> Arrays:
    """The argument ``x`` of a problem and the constants that its function closes over."""
    return ARRAYS[problem.kind](np.random.default_rng(0), *problem.size)


def _brusselator(draw: np.random.Generator, n: int) -> Arrays:
    return {"x": 1 + draw.random((2, n, n))}


def _conv(draw: np.random.Generator, side: int, channels: int, out: int, pad: int) -> Arrays:
    """``pad`` rows and columns of zeros go around the image."""
    kernel = draw.standard_normal((out, channels, 3, 3)) / np.sqrt(9 * channels)
    return {
        "x": draw.standard_normal((1, channels, side, side)),
        "kernel": kernel,
        "pad": np.asarray(pad),
    }


def _mlp(draw: np.random.Generator, batch: int, inputs: int, hidden: int, outputs: int) -> Arrays:
    return {
        "x": draw.standard_normal((batch, inputs)),
        "first": draw.standard_normal((inputs, hidden)) / np.sqrt(inputs),
        "second": draw.standard_normal((hidden, outputs)) / np.sqrt(hidden),
    }


def _elementwise(draw: np.random.Generator, rows: int, columns: int) -> Arrays:
    return {"x": draw.standard_normal((rows, columns))}


def _views(draw: np.random.Generator, cameras: int, points: int, views: int) -> Arrays:
    """``x`` holds cameras [rotation (3), translation (3), focal length, distortion (2)], then
    points (3)."""
    spread = np.array([0.1] * 3 + [0.2] * 3 + [0.1] + [0.01] * 2)
    middle = np.array([0.0] * 5 + [6.0] + [1.0] + [0.0] * 2)
    camera = middle + spread * draw.standard_normal((cameras, 9))
    point = draw.standard_normal((points, 3))
    return {
        "x": np.concatenate([camera.reshape(-1), point.reshape(-1)]),
        "cameras": np.asarray(cameras),
        "camera_of": draw.integers(cameras, size=views),
        "point_of": draw.integers(points, size=views),
        "seen": draw.standard_normal((views, 2)),
    }


ARRAYS: dict[str, Callable[..., Arrays]] = {
    "brusselator": _brusselator,
    "conv": _conv,
    "mlp": _mlp,
    "elementwise": _elementwise,
    "views": _views,
}
