"""Which products to take: a pure function of the pattern, and its reason in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .coloring import Coloring
from .coloring.api import color_within
from .coloring.graph import is_symmetric
from .pattern import SparsityPattern

# Below this many products along either side, a mixture of both cannot pay for two graphs.
_MIXED_FROM = 6
# Coloring both sides at once takes far longer than either; larger patterns are spared it.
_MIXED_UP_TO = 5_000_000
# A product J t takes about as long as v J, but stands on the transposed graph: ties go to v J.
_FORWARD_COST = 1.1
# The search for few colors: steps per entry, and the least and the most steps of all.
_STEPS = (40, 2_000_000, 60_000_000)


COVER = (" covers", " cover")


@dataclass(frozen=True)
class Choice:
    """``mode`` is fwd, rev, mixed or dense; ``coloring`` says which products make it up."""

    mode: str
    coloring: Coloring
    reason: str

    @property
    def num_products(self) -> int:
        return self.coloring.num_colors


def choose(pattern: SparsityPattern, mode: str, order: str = "best", forward: str = "") -> Choice:
    """Color ``pattern`` as ``mode`` asks, or as takes the fewest products.

    ``forward``, where not empty, says why there are no products J t.
    """
    m, n = pattern.shape
    if mode == "dense":
        return _dense(pattern, forward, f"dense was asked for: {m} × {n}")
    if mode == "rev":
        rows = _colored(pattern, "rows", order)
        return Choice("rev", rows, f"rev was asked for: {_vjps(rows.num_colors, COVER)} the rows")
    if mode == "fwd":
        columns = _colored(pattern, "columns", order)
        return Choice(
            "fwd", columns, f"fwd was asked for: {_jvps(columns.num_colors, COVER)} the columns"
        )
    if mode == "mixed":
        both = _colored(pattern, "bidirectional", order)
        return Choice("mixed", both, f"mixed was asked for: {_both(both)} cover all entries")
    if pattern.is_full:
        return _dense(pattern, forward, f"every entry of the {m} × {n} matrix may be nonzero")
    rows = _colored(pattern, "rows", order)
    if forward:
        reason = f"{_vjps(rows.num_colors, COVER)} the rows; there are no JVPs: {forward}"
        return _or_dense(Choice("rev", rows, reason), pattern, forward)
    if rows.num_colors > 1 and is_symmetric(pattern):
        columns = replace(rows, kind="columns")
    else:
        columns = _colored(pattern, "columns", order)
    best = _of_one_side(rows, columns)
    if best.num_products >= _MIXED_FROM and pattern.nnz <= _MIXED_UP_TO and _is_uneven(pattern):
        both = _colored(pattern, "bidirectional", order)
        if both.num_colors < 0.7 * best.num_products:
            reason = (
                f"{_both(both)} cover all entries; {_vjps(rows.num_colors)} would cover the rows, "
                f"{_jvps(columns.num_colors)} the columns"
            )
            return Choice("mixed", both, reason)
    return _or_dense(best, pattern, forward)


def symmetric_choices(pattern: SparsityPattern, mode: str, order: str = "best") -> list[Choice]:
    """The ways to read a matrix that is symmetric, pattern and all: as ``mode`` asks, or those that
    may take the fewest products."""
    if mode in ("star", "acyclic"):
        coloring = _colored(pattern, mode, order)
        return [Choice("rev", coloring, f"{mode} was asked for: {_by_symmetry(coloring)}")]
    if pattern.is_full:
        return [choose(pattern, "auto")]
    coloring = _colored(pattern, "rows", order)
    count = coloring.num_colors
    rows = _or_dense(Choice("rev", coloring, f"{_vjps(count, COVER)} the rows"), pattern, "")
    return [rows, *(_by_mirrors(pattern, count, order) if count > 1 else ())]


def _by_mirrors(pattern: SparsityPattern, rows: int, order: str) -> list[Choice]:
    found = []
    others = f"; {_vjps(rows)} would cover the rows"
    for kind in ("star", "acyclic"):
        coloring = _colored(pattern, kind, order)
        found.append(Choice("rev", coloring, _by_symmetry(coloring) + others))
        if coloring.num_colors <= 2:  # trees take two colors, too
            break
    return found


def _by_symmetry(coloring: Coloring) -> str:
    shown = "show every entry or its mirror" if coloring.kind == "star" else "solve for all entries"
    if coloring.num_colors == 1:
        shown = shown.replace("show", "shows").replace("solve", "solves")
    return f"{_vjps(coloring.num_colors)} {shown} ({coloring.kind} coloring)"


def _colored(pattern: SparsityPattern, kind: str, order: str) -> Coloring:
    each, least, most = _STEPS
    budget = min(max(each * pattern.nnz, least), most)
    return color_within(pattern, kind, order, budget)


def _of_one_side(rows: Coloring, columns: Coloring) -> Choice:
    r, c = rows.num_colors, columns.num_colors
    if c * _FORWARD_COST < r:
        return Choice(
            "fwd", columns, f"{_jvps(c, COVER)} the columns; {_vjps(r)} would cover the rows"
        )
    return Choice("rev", rows, f"{_vjps(r, COVER)} the rows; {_jvps(c)} would cover the columns")


def _or_dense(choice: Choice, pattern: SparsityPattern, forward: str) -> Choice:
    """``choice``, unless a product for every row or column is no more."""
    m, n = pattern.shape
    fewest = m if forward else min(m, n)
    if choice.num_products < fewest or not pattern.nnz:
        return choice
    return _dense(pattern, forward, f"no coloring needs fewer than {fewest} products")


def _dense(pattern: SparsityPattern, forward: str, because: str) -> Choice:
    m, n = pattern.shape
    along_rows = bool(forward) or m <= n
    count = m if along_rows else n
    coloring = Coloring(
        "rows" if along_rows else "columns", "natural", (m, n), torch.arange(count), count
    )
    products = _vjps(m) + ", one per row" if along_rows else _jvps(n) + ", one per column"
    return Choice("dense", coloring, f"{because}: {products}")


def _is_uneven(pattern: SparsityPattern) -> bool:
    """Whether a few rows and columns are much fuller than the rest, as in an arrow."""
    m, n = pattern.shape
    per_row = pattern.indptr[1:] - pattern.indptr[:-1]
    largest = int(per_row.max(initial=0))
    return largest > 4 * pattern.nnz / max(m, 1) and _fullest_column(
        pattern
    ) > 4 * pattern.nnz / max(n, 1)


def _fullest_column(pattern: SparsityPattern) -> int:
    import numpy as np

    return int(np.bincount(pattern.indices, minlength=1).max(initial=0))


def _vjps(count: int, verb: tuple[str, str] = ("", "")) -> str:
    return f"{count} VJP{verb[0]}" if count == 1 else f"{count} VJPs{verb[1]}"


def _jvps(count: int, verb: tuple[str, str] = ("", "")) -> str:
    return f"{count} JVP{verb[0]}" if count == 1 else f"{count} JVPs{verb[1]}"


def _both(coloring: Coloring) -> str:
    return f"{_vjps(coloring.split.rows)} and {_jvps(coloring.split.columns)}"
