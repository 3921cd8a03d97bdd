"""Which entries of the cotangent each element of a tensor may depend on.

Elements share their sets: a tensor holds one small number per element, and a table the sets that
these numbers stand for. Moving elements about moves numbers only, and a thousand elements that
depend on everything keep one set between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .pattern import SparsityPattern, index_dtype
from .unions import (
    distinct_pairs,
    entries_of_columns,
    larger,
    members_of_groups,
    rows_of_columns,
    union_rows,
    work,
)

Ints = npt.NDArray[np.integer[Any]]
# Above this many entries in one table, sets are widened to "everything" instead of stored.
ENTRIES_AT_MOST = 2**28


class Table:
    """Subsets of ``range(width)``: set ``k`` is ``indices[indptr[k]:indptr[k + 1]]``.

    Set 0 is empty.
    """

    def __init__(self, indptr: Ints, indices: Ints, width: int) -> None:
        self.indptr = indptr
        self.indices = indices
        self.width = width

    @classmethod
    def singletons(cls, width: int) -> Table:
        indptr = np.arange(-1, width + 1, dtype=np.int64)
        indptr[0] = 0
        return cls(indptr, np.arange(width, dtype=index_dtype(width)), width)

    @classmethod
    def everything(cls, width: int) -> Table:
        return cls(
            np.array([0, 0, width], dtype=np.int64),
            np.arange(width, dtype=index_dtype(width)),
            width,
        )

    @property
    def count(self) -> int:
        return int(self.indptr.size - 1)

    @cached_property
    def sizes(self) -> Ints:
        sizes: Ints = np.diff(self.indptr)
        return sizes


@dataclass(frozen=True)
class Dependence:
    """``ids[e]``: the number, in ``table``, of the set of the tensor's element ``e`` (C order).

    ``widened`` says that sets grew past what is stored, and were replaced by "everything".
    """

    shape: tuple[int, ...]
    ids: Ints
    table: Table
    widened: bool = False

    @property
    def numel(self) -> int:
        return int(self.ids.size)

    @property
    def entries(self) -> int:
        """How many entries of the cotangent all elements together depend on."""
        return int(self.table.sizes[self.ids].sum())

    @property
    def grid(self) -> Ints:
        """The ids in the tensor's shape."""
        return self.ids.reshape(self.shape)

    def with_ids(self, ids: Ints) -> Dependence:
        """The same sets, handed out anew: one id per element of an array of any shape."""
        flat = np.ascontiguousarray(ids).reshape(-1)
        flat = flat if flat.flags.writeable else flat.copy()  # kernels know no other kind
        return Dependence(ids.shape, flat, self.table, self.widened)

    def broadcast(self, shape: tuple[int, ...]) -> Dependence:
        if shape == self.shape:
            return self
        if int(np.prod(shape, dtype=np.int64)) == self.numel:
            return self.with_ids(self.ids.reshape(shape))
        return self.with_ids(np.broadcast_to(self.grid, shape))

    def broadcast_all(self, shape: tuple[int, ...]) -> Dependence:
        """The one element of this, everywhere in ``shape``."""
        return self.with_ids(np.full(shape, self.ids[0]))

    def where(self, keep: npt.NDArray[np.bool_]) -> Dependence:
        """Elements at which ``keep`` is False depend on nothing."""
        return self.with_ids(np.where(keep, self.grid, self.ids.dtype.type(0)))

    @cached_property
    def is_something(self) -> bool:
        """Whether any element depends on anything: a buffer that was overwritten does not."""
        return bool(self.ids.size) and (bool(self.ids[0]) or bool(self.ids.any()))

    def to_pattern(self) -> SparsityPattern:
        """The pattern with one row per element and one column per entry of the cotangent."""
        return self.to_flipped_pattern().T

    def to_flipped_pattern(self) -> SparsityPattern:
        """The pattern with one row per entry of the cotangent and one column per element."""
        shape = (self.table.width, self.numel)
        ids, table = self.ids, self.table
        starts = np.zeros(table.width + 1, dtype=np.int64)
        entries_of_columns(ids, table.indptr, table.indices, starts)
        total = int(starts[-1])
        if total == shape[0] * shape[1]:
            return SparsityPattern.full(shape)
        kind = index_dtype(max(total, shape[1]))
        rows = np.empty(total, dtype=kind)
        rows_of_columns(ids, table.indptr, table.indices, starts, rows)
        return SparsityPattern(shape, starts.astype(kind, copy=False), rows)


def identity(shapes: Sequence[tuple[int, ...]]) -> list[Dependence]:
    """Tensors whose every element is a cotangent entry of its own, numbered one after the other."""
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    width = sum(sizes)
    table = Table.singletons(width)
    ids = np.arange(1, width + 1, dtype=index_dtype(width + 1))
    pieces = np.split(ids, np.cumsum(sizes)[:-1]) if sizes else []
    return [Dependence(shape, piece, table) for shape, piece in zip(shapes, pieces, strict=True)]


def nothing(shape: tuple[int, ...], like: Dependence) -> Dependence:
    return like.with_ids(np.zeros(shape, dtype=like.ids.dtype))


def everything(shape: tuple[int, ...], width: int, widened: bool = False) -> Dependence:
    ids = np.ones(shape, dtype=np.int32).reshape(-1)
    return Dependence(shape, ids, Table.everything(width), widened)


def common_table(parts: Sequence[Dependence]) -> tuple[list[Ints], Table, bool]:
    """The parts' ids (in their shapes) in one table that holds the sets of all of them."""
    widened = any(part.widened for part in parts)
    tables = list({id(part.table): part.table for part in parts}.values())
    if len(tables) == 1:
        return [part.grid for part in parts], tables[0], widened
    shift = np.cumsum([0] + [table.count - 1 for table in tables])
    total = sum(int(table.indptr[-1]) for table in tables)
    indptr = np.zeros(shift[-1] + 2, dtype=np.int64)
    at, entry = 1, 0
    for table in tables:
        indptr[at + 1 : at + table.count] = table.indptr[2:] + entry
        at += table.count - 1
        entry += int(table.indptr[-1])
    indices = np.concatenate([table.indices for table in tables])
    assert indices.size == total
    joined = Table(indptr, indices, tables[0].width)
    kind = index_dtype(joined.count)
    places = {id(table): int(s) for table, s in zip(tables, shift, strict=False)}
    moved: list[Ints] = []
    for part in parts:
        grid = part.grid.astype(kind)
        moved.append(np.where(grid > 0, grid + kind(places[id(part.table)]), kind(0)))
    return moved, joined, widened


def union(parts: Sequence[Dependence], shape: tuple[int, ...]) -> Dependence:
    """Element by element, what any of the parts (broadcast to ``shape``) depends on."""
    result, *rest = [part.broadcast(shape) for part in parts]
    for part in rest:
        result = _union_of_two(result, part)
    return result


def _union_of_two(left: Dependence, right: Dependence) -> Dependence:
    (a, b), table, widened = common_table([left, right])
    a, b = a.reshape(-1), b.reshape(-1)
    kind: Any = np.promote_types(a.dtype, b.dtype)
    a, b = a.astype(kind, copy=False), b.astype(kind, copy=False)
    high = np.empty(a.size, dtype=kind)
    if larger(a, b, high):
        return Dependence(left.shape, high, table, widened)
    # Equal pairs share a new set. Finding them pays only where they repeat.
    if a.size > 4 * table.count or a.size <= 4096:
        which = np.empty(a.size, dtype=np.int64)
        room: Ints = np.empty(2 * a.size, dtype=kind)
        ids, grown, lost = _unions_of_twos(table, room[: 2 * distinct_pairs(a, b, which, room)])
        return Dependence(left.shape, ids[which], grown, widened or lost)
    ids, grown, lost = _unions_of_twos(table, np.stack([a, b], axis=1).reshape(-1))
    return Dependence(left.shape, ids, grown, widened or lost)


def _unions_of_twos(table: Table, members: Ints) -> tuple[Ints, Table, bool]:
    return _unions(table, np.arange(0, members.size + 1, 2, dtype=np.int64), members)


def grouped(parts: Sequence[tuple[Dependence, Ints]], shape: tuple[int, ...]) -> Dependence:
    """A tensor of ``shape`` whose element ``g`` depends on what the elements of group ``g`` do.

    With each part comes the group of each of its elements (any shape with as many entries); -1
    leaves an element out.
    """
    grids, table, widened = common_table([part for part, _ in parts])
    ids = _one_after_another(grids)
    groups = _one_after_another([np.asarray(group) for _, group in parts])
    count = int(np.prod(shape, dtype=np.int64))
    starts = np.zeros(count + 1, dtype=np.int64)
    members = np.empty(ids.size, dtype=ids.dtype)
    members_of_groups(ids, groups, table.count, starts, members)
    members, sizes = members[: starts[-1]], np.diff(starts)
    if not (sizes > 1).any():
        single = np.zeros(count, dtype=ids.dtype)
        single[sizes == 1] = members
        return Dependence(shape, single, table, widened)
    found, grown, lost = _unions(table, starts, members)
    return Dependence(shape, found, grown, widened or lost)


def _one_after_another(arrays: Sequence[Ints]) -> Ints:
    flat = [array.reshape(-1) for array in arrays]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _unions(table: Table, starts: Ints, members: Ints) -> tuple[Ints, Table, bool]:
    """The union of each run of ``members``: its id, and the new table that holds them all.

    The last answer says that they grew too large to store and that each became "everything".
    """
    reads = int(work(members, table.indptr))
    if reads > ENTRIES_AT_MOST:
        some = np.add.reduceat(np.append(members, 0), starts[:-1]) > 0
        some &= np.diff(starts) > 0
        return some.astype(np.int32), Table.everything(table.width), True
    indptr, indices = union_rows(starts, members, table.indptr, table.indices, table.width, reads)
    ids = np.arange(1, starts.size, dtype=index_dtype(starts.size))
    return ids, Table(np.concatenate([[0], indptr]), indices, table.width), False
