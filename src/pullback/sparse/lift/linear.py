"""What each element of a tensor is as a fixed weighted sum of elements of others.

As in ``Dependence``, elements share rows: a tensor holds one small number per element, and a table
the rows that these numbers stand for. Moving elements about moves numbers only.

A complex element is a pair of reals. It takes two rows, (re, im), and two columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from ..graph import Meta
from ..pattern import INT32_MAX
from . import kernels

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
ONE = np.ones(1)


@dataclass(frozen=True, eq=False)
class Table:
    """Row ``k`` is ``weights[s] * x[indices[s]]`` summed over ``indptr[k] <= s < indptr[k + 1]``.

    Indices ascend within a row; row 0 is empty.
    """

    indptr: Ints
    indices: Ints
    weights: Floats
    width: int

    @property
    def count(self) -> int:
        return int(self.indptr.size - 1)

    def shifted(self, by: int, width: int) -> Table:
        """The same with its columns moved to start at ``by``, of ``width`` in all."""
        return Table(self.indptr, self.indices + np.int32(by), self.weights, width)


@dataclass(frozen=True, eq=False)
class LinearMap:
    """``ids[e]``: the table's row for element ``e`` (for its real and then its imaginary part, if
    ``lanes`` is 2) of a tensor of ``shape``, to be taken ``scale`` times."""

    shape: tuple[int, ...]
    lanes: int
    ids: Ints
    table: Table
    scale: float = 1.0

    @property
    def grid(self) -> Ints:
        """The ids in the tensor's shape, with a last axis for the lanes."""
        return self.ids.reshape(*self.shape, self.lanes)

    def with_ids(self, grid: Ints) -> LinearMap:
        """The same rows handed out anew; ``grid`` ends with the axis of the lanes."""
        flat = np.ascontiguousarray(grid).reshape(-1)
        return replace(self, shape=tuple(grid.shape[:-1]), lanes=grid.shape[-1], ids=flat)

    def broadcast(self, shape: tuple[int, ...]) -> LinearMap:
        if shape == self.shape:
            return self
        return self.with_ids(np.broadcast_to(self.grid, (*shape, self.lanes)))

    def scaled(self, factor: float) -> LinearMap:
        return replace(self, scale=self.scale * factor)

    def weighed(self, factors: Floats) -> LinearMap:
        """Every element times a factor of its own."""
        return self._spread(np.repeat(factors.reshape(-1), self.lanes))

    def _spread(self, factors: Floats) -> LinearMap:
        table = self.table
        out = kernels.row_sizes(self.ids, table.indptr)
        indices = np.empty(out[-1], dtype=np.int32)
        weights = np.empty(out[-1])
        kernels.spread_rows(
            self.ids, table.indptr, table.indices, table.weights, factors, self.scale,
            out, indices, weights,
        )  # fmt: skip
        return replace(self, ids=_own(self.ids.size), table=_table(out, indices, weights, table),
                       scale=1.0)  # fmt: skip

    def _slim(self) -> LinearMap:
        """With a table of its own, if that takes less than half of what the shared one does."""
        there = self.ids > 0
        rows = replace(self, ids=self.ids[there], scale=1.0)
        sizes, every = kernels.row_sizes(rows.ids, self.table.indptr), self.table.indptr
        if 2 * (sizes.size + 2 * int(sizes[-1])) > every.size + 2 * int(every[-1]):
            return self
        ids = np.zeros(self.ids.size, dtype=np.int32)
        ids[there] = _own(rows.ids.size)
        return replace(self, ids=ids, table=rows._spread(ONE).table)

    def plus(self, other: LinearMap) -> LinearMap:
        """The sum, element by element, of two maps of one shape."""
        if self.table is other.table and (self.ids == other.ids).all():
            return replace(self, scale=self.scale + other.scale)
        if self.scale == other.scale and not ((self.ids > 0) & (other.ids > 0)).any():
            shared = self.table is other.table
            parts = [self, other] if shared else [self._slim(), other._slim()]
            (mine, theirs), table, _ = _joined(parts)
            return replace(self, ids=mine + theirs, table=table)
        a, b = self.table, other.table
        most = int(kernels.row_sizes(self.ids, a.indptr)[-1])
        most += int(kernels.row_sizes(other.ids, b.indptr)[-1])
        out = np.zeros(self.ids.size + 1, dtype=np.int64)
        indices, weights = np.empty(most, dtype=np.int32), np.empty(most)
        kernels.added_rows(
            self.ids, a.indptr, a.indices, a.weights, self.scale,
            other.ids, b.indptr, b.indices, b.weights, other.scale, out, indices, weights,
        )  # fmt: skip
        count = out[-1]
        table = _table(out, indices[:count].copy(), weights[:count].copy(), a)
        return LinearMap(self.shape, self.lanes, _own(self.ids.size), table)

    def through(self, matrix: Any, shape: tuple[int, ...], lanes: int) -> LinearMap:
        """``matrix`` (a row per real result, a column per real element) times this map."""
        product = scipy.sparse.csr_array(matrix) @ self.to_scipy()
        product.sort_indices()
        table = _table(
            product.indptr.astype(np.int64), product.indices.astype(np.int32, copy=False),
            product.data, self.table,
        )  # fmt: skip
        return LinearMap(shape, lanes, _own(product.shape[0]), table)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The whole matrix: a row per real element, a column per real element of the start."""
        full = self._spread(ONE)
        indptr = full.table.indptr[1:]
        if indptr[-1] <= INT32_MAX:  # or else SciPy widens the indices
            indptr = indptr.astype(np.int32)
        parts = (full.table.weights, full.table.indices, indptr)
        return scipy.sparse.csr_array(parts, shape=(self.ids.size, self.table.width))


def lanes_of(meta: Meta) -> int:
    return 2 if meta.dtype.is_complex else 1


def reals(meta: Meta) -> int:
    """How many real numbers a tensor holds."""
    return meta.numel * lanes_of(meta)


def identity(metas: Sequence[Meta], width: int | None = None) -> list[LinearMap]:
    """Tensors whose real elements are the first columns, numbered one after the other."""
    sizes = [reals(meta) for meta in metas]
    total = sum(sizes)
    indptr = np.arange(-1, total + 1, dtype=np.int64)
    indptr[0] = 0
    table = Table(indptr, np.arange(total, dtype=np.int32), np.ones(total), width or total)
    ids = np.arange(1, total + 1, dtype=np.int32)
    pieces = np.split(ids, np.cumsum(sizes)[:-1]) if sizes else []
    return [
        LinearMap(meta.shape, lanes_of(meta), piece, table)
        for meta, piece in zip(metas, pieces, strict=True)
    ]


def picked(parts: Sequence[LinearMap], where: Ints) -> LinearMap:
    """The elements of ``parts``, numbered from 1 one after the other, handed to ``where``; 0 is
    nothing. All parts have the same lanes."""
    lanes = parts[0].lanes
    ids, table, scale = _joined(parts)
    every = np.concatenate([np.zeros(lanes, dtype=np.int32), *ids]).reshape(-1, lanes)
    found = every[where.reshape(-1)]
    return LinearMap(tuple(where.shape), lanes, found.reshape(-1), table, scale)


def _joined(parts: Sequence[LinearMap]) -> tuple[list[Ints], Table, float]:
    """The ids of all parts in one table that holds the rows of all of them, and their scale."""
    if len({part.scale for part in parts}) > 1:
        parts = [part if part.scale == 1 else part._spread(ONE) for part in parts]
    tables = list({id(part.table): part.table for part in parts}.values())
    if len(tables) == 1:
        return [part.ids for part in parts], tables[0], parts[0].scale
    shifts: dict[int, int] = {}
    starts: list[Ints] = [np.zeros(2, dtype=np.int64)]
    at, entry = 0, 0
    for table in tables:
        shifts[id(table)] = at
        starts.append(table.indptr[2:] + entry)
        at += table.count - 1
        entry += int(table.indptr[-1])
    whole = Table(
        np.concatenate(starts), np.concatenate([t.indices for t in tables]),
        np.concatenate([t.weights for t in tables]), tables[0].width,
    )  # fmt: skip
    ids = [
        np.where(part.ids > 0, part.ids + np.int32(shifts[id(part.table)]), np.int32(0))
        for part in parts
    ]
    return ids, whole, parts[0].scale


def _own(count: int) -> Ints:
    return np.arange(1, count + 1, dtype=np.int32)


def _table(starts: Ints, indices: Ints, weights: Floats, like: Table) -> Table:
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), starts])
    return Table(indptr, indices, weights, like.width)
