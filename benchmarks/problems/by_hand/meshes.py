"""Hand-written matrices of sums over edges, cells and triangles.

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


def springs3d(
    x: Tensor, tail: Tensor, head: Tensor, rest: Tensor, sign: float = 1.0
) -> tuple[Places, Places, Values]:
    """A 3 × 3 block a spring, (1 - r/l) I + (r/l³) d dᵀ, which stands in four blocks of J.

    With ``sign=-1.0``, the Hessian of the energy: the force is the gradient's negative.
    """
    a, b, axis = tail.numpy(), head.numpy(), np.arange(3)
    shape = (4, a.size, 3, 3)
    mass = np.stack([a, a, b, b])[:, :, None, None]
    other = np.stack([b, a, a, b])[:, :, None, None]
    sums = Sums(
        x.numel(),
        np.broadcast_to(3 * mass + axis[:, None], shape).reshape(-1),
        np.broadcast_to(3 * other + axis, shape).reshape(-1),
        np.tile(np.arange(9 * a.size), 4),
        np.repeat([sign, -sign, sign, -sign], 9 * a.size),
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


def minimal_surface(x: Tensor) -> tuple[Places, Places, Values]:
    """Three terms a cell: second derivatives of its area by the diagonals a and b, aa, ab, bb."""
    n = x.shape[0]
    ids = np.arange(n * n).reshape(n, n)
    ends = [ids[1:, 1:], ids[:-1, :-1], ids[1:, :-1], ids[:-1, 1:]]
    cell = np.arange((n - 1) ** 2)
    pairs = [(p, q) for p in range(4) for q in range(4)]
    sums = Sums(
        x.numel(),
        np.concatenate([ends[p].reshape(-1) for p, _ in pairs]),
        np.concatenate([ends[q].reshape(-1) for _, q in pairs]),
        np.concatenate([(p // 2 + q // 2) * cell.size + cell for p, q in pairs]),
        np.repeat([(-1.0) ** (p + q) for p, q in pairs], cell.size),
    )

    def values(u: Tensor) -> Tensor:
        a, b = u[1:, 1:] - u[:-1, :-1], u[1:, :-1] - u[:-1, 1:]
        inverse = (1 + (a * a + b * b) / 2).rsqrt()
        straight, bend = inverse / 2, inverse**3 / 4
        return sums(torch.stack([straight - bend * a * a, -bend * a * b, straight - bend * b * b]))

    return sums.rows, sums.cols, values


def graph_quartic(
    x: Tensor, first: Tensor, second: Tensor, third: Tensor, weight: Tensor
) -> tuple[Places, Places, Values]:
    """Five terms an element w (a b - c)², beside the constant 2 w of its c, c."""
    a, b, c = first.numpy(), second.numpy(), third.numpy()
    element = np.arange(a.size)
    places = [(a, a, 0), (b, b, 1), (c, c, 2), (a, b, 3), (a, c, 4), (b, c, 5)]
    places += [(col, row, term) for row, col, term in places[3:]]
    sums = Sums(
        x.numel(),
        np.concatenate([row for row, _, _ in places]),
        np.concatenate([col for _, col, _ in places]),
        np.concatenate([term * a.size + element for _, _, term in places]),
        np.ones(len(places) * a.size),
    )
    twice = 2 * weight

    def values(x: Tensor) -> Tensor:
        a, b, c = x[first], x[second], x[third]
        to_a, to_b = twice * b, twice * a
        return sums(
            torch.stack([to_a * b, to_b * a, twice, 2 * to_a * a - twice * c, -to_a, -to_b])
        )

    return sums.rows, sums.cols, values
