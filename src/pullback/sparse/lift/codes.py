"""Columns of few different numbers as short codes: what an assembly reads of every entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernels

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


def encoded(column: Floats) -> tuple[Ints, Floats]:
    """``(codes, table)`` with ``column == table[codes]``, codes as narrow as they can be."""
    codes, bits = _numbered(np.ascontiguousarray(column, dtype=np.float64).view(np.int64))
    return codes, bits.view(np.float64)


def encoded_together(
    first: tuple[Ints, Floats], second: tuple[Ints, Floats]
) -> tuple[Ints, Floats, Floats]:
    """One column of codes for two, with a table for each."""
    width = second[1].size
    codes, pairs = _numbered(first[0].astype(np.int64) * width + second[0])
    return codes, first[1][pairs // width], second[1][pairs % width]


def _numbered(column: npt.NDArray[np.int64]) -> tuple[Ints, npt.NDArray[np.int64]]:
    most = np.iinfo(np.uint16).max
    codes: Ints = np.empty(column.size, dtype=np.uint16)
    table = np.empty(min(column.size, most), dtype=np.int64)
    count = kernels.number_distinct(column, codes, table)
    if count < 0:
        found, which = np.unique(column, return_inverse=True)
        return which.astype(np.int32), found
    return codes.astype(np.uint8) if count <= 256 else codes, table[:count].copy()
