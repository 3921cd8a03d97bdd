"""Hand-written Jacobians on grids: a few entries a row, each written through a strided view."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Places = NDArray[np.int64]
Values = Callable[[Tensor], Tensor]


def brusselator(x: Tensor) -> tuple[Places, Places, Values]:
    """Six entries a row: the four neighbors, the cell itself, the other species there."""
    n = x.shape[-1]
    spread = 0.02 * n**2
    ids = np.arange(2 * n * n).reshape(2, n, n)
    beside = [np.roll(ids, shift, axis) for axis in (1, 2) for shift in (1, -1)]
    cols = np.stack([*beside, ids, ids[::-1]], -1)
    rows = np.broadcast_to(ids[..., None], cols.shape)
    template = torch.full(cols.shape, spread, dtype=x.dtype)

    def values(x: Tensor) -> Tensor:
        u, v = x
        entries = template.clone()
        square, twice = u * u, 2 * u * v
        entries[0, ..., 4] = twice - (4.4 + 4 * spread)
        entries[0, ..., 5] = square
        entries[1, ..., 4] = -4 * spread - square
        entries[1, ..., 5] = 3.4 - twice
        return entries.view(-1)

    return rows, cols, values


def band(n: int, reach: int) -> tuple[Places, Places, NDArray[np.bool_]]:
    """Rows and columns of a band, and which of (n, 2 reach + 1) entries are in the matrix."""
    cols = np.arange(n)[:, None] + np.arange(-reach, reach + 1)
    rows = np.broadcast_to(np.arange(n)[:, None], cols.shape)
    inside = (cols >= 0) & (cols < n)
    return rows[inside], cols[inside], inside


def burgers(x: Tensor) -> tuple[Places, Places, Values]:
    """Tridiagonal: in CSR order every third value is of the same diagonal."""
    n = x.numel()
    rows, cols, _ = band(n, 1)

    def values(u: Tensor) -> Tensor:
        entries = u.new_empty(3 * n - 2)
        half = u / 2
        torch.add(half[1:], 0.1, out=entries[2::3])
        torch.sub(0.1, half[:-1], out=entries[1::3])
        main = entries[0::3]
        main.fill_(-0.2)
        main[:-1] -= half[1:]
        main[1:] += half[:-1]
        return entries

    return rows, cols, values


def heat(x: Tensor) -> tuple[Places, Places, Values]:
    """Five entries a row, less those that a boundary cuts off."""
    n = x.shape[0]
    ids = np.pad(np.arange(n * n).reshape(n, n), 1, constant_values=-1)
    around = [ids[:-2, 1:-1], ids[1:-1, :-2], ids[1:-1, 1:-1], ids[1:-1, 2:], ids[2:, 1:-1]]
    cols = np.stack(around, -1).reshape(-1)
    kept = torch.from_numpy(np.flatnonzero(cols >= 0))

    def values(u: Tensor) -> Tensor:
        around = torch.nn.functional.pad(u, (1, 1, 1, 1))
        south, north = _slopes(around[1:, 1:-1], around[:-1, 1:-1])
        east, west = _slopes(around[1:-1, 1:], around[1:-1, :-1])
        entries = u.new_empty(n, n, 5)
        torch.neg(north[:-1], out=entries[..., 0])
        torch.neg(west[:, :-1], out=entries[..., 1])
        entries[..., 2] = north[1:] - south[:-1] + west[:, 1:] - east[:, :-1]
        entries[..., 3] = east[:, 1:]
        entries[..., 4] = south[1:]
        return entries.view(-1)[kept]

    return np.repeat(np.arange(n * n), 5)[cols >= 0], cols[cols >= 0], values


def _slopes(here: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Of the flow (1 + a²) d, a the mean and d the difference: by ``here`` and by ``before``."""
    middle = (here + before) / 2
    bend, straight = middle * (here - before), 1 + middle * middle
    return bend + straight, bend - straight


def shallow_water(x: Tensor) -> tuple[Places, Places, Values]:
    """Eight entries a row: the height's flows, and what carries the two velocities along."""
    n = x.shape[-1]
    h, u, v = np.arange(3 * n * n).reshape(3, n, n)

    def beside(ids: Places, axis: int) -> list[Places]:
        return [np.roll(ids, -1, axis), np.roll(ids, 1, axis)]

    around_u, around_v = [beside(u, 0) + beside(u, 1), beside(v, 0) + beside(v, 1)]
    cols = np.stack(
        [
            np.stack(beside(h, 0) + beside(h, 1) + beside(u, 0) + beside(v, 1), -1),
            np.stack([*around_u, *beside(h, 0), u, v], -1),
            np.stack([*around_v, *beside(h, 1), u, v], -1),
        ]
    )
    rows = np.broadcast_to(np.arange(3 * n * n).reshape(3, n, n, 1), cols.shape)
    template = torch.zeros(cols.shape, dtype=x.dtype)
    template[1:, ..., 4], template[1:, ..., 5] = -9.81 / 2, 9.81 / 2

    def values(x: Tensor) -> Tensor:
        entries, half = template.clone(), x / 2
        h, u, v = half
        for k, (flow, axis) in enumerate([(u, 0), (v, 1), (h, 0), (h, 1)]):
            torch.neg(flow.roll(-1, axis), out=entries[0, ..., 2 * k])
            entries[0, ..., 2 * k + 1] = flow.roll(1, axis)
        for k, flow in enumerate((u, v)):
            torch.neg(flow, out=entries[1, ..., 2 * k])
            torch.neg(flow, out=entries[2, ..., 2 * k])
            entries[1:, ..., 2 * k + 1] = flow
            entries[1:, ..., 6 + k] = half[1:].roll(1, k + 1) - half[1:].roll(-1, k + 1)
        return entries.view(-1)

    return rows, cols, values
