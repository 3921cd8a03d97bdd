"""Colors that no entry needs to be read by become neutral."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from ..pattern import SparsityPattern
from .greedy import Colors
from .recover import Readable, readable_by

STEPS = 20
"""What an entry costs here, in steps of a greedy pass."""


def needed_colors(
    pattern: SparsityPattern, row_products: Colors, col_products: Colors, count: int
) -> npt.NDArray[np.bool_]:
    """A set of products by which every entry can still be read, with none to spare.

    An entry that stands alone in one product needs it; one that stands alone in neither is solved
    for and needs both; one that stands alone in both is content with either. The last sort are
    edges between products, and every edge must keep an end: products are given up in the order of
    their edges, fewest first, as long as the others at those edges stay.
    """
    alone = readable_by(pattern, row_products, col_products, count)
    needed, pairs = _demands(
        pattern.indptr, pattern.indices, row_products, col_products, *_flags(alone), count
    )
    pairs = np.unique(pairs)
    a, b = pairs // max(count, 1), pairs % max(count, 1)
    open_ = ~(needed[a] | needed[b])
    a, b = a[open_], b[open_]
    degrees = np.bincount(np.concatenate([a, b]), minlength=count)
    ends = np.concatenate([a, b])
    order = np.argsort(ends, kind="stable")
    partners = np.concatenate([b, a])[order]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
    kept: npt.NDArray[np.bool_] = needed.copy()
    for c in np.argsort(degrees, kind="stable").tolist():
        if degrees[c] and not kept[c]:
            kept[partners[starts[c] : starts[c + 1]]] = True
    return kept


def _flags(alone: Readable) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    return alone.by_column, alone.by_row


@numba.njit(cache=True, nogil=True)
def _demands(
    ptr: Any,
    items: Any,
    row_products: Any,
    col_products: Any,
    by_column: Any,
    by_row: Any,
    count: int,
) -> Any:
    """The products that some entry needs, and ``low * count + high`` of each pair of choices."""
    needed = np.zeros(count, np.bool_)
    pairs = np.empty(len(items), np.int64)
    total = 0
    for r in range(len(ptr) - 1):
        b = row_products[r]
        for e in range(ptr[r], ptr[r + 1]):
            a = col_products[items[e]]
            if by_column[e] and by_row[e] and a != b:
                pairs[total] = np.int64(min(a, b)) * count + max(a, b)
                total += 1
                continue
            either = by_column[e] or by_row[e]
            if a >= 0 and (by_column[e] or not either):
                needed[a] = True
            if b >= 0 and (by_row[e] or not either):
                needed[b] = True
    return needed, pairs[:total].copy()


def renumbered(colors: Colors, kept: npt.NDArray[np.bool_]) -> Colors:
    """The kept colors numbered anew from 0, the others neutral."""
    numbers = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    return np.where(colors >= 0, numbers[colors], np.int32(-1)) if len(numbers) else colors
