"""What a coloring is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import coloring as checks

_PRODUCTS = {
    "columns": "Jacobian-vector products",
    "rows": "vector-Jacobian products",
    "star": "Hessian-vector products",
    "acyclic": "Hessian-vector products",
}


class Split(NamedTuple):
    """How many of the products go by rows (``u @ J``) and how many by columns (``J @ t``).

    Those of a symmetric matrix are the same either way, and count as rows: backward passes.
    """

    rows: int
    columns: int


@dataclass(frozen=True, eq=False, repr=False)
class Coloring:
    """Colors for the rows or columns of an ``m x n`` pattern; one color is one product.

    ``kind`` is the rule that the colors obey and ``order`` the order that found them. ``colors``
    is int64, counted from 0; -1 is neutral: that row or column is in no product. Its length is
    ``n`` for ``columns``, ``m`` for ``rows``, ``m = n`` for ``star`` and ``acyclic``. For
    ``bidirectional`` it is ``m + n``: ``row_colors`` and then ``col_colors``, the latter numbered
    on from the former, as the products are.
    """

    kind: str
    order: str
    shape: tuple[int, int]
    colors: Tensor
    num_colors: int

    def __post_init__(self) -> None:
        # Compiled code indexes by these numbers without looking.
        checks.coloring_kind("Coloring", self.kind)
        m, n = self.shape
        length = {"rows": m, "bidirectional": m + n}.get(self.kind, n)
        size = self.colors.numel()
        ends = (int(self.colors.min()), int(self.colors.max())) if size else (-1, -1)
        checks.consistent_colors("Coloring", (size, *ends), length, self.num_colors)

    @property
    def is_symmetric(self) -> bool:
        """Whether it holds for symmetric matrices alone, whose entries it reads from mirrors."""
        return self.kind in ("star", "acyclic")

    @property
    def row_colors(self) -> Tensor:
        """The color of every row in products ``u @ J``, from 0; shape ``(m,)``."""
        m = self.shape[0]
        if self.kind == "columns":
            return torch.full((m,), -1, dtype=torch.int64)
        return self.colors[:m]

    @property
    def col_colors(self) -> Tensor:
        """The color of every column in products ``J @ t``, from 0; shape ``(n,)``."""
        m, n = self.shape
        if self.kind == "columns":
            return self.colors
        if self.kind == "bidirectional":
            own = self.colors[m:]
            return torch.where(own < 0, own, own - self.split.rows)
        return torch.full((n,), -1, dtype=torch.int64)

    @property
    def split(self) -> Split:
        """How many products go by rows, and how many by columns; the row products come first."""
        if self.kind == "bidirectional":
            rows = int(self.row_colors.max()) + 1 if self.shape[0] else 0
        else:
            rows = 0 if self.kind == "columns" else self.num_colors
        return Split(rows, self.num_colors - rows)

    def __repr__(self) -> str:
        m, n = self.shape
        if self.kind == "bidirectional":
            products = f"{self.split.rows} by rows, {self.split.columns} by columns"
        else:
            products = _PRODUCTS[self.kind]
        neutral = int((self.colors < 0).sum())
        idle = f", {neutral} neutral" if neutral else ""
        unit = "color" if self.num_colors == 1 else "colors"
        return (
            f"Coloring({self.kind} of {m} × {n}: {self.num_colors} {unit} = {products}{idle}; "
            f"order: {self.order})"
        )
