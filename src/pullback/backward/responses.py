"""What a pass answers to each cotangent of a basis: enough to know it for all their combinations.

Backward is linear in the cotangent. For a basis ``b_1 .. b_k`` and the weights ``w`` of
``v = sum_i w_i b_i``, every quantity ``q`` of the pass is ``w @ of[q]``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix by rows, a row per cotangent of the basis."""

    starts: Vector
    indices: Vector
    values: Vector
    width: int

    def combined(self, weights: Vector, magnitude: bool = False) -> Vector:
        """``weights @ self`` in float64; with ``magnitude`` the same of absolute values."""
        each = np.repeat(weights, np.diff(self.starts)).astype(np.float64)
        terms = each * self.values
        terms = np.abs(terms) if magnitude else terms
        return np.bincount(self.indices, terms, minlength=self.width)


@dataclass(frozen=True, eq=False)
class Structure:
    """The pattern of the Jacobian (rows: output elements, columns: leaf elements) and its colors.

    ``leaves`` are the places of the leaves that the columns belong to, in order. ``colors`` groups
    rows or columns, as ``by`` says; -1 is in no product.
    """

    shape: tuple[int, int]
    leaves: tuple[int, ...]
    starts: Vector
    columns: Vector
    by: Literal["rows", "columns", "none"]
    colors: Vector
    products: int
    reason: str


@dataclass(frozen=True, eq=False)
class Responses:
    """The basis, and the rows of every quantity that is known for it.

    ``kind`` is ``elements`` (one cotangent for each output element, in order), ``chosen`` (those
    named, whose entries are ``vectors``, as many columns as there are output elements) or
    ``none``; ``reason`` says why it is not more.
    """

    kind: Literal["elements", "chosen", "none"]
    names: tuple[str, ...] = ()
    vectors: Rows | None = None
    of: dict[int, Rows] = field(default_factory=dict)
    structure: Structure | None = None
    reason: str = ""


class SparseRow(NamedTuple):
    """The entries that are not 0. Their own copies: a view would keep the whole row."""

    indices: Vector
    values: Vector

    def dense(self, width: int) -> Vector:
        row = np.zeros(width)
        row[self.indices] = self.values
        return row


def sparse_row(entries: Vector) -> SparseRow:
    indices = np.flatnonzero(entries)
    return SparseRow(indices.astype(np.int32), entries[indices])


def rows_of(parts: list[SparseRow], dtype: Any, width: int) -> Rows:
    starts = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part.indices) for part in parts], out=starts[1:])
    indices = np.concatenate([np.zeros(0, np.int32), *(part.indices for part in parts)])
    values = np.concatenate([np.zeros(0), *(part.values for part in parts)])
    return Rows(starts, indices, values.astype(dtype), width)
