"""Some entries of a matrix at their own price: which products show them, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .choice import choose
from .coloring import Split, sources
from .coloring.api import color_within
from .coloring.recover import product_numbers, readable_by
from .pattern import SparsityPattern, index_dtype

Ints = npt.NDArray[np.int64]
# Pairs of rows that may not share a product are written out up to this many.
_PAIRS = 50_000_000
# The search for few colors: steps per pair, and the least and the most steps of all.
_STEPS = (40, 2_000_000, 60_000_000)
# From this many products on, a mixture of VJPs and JVPs that reads all entries may be fewer.
_MIXED_FROM = 6
_MIXED_UP_TO = 5_000_000


@dataclass(frozen=True, eq=False)
class Wanted:
    """Entries of a matrix, each once: entry ``(rows[k], cols[k])`` goes to ``places[k]`` of a
    flattened result of shape ``shape``, which is zero elsewhere."""

    rows: Ints
    cols: Ints
    places: Ints
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Scheme:
    """Entry ``k`` of a `Wanted` is ``products[product[k]][position[k]]``.

    Products ``u @ J`` come first; row ``i`` is in that of number ``row_colors[i]``, column ``j``
    in the product ``J @ t`` of number ``col_colors[j]``; -1 is in none.
    """

    row_colors: npt.NDArray[np.int32]
    col_colors: npt.NDArray[np.int32]
    split: Split
    product: Ints
    position: Ints

    @property
    def num_products(self) -> int:
        return sum(self.split)


def scheme_of(pattern: SparsityPattern, wanted: Wanted, forward: str) -> Scheme:
    """The fewest products found that show the wanted entries, all of them places of ``pattern``.

    Rows and columns that hold none of them stay out of every product. An entry need only be told
    from those of its own product that fall on its place, so others may collide: for the diagonal,
    two rows clash only if one meets the other's column (partial distance-1 coloring; Gebremedhin,
    Manne, Pothen, "What color is your Jacobian?", SIAM Review 47 (2005), section 7).

    ``forward``, where not empty, says why there are no products ``J @ t``.
    """
    m, n = pattern.shape
    nobody = (np.full(m, -1, np.int32), np.full(n, -1, np.int32))
    if not wanted.rows.size:
        none = np.zeros(0, np.int64)
        return Scheme(*nobody, Split(0, 0), none, none)
    rows, i = np.unique(wanted.rows, return_inverse=True)
    cols, j = np.unique(wanted.cols, return_inverse=True)
    part = _cut(pattern, rows, cols)
    found: _Local | None = None
    if wanted.rows.size < part.nnz:
        found = _partial(part, i, j, forward)
    if found is None or (found.count > _MIXED_FROM and part.nnz <= _MIXED_UP_TO):
        whole = _whole(part, i, j, forward)
        found = whole if found is None or whole.count < found.count else found
    row_colors, col_colors = nobody
    row_colors[rows], col_colors[cols] = found.row_colors, found.col_colors
    ends = np.where(found.by_row, wanted.cols, wanted.rows)
    return Scheme(row_colors, col_colors, found.split, found.product, ends)


@dataclass(frozen=True, eq=False)
class _Local:
    """A scheme in the part's own rows and columns; ``by_row`` tells entries read in u @ J."""

    row_colors: npt.NDArray[np.int32]
    col_colors: npt.NDArray[np.int32]
    split: Split
    product: Ints
    by_row: npt.NDArray[np.bool_]

    @property
    def count(self) -> int:
        return sum(self.split)


def _cut(pattern: SparsityPattern, rows: Ints, cols: Ints) -> SparsityPattern:
    m, n = pattern.shape
    if pattern.is_full:
        return SparsityPattern.full((rows.size, cols.size))
    if rows.size == m and cols.size == n:
        return pattern
    marks = pattern._marks()
    marks = marks[rows] if rows.size < m else marks
    marks = marks[:, cols] if cols.size < n else marks
    marks.sort_indices()
    return SparsityPattern._of_arrays((rows.size, cols.size), marks.indptr, marks.indices)


def _whole(part: SparsityPattern, i: Ints, j: Ints, forward: str) -> _Local:
    """All entries of the part are read, as a plan reads them."""
    coloring = choose(part, "auto", forward=forward).coloring
    split = coloring.split
    row_colors, col_colors = product_numbers(coloring)
    if part.is_full:
        by_row = np.full(i.size, split.rows > 0)
        product = (row_colors[i] if split.rows else col_colors[j]).astype(np.int64)
        return _Local(row_colors, col_colors, split, product, by_row)
    product = sources(part, coloring).product[_numbers(part, i, j)].astype(np.int64)
    return _Local(row_colors, col_colors, split, product, product < split.rows)


def _numbers(part: SparsityPattern, i: Ints, j: Ints) -> Ints:
    """The numbers of entries in CSR order."""
    return entry_numbers(part, i, j)[0]


def entry_numbers(pattern: SparsityPattern, i: Ints, j: Ints) -> tuple[Ints, bool]:
    """The numbers of places in CSR order, and whether all of them are places of the pattern."""
    n = pattern.shape[1]
    if pattern.is_full:
        return i * n + j, True
    counts = np.diff(pattern.indptr)
    keys = np.repeat(np.arange(pattern.shape[0], dtype=np.int64) * n, counts) + pattern.indices
    sought = i * n + j
    found = np.minimum(np.searchsorted(keys, sought), max(keys.size - 1, 0))
    return found, bool(keys.size and (keys[found] == sought).all()) or not sought.size


def _partial(part: SparsityPattern, i: Ints, j: Ints, forward: str) -> _Local | None:
    """The better of coloring rows and columns so that the wanted entries alone can be read; None
    where too many pairs would have to be looked at, or nothing is gained."""
    if part.is_full:
        return None
    m, n = part.shape
    idle_rows, idle_cols = np.full(m, -1, np.int32), np.full(n, -1, np.int32)
    found: list[_Local] = []
    if (rows := _apart(part, i, j)) is not None:
        split = Split(int(rows.max()) + 1, 0)
        product, by_row = rows[i].astype(np.int64), np.ones(i.size, bool)
        found.append(_Local(rows, idle_cols, split, product, by_row))
    # For a diagonal, rows and columns clash alike: there is nothing to gain along the columns.
    alike = m == n == i.size and np.array_equal(i, j)
    if not forward and not alike and (cols := _apart(part.T, j, i)) is not None:
        split = Split(0, int(cols.max()) + 1)
        product, by_row = cols[j].astype(np.int64), np.zeros(i.size, bool)
        found.append(_Local(idle_rows, cols, split, product, by_row))
    readable = [local for local in found if _can_be_read(part, local, i, j)]
    return min(readable, key=lambda local: local.count, default=None)


def _apart(part: SparsityPattern, i: Ints, j: Ints) -> npt.NDArray[np.int32] | None:
    """Colors of the rows, so that no two of one color meet in a column where one is wanted."""
    import scipy.sparse

    m, n = part.shape
    met = np.bincount(part.indices, minlength=n)
    if int(met[j].sum()) > _PAIRS:
        return None
    wanted = scipy.sparse.csr_array((np.ones(i.size, bool), (i, j)), shape=(m, n))
    clash = (wanted @ part._marks().T.tocsr()).tocoo()
    a, b = np.minimum(clash.row, clash.col), np.maximum(clash.row, clash.col)
    keys = np.unique(a[a < b].astype(np.int64) * m + b[a < b])
    if not keys.size:
        return np.zeros(m, np.int32)
    kind = index_dtype(max(2 * keys.size, m))
    pairs = np.stack(np.divmod(keys, m), axis=1).reshape(-1).astype(kind)
    edges = SparsityPattern((keys.size, m), np.arange(keys.size + 1, dtype=kind) * kind(2), pairs)
    each, least, most = _STEPS
    budget = min(max(each * edges.nnz, least), most)
    colors = color_within(edges, "columns", "best", budget).colors.numpy().astype(np.int32)
    alone: Any = colors < 0  # a row that clashes with no other goes with any
    colors[alone] = 0
    return colors


def _can_be_read(part: SparsityPattern, local: _Local, i: Ints, j: Ints) -> bool:
    """Whether every wanted entry stands alone on its place, found out from the colors alone."""
    alone = readable_by(part, local.row_colors, local.col_colors, local.count)
    side = alone.by_row if local.split.rows else alone.by_column
    return bool(side[_numbers(part, i, j)].all())
