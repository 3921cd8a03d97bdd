"""Whether colors obey their rule, checked by sparse matrix products and nothing of the coloring.

Colors are counted from 0; any negative color is neutral. ``sums[i, c]``, below, is how many
columns of color ``c`` row ``i`` meets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.csgraph
from torch import Tensor

from ..._checks import one_of
from ..pattern import SparsityPattern
from .result import Coloring

Colors = Tensor | npt.NDArray[np.integer[Any]]


def structurally_orthogonal(pattern: SparsityPattern, colors: Colors, side: str) -> bool:
    """Whether no two ``columns`` (or ``rows``) of one color meet, and none with entries is neutral.

    Raises:
        ArgumentError: If ``side`` is neither ``"columns"`` nor ``"rows"``.

    >>> import numpy as np
    >>> band = SparsityPattern.from_scipy(np.array([[1, 1, 0], [0, 1, 1]]))
    >>> structurally_orthogonal(band, np.array([0, 1, 0]), "columns")
    True
    >>> structurally_orthogonal(band, np.array([0, 1, 1]), "columns")
    False
    """
    one_of("structurally_orthogonal", "side", side, ("columns", "rows"))
    A = _ones(pattern) if side == "columns" else _ones(pattern).T.tocsr()
    own = _array(colors)
    sums = A @ _members(own)
    rows, cols = A.nonzero()
    return bool(np.all(own[cols] >= 0) and np.all(_at(sums, rows, own[cols]) == 1))


def is_star(pattern: SparsityPattern, colors: Colors) -> bool:
    """Whether neighbors differ, no path of four vertices has two colors, and neutral ones are safe.

    A neutral vertex is safe if it has no diagonal entry, no neutral neighbor, and no two
    neighbors of one color. The pattern must be symmetric.

    >>> import numpy as np
    >>> chain = SparsityPattern.from_scipy(np.eye(4, k=1) + np.eye(4, k=-1) + np.eye(4))
    >>> is_star(chain, np.array([0, 1, 2, 0])), is_star(chain, np.array([0, 1, 0, 1]))
    (True, False)
    """
    own = _array(colors)
    if not _proper(pattern, own):
        return False
    rows, cols, sums = _edges(pattern, own)
    both = (own[rows] >= 0) & (own[cols] >= 0)
    rows, cols = rows[both], cols[both]
    return not bool(np.any((_at(sums, rows, own[cols]) > 1) & (_at(sums, cols, own[rows]) > 1)))


def is_acyclic(pattern: SparsityPattern, colors: Colors) -> bool:
    """Whether neighbors differ, no cycle has two colors, and neutral vertices are safe.

    Safe as in `is_star`. The pattern must be symmetric.

    >>> import numpy as np
    >>> ring = SparsityPattern.from_scipy(np.eye(4, k=1) + np.eye(4, k=3) + np.eye(4).T)
    >>> both = SparsityPattern.from_scipy(ring.to_scipy() + ring.T.to_scipy())
    >>> is_acyclic(both, np.array([0, 1, 0, 2])), is_acyclic(both, np.array([0, 1, 0, 1]))
    (True, False)
    """
    own = _array(colors)
    if not _proper(pattern, own):
        return False
    rows, cols, _ = _edges(pattern, own)
    once = (rows < cols) & (own[rows] >= 0) & (own[cols] >= 0)
    rows, cols = rows[once], cols[once]
    if len(rows) == 0:
        return True
    n = len(own)
    a, b = own[rows], own[cols]
    pair = np.minimum(a, b) * (int(own.max()) + 1) + np.maximum(a, b)
    _, pair = np.unique(pair, return_inverse=True)
    # A vertex stands once for each pair of colors it has edges in; a forest has as many edges as
    # vertices less trees.
    nodes, ends = np.unique(np.concatenate([pair * n + rows, pair * n + cols]), return_inverse=True)
    k = len(rows)
    shape = (len(nodes), len(nodes))
    joined = scipy.sparse.csr_array((np.ones(k), (ends[:k], ends[k:])), shape=shape)
    trees = scipy.sparse.csgraph.connected_components(joined, directed=False, return_labels=False)
    return bool(len(nodes) - trees == k)


def is_bidirectional(pattern: SparsityPattern, row_colors: Colors, col_colors: Colors) -> bool:
    """Whether every entry has a colored end and a place of its own in that product, and no path of
    four entries' ends has two colors.

    >>> import numpy as np
    >>> corner = SparsityPattern.from_scipy(np.array([[1, 1], [1, 0]]))
    >>> is_bidirectional(corner, np.array([0, -1]), np.array([0, -1]))
    True
    >>> is_bidirectional(corner, np.array([-1, -1]), np.array([0, 0]))
    False
    """
    r, c = _array(row_colors), _array(col_colors)
    A = _ones(pattern)
    rows, cols = A.nonzero()
    r, c = r[rows], c[cols]
    in_row = _at(A @ _members(_array(col_colors)), rows, c)
    in_col = _at(A.T.tocsr() @ _members(_array(row_colors)), cols, r)
    idle = (r < 0) & (c < 0)
    shared = (in_row != 1) & (r < 0) | (in_col != 1) & (c < 0)
    crossed = (r >= 0) & (c >= 0) & (in_row > 1) & (in_col > 1)
    return not bool(np.any(idle | shared | crossed))


def directly_recoverable(pattern: SparsityPattern, coloring: Coloring) -> bool:
    """Whether every entry stands alone in some product of its row's or its column's color.

    A symmetric entry may stand alone in place of its mirror. Acyclic colorings solve for their
    entries and so need not be directly recoverable.

    >>> import numpy as np
    >>> from pullback.sparse.coloring import color
    >>> band = SparsityPattern.from_scipy(np.array([[1, 1, 0], [0, 1, 1]]))
    >>> directly_recoverable(band, color(band, "rows"))
    True
    """
    r = _array(coloring.row_colors)
    c = r if coloring.is_symmetric else _array(coloring.col_colors)
    A = _ones(pattern)
    rows, cols = A.nonzero()
    alone = _at(A @ _members(c), rows, c[cols]) == 1
    alone |= _at(A.T.tocsr() @ _members(r), cols, r[rows]) == 1
    return bool(alone.all())


def _array(colors: Colors) -> npt.NDArray[np.int64]:
    return np.asarray(colors, dtype=np.int64)


def _ones(pattern: SparsityPattern) -> scipy.sparse.csr_array:
    return pattern.to_scipy().astype(np.int64)


def _members(colors: npt.NDArray[np.int64]) -> scipy.sparse.csr_array:
    """Column ``c`` is 1 at the vertices of color ``c``."""
    held = np.flatnonzero(colors >= 0)
    shape = (len(colors), int(colors.max(initial=-1)) + 1)
    return scipy.sparse.csr_array((np.ones(len(held), np.int64), (held, colors[held])), shape=shape)


def _at(
    sums: scipy.sparse.csr_array, rows: npt.NDArray[Any], colors: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """``sums[row, color]`` for each pair; 0 where the color is neutral."""
    found = np.zeros(len(rows), dtype=np.int64)
    held = colors >= 0
    if held.any():
        found[held] = np.asarray(sums[rows[held], colors[held]]).reshape(-1)
    return found


def _edges(
    pattern: SparsityPattern, colors: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], scipy.sparse.csr_array]:
    """The ends of every entry off the diagonal, and how often a vertex meets a color there."""
    A = _ones(pattern)
    rows, cols = A.nonzero()
    off = rows != cols
    rows, cols = rows[off], cols[off]
    graph = scipy.sparse.csr_array((np.ones(len(rows), np.int64), (rows, cols)), shape=A.shape)
    return rows, cols, graph @ _members(colors)


def _proper(pattern: SparsityPattern, colors: npt.NDArray[np.int64]) -> bool:
    """Whether neighbors differ and neutral vertices are safe."""
    all_rows, all_cols = _ones(pattern).nonzero()
    if np.any(colors[all_rows[all_rows == all_cols]] < 0):
        return False
    rows, cols, sums = _edges(pattern, colors)
    a, b = colors[rows], colors[cols]
    if np.any(a == b):
        return False  # equal colors, or both neutral
    return bool(np.all(_at(sums, rows, b)[a < 0] == 1))
