"""Marked places of a matrix in braille: eight dots to a character, a dot for a block of entries."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .numbers import count, number

Indices: TypeAlias = npt.NDArray[np.integer[Any]]
Counts: TypeAlias = npt.NDArray[np.int64]

# Unicode numbers the dots of a character down its left column, then its right one; the fourth row
# was added later and has the two highest bits.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_BLANK = 0x2800
_LEAST_DOTS = 16


@dataclass(frozen=True, slots=True)
class Places:
    """Marked places of an ``m x n`` matrix in CSR order; every place where the arrays are None."""

    shape: tuple[int, int]
    indptr: Indices | None = None
    indices: Indices | None = None

    @property
    def number(self) -> int:
        """How many places are marked."""
        return self.shape[0] * self.shape[1] if self.indptr is None else int(self.indptr[-1])


def places_facts(places: Places) -> str:
    """Say size, number of nonzeros, density, and the least and most in a row.

    >>> places_facts(Places((2, 3), np.array([0, 1, 3]), np.array([0, 1, 2])))
    '2 × 3, 3 nonzeros, density 50 %, 1 to 2 per row'
    >>> places_facts(Places((0, 3)))
    '0 × 3, no entries'
    """
    m, n = places.shape
    size = f"{count(m)} × {count(n)}"
    if m == 0 or n == 0:
        return f"{size}, no entries"
    per_row = np.array([n]) if places.indptr is None else np.diff(places.indptr)
    nonzeros = f"{count(places.number)} nonzero{'s' * (places.number != 1)}"
    low, high = count(per_row.min()), count(per_row.max())
    span = f"{low} per row" if low == high else f"{low} to {high} per row"
    return f"{size}, {nonzeros}, density {_density(places.number, m * n)}, {span}"


def _density(marked: int, size: int) -> str:
    percent = float(f"{100 * marked / size:.2g}")
    return "> 99 %" if percent == 100 and marked < size else f"{number(percent)} %"


def block_counts(places: Places, row_step: int, column_step: int) -> Counts:
    """Count the marked places in each block of `row_step` by `column_step` entries.

    >>> block_counts(Places((3, 3)), 2, 2)
    array([[4, 2],
           [2, 1]])
    """
    m, n = places.shape
    rows, columns = -(-m // row_step), -(-n // column_step)
    if places.indptr is None or places.indices is None:
        return np.outer(_block_lengths(m, row_step), _block_lengths(n, column_step))
    counts = np.zeros((rows, columns), dtype=np.int64)
    for row, (start, stop) in enumerate(block_row_bounds(places.indptr, row_step)):
        blocks = places.indices[start:stop] // column_step
        counts[row] = np.bincount(blocks, minlength=columns)
    return counts


def block_row_bounds(indptr: Indices, row_step: int) -> list[tuple[int, int]]:
    """Return where the entries of each block of rows start and stop: CSR keeps them together."""
    m = len(indptr) - 1
    bounds = indptr[np.minimum(np.arange(-(-m // row_step) + 1) * row_step, m)]
    return list(pairwise(bounds.tolist()))


def _block_lengths(size: int, step: int) -> Counts:
    return np.diff(np.append(np.arange(0, size, step, dtype=np.int64), size))


def braille_lines(places: Places, width: int = 60, height: int = 20) -> list[str]:
    """Draw in a frame of at most `width` by `height` characters, two dots by four in each.

    A dot stands for one entry while the matrix fits, else for a block that holds a marked place.
    Blocks are square, except that a side is not shrunk below 16 dots. The time is proportional to
    the number of marked places; a full matrix costs nothing.

    >>> print("\\n".join(braille_lines(Places((2, 3), np.array([0, 1, 3]), np.array([0, 1, 2])))))
    ┌──┐
    │⠑⠂│
    └──┘
    """
    if 0 in places.shape:
        return []
    steps = _square_steps(places.shape, 4 * height, 2 * width)
    rows = _characters(block_counts(places, *steps) > 0)
    edge = "─" * len(rows[0])
    lines = [f"┌{edge}┐", *(f"│{row}│" for row in rows), f"└{edge}┘"]
    if steps != (1, 1):
        lines.append(f"a dot: a nonzero among {count(steps[0])} × {count(steps[1])} entries")
    return lines


def _square_steps(shape: tuple[int, int], most_rows: int, most_columns: int) -> tuple[int, int]:
    needed = [-(-size // most) for size, most in zip(shape, (most_rows, most_columns), strict=True)]
    rows, columns = (
        min(max(needed), max(least, -(-size // _LEAST_DOTS)))
        for size, least in zip(shape, needed, strict=True)
    )
    return rows, columns


def _characters(dots: npt.NDArray[np.bool_]) -> list[str]:
    m, n = dots.shape
    padded = np.zeros((-(-m // 4) * 4, -(-n // 2) * 2), dtype=np.int64)
    padded[:m, :n] = dots
    cells = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1] // 2, 2)
    codes = _BLANK + np.einsum("rick,ik->rc", cells, _DOTS)
    return ["".join(map(chr, row)) for row in codes.tolist()]
