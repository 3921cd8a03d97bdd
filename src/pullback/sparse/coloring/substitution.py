"""Entries of a symmetric matrix that are solved for, each from a sum whose rest is known.

Row ``i`` of the product of color ``c`` is the sum of the entries of row ``i`` in the columns of
color ``c``: a group. A group of one entry gives that entry; its mirror is then subtracted from the
group it belongs to, which may leave that one with a single unknown. Where any two colors span a
forest, this peels every tree from its leaves and ends with nothing unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from ..._checks import coloring as checks
from ..pattern import Indices, SparsityPattern, index_dtype
from .graph import symmetric, twins_of
from .greedy import sorted_by_class
from .result import Coloring


@dataclass(frozen=True, eq=False)
class Substitution:
    """The steps, in an order in which they can be taken.

    Sums: ``group_product``, ``group_position`` say where each group's sum stands in the products.
    Step ``k``: the entries ``entry[k]`` and ``mirror[k]`` of the pattern (the same on the
    diagonal) are what is left of group ``group[k]``; subtract it from group ``mirror_group[k]``,
    if that is not -1. Steps ``levels[l]:levels[l + 1]`` do not need each other. The pattern has
    ``nnz`` entries in ``size`` rows.
    """

    group_product: npt.NDArray[np.int32]
    group_position: Indices
    entry: Indices
    mirror: Indices
    group: Indices
    mirror_group: Indices
    levels: npt.NDArray[np.int64]
    nnz: int
    size: int

    def solve(self, products: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """All entries in CSR order, from products of shape ``(num_colors, n)``."""
        wide = products.astype(np.float32) if products.dtype == np.float16 else products
        left = wide[self.group_product, self.group_position]
        values = np.empty(self.nnz, dtype=left.dtype)
        _take_steps(left, self.entry, self.mirror, self.group, self.mirror_group, values)
        return values.astype(products.dtype, copy=False)


def substitution(pattern: SparsityPattern, coloring: Coloring) -> Substitution:
    """How to solve for the entries of a symmetric pattern from the products of its coloring.

    Raises:
        ArgumentError: If the coloring is for another shape, or its products do not determine the
            entries this way: it is not an acyclic (or star) coloring of this pattern.
    """
    checks.coloring_fits("substitution", pattern.shape, coloring.shape, coloring.kind)
    symmetric("substitution", pattern, coloring.kind)
    ptr, items = pattern.indptr, pattern.indices
    colors = coloring.colors.numpy().astype(np.int32)
    kind = index_dtype(max(pattern.nnz, pattern.shape[0], 1))
    mirrors = twins_of(ptr, items, ptr).astype(kind)
    count, zero = coloring.num_colors, mirrors.dtype.type(0)
    group, product, position = _groups(ptr, items, colors, count, zero)
    lost, entry, origin, level = _peel(group, mirrors, len(product))
    if lost >= 0:
        i = int(np.searchsorted(ptr, lost, side="right")) - 1
        raise checks.unreadable("substitution", (i, int(items[lost])), coloring.kind)
    order, levels = sorted_by_class(level, int(level.max(initial=-1)) + 1)
    entry, origin = entry[order], origin[order]
    mirror = mirrors[entry]
    sizes = pattern.nnz, pattern.shape[0]
    onward = np.where(mirror == entry, -1, group[mirror]).astype(kind)
    return Substitution(product, position, entry, mirror, origin, onward, levels, *sizes)


@numba.njit(cache=True, nogil=True)
def _groups(ptr: Any, items: Any, colors: Any, count: int, zero: Any) -> Any:
    """The group of every entry, -1 where its column is neutral; the place of every group."""
    group = np.full(len(items), zero - 1)
    product = np.empty(len(items), np.int32)
    position = np.full(len(items), zero)
    seen = np.full(count, -1, np.int64)
    mine = np.empty(count, np.int64)
    total = 0
    for r in range(len(ptr) - 1):
        for e in range(ptr[r], ptr[r + 1]):
            c = colors[items[e]]
            if c < 0:
                continue
            if seen[c] != r:
                seen[c], mine[c] = r, total
                product[total], position[total] = c, r
                total += 1
            group[e] = mine[c]
    return group, product[:total].copy(), position[:total].copy()


@numba.njit(cache=True, nogil=True)
def _peel(group: Any, mirrors: Any, num_groups: int) -> Any:
    """An entry that stays unknown (-1: none); the entry, the group and the level of each step."""
    nnz = len(group)
    unknown = np.zeros(num_groups, np.int64)
    mixed = np.zeros(num_groups, group.dtype)  # xor of a group's unknown entries
    for e in range(nnz):
        if group[e] >= 0:
            unknown[group[e]] += 1
            mixed[group[e]] ^= e
    queue = np.empty(num_groups, group.dtype)
    depth = np.zeros(num_groups, np.int32)
    waiting = 0
    for g in range(num_groups):
        if unknown[g] == 1:
            queue[waiting] = g
            waiting += 1
    known = np.zeros(nnz, np.bool_)
    entry, origin = np.empty(nnz, group.dtype), np.empty(nnz, group.dtype)
    level = np.empty(nnz, np.int32)
    steps, at = 0, 0
    while at < waiting:
        g = queue[at]
        at += 1
        if unknown[g] == 0:
            continue
        e = mixed[g]
        t = mirrors[e]
        entry[steps], origin[steps], level[steps] = e, g, depth[g]
        steps += 1
        unknown[g] = 0
        known[e] = True
        if t == e:
            continue
        known[t] = True
        h = group[t]
        if h >= 0:
            unknown[h] -= 1
            mixed[h] ^= t
            depth[h] = max(depth[h], depth[g] + 1)
            if unknown[h] == 1:
                queue[waiting] = h
                waiting += 1
    lost = -1
    for e in range(nnz):
        if not known[e]:
            lost = e
            break
    return lost, entry[:steps].copy(), origin[:steps].copy(), level[:steps].copy()


@numba.njit(cache=True, nogil=True)
def _take_steps(
    left: Any, entry: Any, mirror: Any, group: Any, mirror_group: Any, values: Any
) -> None:
    for k in range(len(entry)):
        value = left[group[k]]
        values[entry[k]] = value
        values[mirror[k]] = value
        if mirror_group[k] >= 0:
            left[mirror_group[k]] -= value
