"""Hand-written Jacobians of sums over edges and triangles.

The derivatives of the single terms are computed side by side; one fixed sparse matrix, made
beforehand, adds them up into the value array.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

Places = NDArray[np.int64]
Values = Callable[[Tensor], Tensor]


class Sums:
    """Entries that are sums: addend k puts ``signs[k]`` times term ``terms[k]`` at its place."""

    def __init__(
        self, n: int, rows: Places, cols: Places, terms: Places, signs: NDArray[np.float64]
    ) -> None:
        keys, entry = np.unique(rows * n + cols, return_inverse=True)
        self.rows, self.cols = np.divmod(keys, n)
        shape = (keys.size, int(terms.max()) + 1)
        self._matrix = scipy.sparse.coo_array((signs, (entry, terms)), shape=shape).tocsr()

    def __call__(self, terms: Tensor) -> Tensor:
        return torch.from_numpy(self._matrix @ terms.reshape(-1).numpy())


def gather_scatter(
    x: Tensor, tail: Tensor, head: Tensor, weight: Tensor
) -> tuple[Places, Places, Values]:
    """Every edge has a slope, which stands in four entries; every node one more on the diagonal."""
    a, b, nodes = tail.numpy(), head.numpy(), np.arange(x.numel())
    edge, each = np.arange(a.size), np.ones(a.size)
    sums = Sums(
        x.numel(),
        np.concatenate([a, a, b, b, nodes]),
        np.concatenate([b, a, a, b, nodes]),
        np.concatenate([edge, edge, edge, edge, a.size + nodes]),
        np.concatenate([each, -each, each, -each, np.ones(nodes.size)]),
    )

    def values(x: Tensor) -> Tensor:
        bent = (x[head] - x[tail]).tanh()
        return sums(torch.cat([weight * (1 - bent * bent), 3 * x * x]))

    return sums.rows, sums.cols, values


def fem_p1(x: Tensor, triangles: Tensor, stiffness: Tensor) -> tuple[Places, Places, Values]:
    """Nine terms a triangle: c K + (2 ū / 3) (K u) 1ᵀ, where c = 1 + ū²."""
    corners = triangles.numpy()
    shape = (*corners.shape, 3)
    rows = np.broadcast_to(corners[:, :, None], shape).reshape(-1)
    cols = np.broadcast_to(corners[:, None, :], shape).reshape(-1)
    sums = Sums(x.numel(), rows, cols, np.arange(rows.size), np.ones(rows.size))

    def values(u: Tensor) -> Tensor:
        local = u[triangles]
        middle = local.mean(1, keepdim=True)
        bend = (stiffness * local.unsqueeze(1)).sum(2) * (2 / 3 * middle)
        return sums((1 + middle * middle).unsqueeze(2) * stiffness + bend.unsqueeze(2))

    return sums.rows, sums.cols, values


def springs3d(x: Tensor, tail: Tensor, head: Tensor, rest: Tensor) -> tuple[Places, Places, Values]:
    """A 3 × 3 block a spring, (1 - r/l) I + (r/l³) d dᵀ, which stands in four blocks of J."""
    a, b, axis = tail.numpy(), head.numpy(), np.arange(3)
    shape = (4, a.size, 3, 3)
    mass = np.stack([a, a, b, b])[:, :, None, None]
    other = np.stack([b, a, a, b])[:, :, None, None]
    sums = Sums(
        x.numel(),
        np.broadcast_to(3 * mass + axis[:, None], shape).reshape(-1),
        np.broadcast_to(3 * other + axis, shape).reshape(-1),
        np.tile(np.arange(9 * a.size), 4),
        np.repeat([1.0, -1.0, 1.0, -1.0], 9 * a.size),
    )
    unit = torch.eye(3, dtype=x.dtype)

    def values(x: Tensor) -> Tensor:
        apart = x[head] - x[tail]
        length = (apart * apart).sum(1).sqrt()
        slack = (rest / length).view(-1, 1, 1)
        direction = apart / length.unsqueeze(1)
        outer = direction.unsqueeze(2) * direction.unsqueeze(1)
        return sums((1 - slack) * unit + slack * outer)

    return sums.rows, sums.cols, values
