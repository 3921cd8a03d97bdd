"""Residuals, energies and networks, each with the exact pattern of its Hessian."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .functions import Bools, band
from .masks import Objective, blocks, diagonal, nothing, number, planes, squares_of

# Sums of squares of residuals, each of a few elements

EDGES = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [0, 4], [4, 5], [1, 5]])
TRIPLES = torch.tensor([[0, 3, 6], [1, 3, 7], [2, 0, 7], [5, 6, 1]])


def _springs(x: Tensor) -> Tensor:
    lengths = (x[EDGES[:, 0]] - x[EDGES[:, 1]]).norm(dim=1)
    return ((lengths - 0.3) ** 2).sum()


def _cameras(x: Tensor) -> Tensor:
    """Two views with three numbers each see four points of two."""
    views, points = x[:6].reshape(2, 3), x[6:].reshape(4, 2)
    which, seen = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 2, 3])
    view, point = views[which], points[seen]
    at = view[:, 0] * torch.tanh(point[:, 0]) + view[:, 1] * point[:, 1] * view[:, 2].exp()
    return (at - 0.5).square().sum()


SEEN = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3)]
OF_CAMERAS = squares_of(14, [[*range(3 * v, 3 * v + 3), 6 + 2 * p, 7 + 2 * p] for v, p in SEEN])

SQUARES: dict[str, Objective] = {
    "springs": Objective(
        _springs,
        (6, 2),
        squares_of(12, [[2 * a, 2 * a + 1, 2 * b, 2 * b + 1] for a, b in EDGES.tolist()]),
    ),
    "residuals of triples": Objective(
        lambda x: ((x[TRIPLES[:, 0]] * x[TRIPLES[:, 1]] - x[TRIPLES[:, 2]].exp()) ** 2).sum(),
        (8,),
        squares_of(8, TRIPLES.tolist()),
    ),
    "cameras": Objective(_cameras, (14,), OF_CAMERAS),
    "a robust loss of triples": Objective(
        lambda x: torch.log1p(x[TRIPLES].prod(1) ** 2).sum(),
        (8,),
        squares_of(8, TRIPLES.tolist()),
    ),
    "log-likelihood of a chain": Objective(
        lambda x: -(F.logsigmoid(x[1:] - x[:-1])).sum(), (7,), band(7, 1)
    ),
}

# Energies on grids


def cells(rows: int, cols: int, corners: Sequence[tuple[int, int]]) -> Bools:
    """Every two corners of a cell, wherever it lies on the grid."""
    down, across = (max(corner[k] for corner in corners) for k in (0, 1))
    starts = itertools.product(range(rows - down), range(cols - across))
    return squares_of(
        rows * cols, [[(i + a) * cols + j + b for a, b in corners] for i, j in starts]
    )


NINE = list(itertools.product(range(3), repeat=2))


def _around(n: int, reach: int) -> Bools:
    k = np.arange(n)
    distance = np.abs(k[:, None] - k[None])
    return np.minimum(distance, n - distance) <= reach


ENERGIES: dict[str, Objective] = {
    "Dirichlet": Objective(
        lambda u: (u.diff(dim=0) ** 2).sum() + (u.diff(dim=1) ** 2).sum(),
        (4, 5),
        squares_of(
            20,
            [
                [5 * i + j, 5 * i + j + d]
                for i in range(4)
                for j in range(5)
                for d in (1, 5)
                if (d == 5 and i < 3) or (d == 1 and j < 4)
            ],
        ),
    ),
    "p-Laplace": Objective(
        lambda u: (
            (u[1:, :-1] - u[:-1, :-1])
            .square()
            .add((u[:-1, 1:] - u[:-1, :-1]).square() + 0.1)
            .pow(1.5)
            .sum()
        ),
        (4, 4),
        cells(4, 4, [(0, 0), (1, 0), (0, 1)]),
    ),
    "beam": Objective(lambda u: (u.diff(n=2) ** 2).sum() + (u**4).sum(), (8,), band(8, 2)),
    "Ginzburg-Landau": Objective(
        lambda u: ((u - u.roll(1, 0)) ** 2).sum() + ((1 - u**2) ** 2).sum(), (7,), _around(7, 1)
    ),
    "Swift-Hohenberg, periodic": Objective(
        lambda u: ((u + u.roll(1) + u.roll(-1) - 2 * u) ** 2).sum() + (u**4).sum(),
        (9,),
        _around(9, 2),
    ),
    "a stencil by conv2d": Objective(
        lambda u: torch.cosh(F.conv2d(u[None, None], torch.ones(1, 1, 3, 3, dtype=u.dtype))).sum(),
        (5, 5),
        cells(5, 5, NINE),
    ),
    "a padded stencil by conv1d": Objective(
        lambda u: torch.cosh(
            F.conv1d(u[None, None], torch.ones(1, 1, 3, dtype=u.dtype), padding=1)
        ).sum(),
        (7,),
        band(7, 2),
    ),
    "two channels": Objective(
        lambda u: (u[0, 1:] * u[1].diff() ** 2).sum(),
        (2, 4),
        squares_of(8, [[5 + k, 4 + k] for k in range(3)])
        | squares_of(8, [[k + 1, 4 + k, 5 + k] for k in range(3)])
        & ~np.diag([True] * 4 + [False] * 4),
    ),
}


def _areas(x: Tensor) -> Tensor:
    corners = torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]])
    a, b, c = x[corners].unbind(1)
    u, w = b - a, c - a
    return (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]).square().sum()


ENERGIES["triangles"] = Objective(
    _areas,
    (6, 2),
    squares_of(12, [[2 * v + d for v in range(k, k + 3) for d in (0, 1)] for k in range(4)]),
)

# Networks, in their inputs

WEIGHT, BIAS, LAST = number(5, 3, seed=3) - 0.5, number(5, seed=4), number(2, 5, seed=5)


def _network(x: Tensor) -> Tensor:
    return torch.tanh(x @ WEIGHT.T + BIAS) @ LAST.T


NETWORKS: dict[str, Objective] = {
    "a network of each sample": Objective(lambda x: _network(x).sum(), (4, 3), blocks(4, 3)),
    "squares of its outputs": Objective(lambda x: (_network(x) ** 2).mean(), (4, 3), blocks(4, 3)),
    "layer_norm of rows": Objective(
        lambda x: F.layer_norm(x, (3,)).pow(3).sum(), (4, 3), blocks(4, 3)
    ),
    "batch_norm in training": Objective(
        lambda x: F.batch_norm(x, None, None, training=True).pow(3).sum(), (4, 3), planes(4, 3)
    ),
    "attention of each sequence": Objective(
        lambda x: ((x @ x.mT).softmax(-1) @ x).square().sum(), (2, 3, 2), blocks(2, 6)
    ),
    "gelu": Objective(lambda x: F.gelu(x).sum(), (6,), diagonal(6)),
    "relu layers": Objective(
        lambda x: (F.relu(x @ WEIGHT.T + BIAS) @ LAST.T).sum(), (4, 3), nothing(12)
    ),
    "max_pool": Objective(lambda x: F.max_pool1d(x[None], 2).square().sum(), (2, 4), diagonal(8)),
    "avg_pool": Objective(lambda x: F.avg_pool1d(x[None], 2).square().sum(), (2, 4), blocks(4, 2)),
    "embeddings": Objective(
        lambda x: F.embedding(EDGES[:3], x).sum(1).pow(3).sum(),
        (5, 2),
        np.kron(squares_of(5, EDGES[:3].tolist()), diagonal(2)),
    ),
}
