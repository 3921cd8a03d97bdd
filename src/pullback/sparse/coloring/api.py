"""``color``: from a pattern to a coloring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._checks import coloring as checks
from ..._checks import flag
from ..pattern import SparsityPattern
from .bidirectional import bidirectional_coloring
from .graph import symmetric
from .orders import ORDERS
from .partial import partial_coloring
from .result import Coloring
from .search import BUDGET, Found
from .symmetric import symmetric_coloring


def color(
    pattern: SparsityPattern | Any,
    kind: str,
    order: str | tuple[str, ...] = "best",
    *,
    postprocess: bool = True,
) -> Coloring:
    """Put the rows or columns of a pattern into groups that can share a product.

    ``pattern`` has shape ``(m, n)``: a `SparsityPattern`, a SciPy sparse array (its stored
    places), or a dense bool array or tensor. The ``kind`` says what the products show:

    | kind              | products                                                | entries are |
    |-------------------|---------------------------------------------------------|-------------|
    | ``columns``       | ``J @ t``; no two columns of a color meet in a row      | read        |
    | ``rows``          | ``u @ J``; no two rows of a color meet in a column      | read        |
    | ``star``          | ``H @ t``, H symmetric; each two colors span stars      | read        |
    | ``acyclic``       | ``H @ t``, H symmetric; each two colors span trees      | solved for  |
    | ``bidirectional`` | ``u @ J`` and ``J @ t``; each two colors span stars     | read        |

    ``order`` is the order in which a greedy pass takes them: ``"natural"``, ``"largest first"``,
    ``"smallest last"``, ``"incidence degree"`` or ``"random"`` (the same at every call); several
    in a tuple, of which the one of fewest colors is kept; or ``"best"``, which tries these orders,
    then recolors class by class, and stops at a proven bound or when the work is out of proportion
    (200 million steps; above that the first pass alone decides). With ``postprocess``, colors by
    which no entry need be read become neutral, -1; rows and columns without entries always are.

    Raises:
        ArgumentError: If the pattern cannot be read as one, an option is unknown, or the kind is
            ``star`` or ``acyclic`` and the pattern is not symmetric.

    >>> import numpy as np
    >>> arrow = np.eye(6, dtype=bool)
    >>> arrow[0], arrow[:, 0] = True, True
    >>> color(arrow, "columns")
    Coloring(columns of 6 × 6: 6 colors = Jacobian-vector products; order: largest first)
    >>> color(arrow, "star").colors
    tensor([0, 1, 1, 1, 1, 1])
    >>> color(arrow, "bidirectional")
    Coloring(bidirectional of 6 × 6: 3 colors = 1 by rows, 2 by columns, 5 neutral; ...)

    Source: Gebremedhin, Manne, Pothen, "What color is your Jacobian? Graph coloring for computing
    derivatives", SIAM Review 47 (2005); for star and acyclic, see `star` and `acyclic`.
    """
    given = as_pattern("color", pattern)
    checks.coloring_kind("color", kind)
    orders = checks.coloring_order("color", order, ORDERS)
    flag("color", "postprocess", postprocess)
    if kind in ("star", "acyclic"):
        symmetric("color", given, kind)
    budget = BUDGET // 4 if kind == "bidirectional" else BUDGET
    return _coloring(given, kind, _found(given, kind, orders, postprocess, budget))


def color_within(pattern: SparsityPattern, kind: str, order: str, budget: int) -> Coloring:
    """``color`` with a search of at most ``budget`` steps; ``pattern`` is as ``kind`` asks."""
    orders = checks.coloring_order("color", order, ORDERS)
    found = _found(pattern, kind, orders, postprocess=True, budget=budget)
    return _coloring(pattern, kind, found)


def _coloring(pattern: SparsityPattern, kind: str, found: Found) -> Coloring:
    colors = torch.from_numpy(found.colors.astype(np.int64))
    return Coloring(kind, found.order, pattern.shape, colors, found.count)


def _found(
    pattern: SparsityPattern, kind: str, orders: Sequence[str], postprocess: bool, budget: int
) -> Found:
    if kind in ("star", "acyclic"):
        return symmetric_coloring(pattern, kind, orders, postprocess=postprocess, budget=budget)
    if kind == "bidirectional":
        return bidirectional_coloring(pattern, orders, postprocess=postprocess, budget=budget)
    return partial_coloring(pattern, kind, orders, budget)


def as_pattern(caller: str, pattern: SparsityPattern | Any) -> SparsityPattern:
    """A pattern, or what gives one: a SciPy sparse array, a dense array or tensor of booleans."""
    import scipy.sparse

    if isinstance(pattern, SparsityPattern):
        return pattern
    if isinstance(pattern, Tensor) and pattern.layout is torch.strided:
        checks.dense_pattern(caller, pattern)
        return SparsityPattern.from_scipy(pattern.detach().cpu().numpy())
    if isinstance(pattern, np.ndarray):
        checks.dense_pattern(caller, pattern)
        return SparsityPattern.from_scipy(pattern)
    if scipy.sparse.issparse(pattern):
        return SparsityPattern.from_scipy(pattern)
    raise checks.not_a_pattern(caller, pattern)
