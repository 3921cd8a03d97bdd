"""From products back to entries: where each entry of the pattern stands in them.

The identity that everything here keeps, for every entry ``e`` of the pattern in CSR order:
``J[rows[e], cols[e]] == products[product[e]][position[e]]``, where product ``c`` is ``J @ t`` with
``t`` 1 at the columns of color ``c``, or ``u @ J`` with ``u`` 1 at the rows of color ``c``. An
entry is alone in its place: the other entries that would be added to it are always zero.
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
from .nets import transposed
from .result import Coloring
from .substitution import substitution

Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Sources:
    """Where each of the ``nnz`` entries is read: at ``position`` in ``product``, CSR order."""

    product: npt.NDArray[np.int32]
    position: Indices
    num_products: int


def sources(pattern: SparsityPattern, coloring: Coloring) -> Sources:
    """Where each entry is read in the products of a coloring that needs no substitution.

    Row products (``u @ J``, of length ``n``) are numbered before column products (``J @ t``, of
    length ``m``). The position is a column in a row product and a row in a column product.

    Raises:
        ArgumentError: If the coloring is acyclic, is for another shape, or leaves an entry of the
            pattern that no product shows alone.

    >>> import numpy as np
    >>> from pullback.sparse.coloring import color
    >>> pattern = SparsityPattern.from_scipy(np.array([[1, 1, 0], [0, 1, 1]]))
    >>> found = sources(pattern, color(pattern, "columns"))
    >>> found.product.tolist(), found.position.tolist()
    ([1, 0, 0, 1], [0, 0, 1, 1])
    """
    checks.coloring_fits("sources", pattern.shape, coloring.shape, coloring.kind)
    if coloring.kind == "acyclic":
        raise checks.needs_substitution("sources")
    if coloring.kind == "star":
        symmetric("sources", pattern, coloring.kind)
    rows, cols = _ends(pattern)
    alone = readable(pattern, coloring)
    lost = ~(alone.by_column | alone.by_row)
    if lost.any():
        e = int(np.argmax(lost))
        raise checks.unreadable("sources", (int(rows[e]), int(cols[e])), coloring.kind)
    row_colors, col_colors = product_numbers(coloring)
    product = np.where(alone.by_column, col_colors[cols], row_colors[rows])
    position = np.where(alone.by_column, rows, cols)
    return Sources(product, position, coloring.num_colors)


def flattened(
    found: Sources, shape: tuple[int, int], split: int, kind: type[np.signedinteger[Any]]
) -> Indices:
    """The place of every entry in all products, one after the other: the ``split`` products along
    rows come first. ``kind`` holds the length of all of them."""
    m, n = shape
    flat: Indices = found.product.astype(kind)
    if split == found.num_products:
        flat *= kind(n)
    elif split == 0:
        flat *= kind(m)
    else:
        flat = np.where(
            flat < split, flat * kind(n), kind(split * n) + (flat - kind(split)) * kind(m)
        )
    flat += found.position
    return flat


def product_numbers(
    coloring: Coloring,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The product of every row and of every column, -1 for none.

    By symmetry the columns' products of a Hessian are its rows' products as well.
    """
    m, n = coloring.shape
    own = coloring.colors.numpy().astype(np.int32)
    if coloring.kind == "columns":
        return np.full(m, -1, np.int32), own
    if coloring.kind == "rows":
        return own, np.full(n, -1, np.int32)
    if coloring.kind == "bidirectional":
        return own[:m], own[m:]
    return own, own


@dataclass(frozen=True, eq=False)
class Readable:
    """Which entries stand alone in their column's product, and which in their row's."""

    by_column: npt.NDArray[np.bool_]
    by_row: npt.NDArray[np.bool_]


def readable(pattern: SparsityPattern, coloring: Coloring) -> Readable:
    """Which entries can be read, and on which side."""
    row_colors, col_colors = product_numbers(coloring)
    return readable_by(pattern, row_colors, col_colors, coloring.num_colors)


def readable_by(
    pattern: SparsityPattern,
    row_colors: npt.NDArray[np.int32],
    col_colors: npt.NDArray[np.int32],
    count: int,
) -> Readable:
    ptr, items = pattern.indptr, pattern.indices
    by_column = _alone(ptr, items, col_colors, count)
    if (row_colors < 0).all():
        return Readable(by_column, np.zeros(pattern.nnz, dtype=bool))
    wide = items.astype(index_dtype(max(*pattern.shape, 1)), copy=False)
    flipped_ptr, flipped = transposed(ptr, wide, pattern.shape[1])
    by_row = _alone(flipped_ptr, flipped, row_colors, count)[twins_of(ptr, items, flipped_ptr)]
    return Readable(by_column, by_row)


@numba.njit(cache=True, nogil=True)
def _alone(ptr: Any, items: Any, colors: Any, count: int) -> Any:
    """Whether the color of an entry's column is met once in the entry's row."""
    alone = np.zeros(len(items), np.bool_)
    seen = np.full(count, -1, np.int64)
    at = np.empty(count, np.int64)
    for r in range(len(ptr) - 1):
        for e in range(ptr[r], ptr[r + 1]):
            c = colors[items[e]]
            if c < 0:
                continue
            if seen[c] == r:
                alone[at[c]] = False
            else:
                seen[c], at[c], alone[e] = r, e, True
    return alone


def _ends(pattern: SparsityPattern) -> tuple[Indices, Indices]:
    kind = index_dtype(max(*pattern.shape, 1))
    counts = np.diff(pattern.indptr)
    rows = np.repeat(np.arange(pattern.shape[0], dtype=kind), counts)
    return rows, pattern.indices.astype(kind, copy=False)


def grouped(found: Sources) -> tuple[Indices, npt.NDArray[np.int64]]:
    """Entries sorted by product: those of ``c`` are ``order[starts[c]:starts[c + 1]]``, ascending.

    A chunk of products can so be written straight into the value array as it comes.
    """
    order, starts = sorted_by_class(found.product, found.num_products)
    return order.astype(index_dtype(max(len(order), 1)), copy=False), starts


def seeds(coloring: Coloring, start: int, stop: int, dtype: npt.DTypeLike) -> Values:
    """The 0/1 seeds of the products ``start`` to ``stop``: shape ``(stop - start, length)``.

    The length is ``m`` for row products and ``n`` for column products; a chunk holds only one
    sort of them.

    Raises:
        ArgumentError: If the chunk is not within the products, or crosses from rows to columns.
    """
    split = coloring.split
    checks.seed_range("seeds", start, stop, split.rows, coloring.num_colors)
    rows, cols = product_numbers(coloring)
    numbers = rows if start < split.rows else cols
    chosen = np.flatnonzero((numbers >= start) & (numbers < stop))
    dense = np.zeros((stop - start, len(numbers)), dtype=dtype)
    dense[numbers[chosen] - start, chosen] = 1
    return dense


def recover(
    pattern: SparsityPattern, coloring: Coloring, compressed: Values | tuple[Values, Values]
) -> Values:
    """The ``nnz`` values in CSR order, from all products of a coloring.

    ``compressed`` has one product per row: shape ``(num_colors, n)`` for ``rows`` and
    ``(num_colors, m)`` otherwise. For ``bidirectional`` it is a pair, of shapes
    ``(split.rows, n)`` and ``(split.columns, m)``. An acyclic coloring solves for its entries,
    leaf after leaf of each two-colored tree; the others read theirs.

    Raises:
        ArgumentError: If the shapes do not fit, or the coloring is not one of the pattern.
    """
    checks.coloring_fits("recover", pattern.shape, coloring.shape, coloring.kind)
    m, n = pattern.shape
    if coloring.kind == "bidirectional":
        checks.two_sided("recover", compressed)
        by_rows, by_cols = compressed
    else:
        one = np.asarray(compressed)
        by_rows, by_cols = (one[:0], one) if coloring.kind == "columns" else (one, one[:0])
        length = n if coloring.kind == "rows" else m
        checks.compressed_shape("recover", "compressed", one.shape, (coloring.num_colors, length))
    if coloring.kind == "acyclic":
        return substitution(pattern, coloring).solve(by_rows)
    return _read(sources(pattern, coloring), coloring, by_rows, by_cols)


def _read(found: Sources, coloring: Coloring, by_rows: Values, by_cols: Values) -> Values:
    (m, n), split = coloring.shape, coloring.split
    if coloring.kind == "bidirectional":
        checks.compressed_shape("recover", "compressed[0]", by_rows.shape, (split.rows, n))
        checks.compressed_shape("recover", "compressed[1]", by_cols.shape, (split.columns, m))
    if not split.columns:
        return by_rows[found.product, found.position]
    if not split.rows:
        return by_cols[found.product, found.position]
    values = np.empty(len(found.product), dtype=np.result_type(by_rows, by_cols))
    rowwise = found.product < split.rows
    values[rowwise] = by_rows[found.product[rowwise], found.position[rowwise]]
    product = found.product[~rowwise] - split.rows
    values[~rowwise] = by_cols[product, found.position[~rowwise]]
    return values
