"""The numbers of every problem, in NumPy alone: the argument and what the function closes over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import bundle
from .catalogue import Problem

Arrays = dict[str, NDArray[np.generic]]
Floats = NDArray[np.float64]


def arrays(problem: Problem) -> Arrays:
    """The argument ``x`` of a problem and the constants of its function, by name."""
    if problem.source:
        return bundle.from_file(Path(problem.source))
    return DRAWN[problem.kind](np.random.default_rng(0), *problem.size)


def _brusselator(draw: np.random.Generator, n: int) -> Arrays:
    return {"x": 1 + draw.random((2, n, n))}


def _line(draw: np.random.Generator, n: int) -> Arrays:
    return {"x": draw.standard_normal(n)}


def _square(draw: np.random.Generator, n: int) -> Arrays:
    return {"x": draw.standard_normal((n, n))}


def _shallow_water(draw: np.random.Generator, n: int) -> Arrays:
    """Height, then the two velocities."""
    fields = 0.1 * draw.standard_normal((3, n, n))
    fields[0] += 1
    return {"x": fields}


def _kernel(draw: np.random.Generator, channels: int, out: int) -> Floats:
    kernel: Floats = draw.standard_normal((out, channels, 3, 3)) / np.sqrt(9 * channels)
    return kernel


def _conv_tanh(draw: np.random.Generator, side: int, channels: int, out: int, pad: int) -> Arrays:
    """``pad`` rows and columns of zeros go around the image."""
    return {
        "x": draw.standard_normal((1, channels, side, side)),
        "kernel": _kernel(draw, channels, out),
        "pad": np.asarray(pad),
    }


def _conv_relu_conv(draw: np.random.Generator, side: int, channels: int) -> Arrays:
    return {
        "x": draw.standard_normal((1, channels, side, side)),
        "first": _kernel(draw, channels, channels),
        "second": _kernel(draw, channels, channels),
    }


def _layers(draw: np.random.Generator, inputs: int, hidden: int, outputs: int) -> Arrays:
    return {
        "first": draw.standard_normal((inputs, hidden)) / np.sqrt(inputs),
        "second": draw.standard_normal((hidden, outputs)) / np.sqrt(hidden),
    }


def _persample_mlp(draw: np.random.Generator, batch: int, *sizes: int) -> Arrays:
    return {"x": draw.standard_normal((batch, sizes[0])), **_layers(draw, *sizes)}


def _mlp(draw: np.random.Generator, *sizes: int) -> Arrays:
    return {"x": draw.standard_normal(sizes[0]), **_layers(draw, *sizes)}


def _transpose(draw: np.random.Generator, rows: int, columns: int) -> Arrays:
    return {"x": draw.standard_normal((rows, columns))}


def _gather_scatter(draw: np.random.Generator, nodes: int, edges: int) -> Arrays:
    tail = draw.integers(nodes, size=edges)
    return {
        "x": draw.standard_normal(nodes),
        "tail": tail,
        "head": (tail + draw.integers(1, nodes, size=edges)) % nodes,
        "weight": draw.uniform(0.5, 1.5, edges),
    }


def _attention(draw: np.random.Generator, length: int, width: int) -> Arrays:
    def projection() -> Floats:
        matrix: Floats = draw.standard_normal((width, width)) / np.sqrt(width)
        return matrix

    return {
        "x": draw.standard_normal((length, width)),
        "query": projection(),
        "key": projection(),
        "value": projection(),
        "later": np.triu(np.ones((length, length), dtype=bool), 1),
    }


def _fem_p1(draw: np.random.Generator, n: int) -> Arrays:
    """n × n vertices of the unit square, moved a little; two triangles in every cell.

    ``stiffness`` holds area · B Bᵀ of every triangle, the rows of B being the gradients of its
    three linear basis functions.
    """
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), -1).reshape(-1, 2)
    place = grid + draw.uniform(-0.2, 0.2, grid.shape) / n
    ids = np.arange(n * n).reshape(n, n)
    a, b, c, d = (
        part.reshape(-1) for part in (ids[:-1, :-1], ids[1:, :-1], ids[:-1, 1:], ids[1:, 1:])
    )
    triangles = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    corners = place[triangles]
    opposite = np.roll(corners, -1, 1) - np.roll(corners, -2, 1)
    edges = corners[:, 1:] - corners[:, :1]
    twice = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    return {
        "x": draw.standard_normal(n * n),
        "triangles": triangles,
        "stiffness": opposite @ opposite.transpose(0, 2, 1) / (2 * twice[:, None, None]),
    }


def _springs3d(draw: np.random.Generator, n: int) -> Arrays:
    """A net of n × n masses in space, springs between neighbors along both axes."""
    ids = np.arange(n * n).reshape(n, n)
    tail = np.concatenate([ids[:-1].reshape(-1), ids[:, :-1].reshape(-1)])
    head = np.concatenate([ids[1:].reshape(-1), ids[:, 1:].reshape(-1)])
    flat = np.stack([*np.divmod(ids.reshape(-1), n), np.zeros(n * n)], 1)
    return {
        "x": flat + 0.2 * draw.standard_normal((n * n, 3)),
        "tail": tail,
        "head": head,
        "rest": draw.uniform(0.8, 1.2, len(tail)),
    }


def _graph_quartic(draw: np.random.Generator, nodes: int, elements: int) -> Arrays:
    graph = _gather_scatter(draw, nodes, elements)
    return {
        "x": graph["x"],
        "first": graph["tail"],
        "second": graph["head"],
        "third": draw.integers(nodes, size=elements),
        "weight": graph["weight"],
    }


def _spring_energy(draw: np.random.Generator, nodes: int, springs: int) -> Arrays:
    """Springs between any two masses: no grid behind them."""
    graph = _gather_scatter(draw, nodes, springs)
    return {
        "x": draw.standard_normal((nodes, 3)),
        "tail": graph["tail"],
        "head": graph["head"],
        "rest": graph["weight"],
    }


def _logsumexp_rows(draw: np.random.Generator, rows: int, inputs: int, classes: int) -> Arrays:
    return {
        "x": draw.standard_normal((rows, inputs)),
        "mix": draw.standard_normal((inputs, classes)) / np.sqrt(inputs),
    }


def _logistic(draw: np.random.Generator, features: int, samples: int) -> Arrays:
    """``signed`` holds a row per sample: its features times its label, 1 or -1."""
    return {
        "x": draw.standard_normal(features) / np.sqrt(features),
        "signed": draw.standard_normal((samples, features)),
    }


DRAWN: dict[str, Callable[..., Arrays]] = {
    "brusselator2d": _brusselator,
    "burgers1d": _line,
    "heat5": _square,
    "shallow_water": _shallow_water,
    "conv_tanh": _conv_tanh,
    "conv_relu_conv": _conv_relu_conv,
    "persample_mlp": _persample_mlp,
    "transpose": _transpose,
    "gather_scatter": _gather_scatter,
    "attention": _attention,
    "fem_p1": _fem_p1,
    "springs3d": _springs3d,
    "bundle": bundle.drawn,
    "dense_mlp": _mlp,
    "wide_mlp": _mlp,
    "tall_mlp": _mlp,
    "rosenbrock": _line,
    "arrowhead": _line,
    "band_quartic": _line,
    "broyden_squares": _line,
    "minimal_surface": _square,
    "graph_quartic": _graph_quartic,
    "spring_energy": _spring_energy,
    "logsumexp_rows": _logsumexp_rows,
    "attention_energy": _attention,
    "mlp_loss": _mlp,
    "logistic": _logistic,
}
