"""Arrays seen as matrices: how they are laid out, what range they span, how they are shrunk."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .numbers import number

FloatMatrix: TypeAlias = npt.NDArray[np.float64]


def as_matrix(values: npt.NDArray[Any]) -> tuple[FloatMatrix, str, str]:
    """Lay an array out as a matrix, and name the two axes by where they came from.

    Zero axes become 1 x 1, one axis a single row; more than two keep the last axis as columns.
    Booleans become 0 and 1, complex numbers their modulus. The matrix is a read-only copy.

    >>> as_matrix(np.zeros((2, 3, 4)))[1:], as_matrix(np.zeros((2, 3, 4)))[0].shape
    (('axes 0 x 1', 'axis 2'), (6, 4))
    """
    array = np.asarray(values)
    if np.iscomplexobj(array):
        array = np.abs(array)
    leading, columns = (array.shape[:-1], array.shape[-1]) if array.ndim else ((), 1)
    rows = int(np.prod(leading, dtype=np.int64))
    matrix = np.array(array, dtype=np.float64).reshape(rows, columns)
    matrix.setflags(write=False)
    return matrix, *_axis_names(array.ndim)


def _axis_names(ndim: int) -> tuple[str, str]:
    if ndim == 0:
        return "", ""
    last = ndim - 1
    if ndim <= 2:
        return ("axis 0" if last else ""), f"axis {last}"
    return "axes " + " x ".join(str(axis) for axis in range(last)), f"axis {last}"


def finite_limit(*matrices: FloatMatrix) -> float:
    """Return the largest finite modulus: the end of a color scale centred on zero."""
    ends = [np.abs(m[np.isfinite(m)]).max(initial=0.0) for m in matrices]
    return float(max(ends, default=0.0))


def describe(values: FloatMatrix, unit: str = "") -> str:
    """Say size, range, and how many entries are not finite.

    >>> describe(np.array([[1.0, -2.0, np.nan]]), "mm")
    '1 × 3, from -2 to 1 mm, 1 nan'
    """
    size = f"{values.shape[0]} × {values.shape[1]}"
    if values.size == 0:
        return f"{size}, no entries"
    infinite, missing = int(np.isinf(values).sum()), int(np.isnan(values).sum())
    parts = [size, _range(values, unit)]
    parts += [f"{missing} nan"] if missing else []
    parts += [f"{infinite} inf"] if infinite else []
    return ", ".join(parts)


def _range(values: FloatMatrix, unit: str) -> str:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "no finite entry"
    low, high = number(finite.min()), number(finite.max())
    span = f"from {low} to {high}" if finite.min() < finite.max() else f"all {low}"
    if finite.size < values.size and not finite.min() < finite.max():
        span = f"finite entries {low}"
    return f"{span} {unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Blocks of a matrix: `values[i, j]` is the entry of largest modulus among rows
    `i * row_step : (i + 1) * row_step` and columns `j * column_step : (j + 1) * column_step`."""

    values: FloatMatrix
    row_step: int
    column_step: int

    @property
    def note(self) -> str:
        """Say what one block stands for, or nothing where each is one entry."""
        if self.row_step == self.column_step == 1:
            return ""
        block = f"{self.row_step} × {self.column_step}"
        return f"each cell stands for {block} entries and shows the one of largest modulus"


def shrink(values: FloatMatrix, max_rows: int, max_columns: int) -> Shrunk:
    """Summarize a matrix by blocks until it has at most the given rows and columns."""
    row_step = max(1, -(-values.shape[0] // max_rows))
    column_step = max(1, -(-values.shape[1] // max_columns))
    if values.size == 0:
        return Shrunk(values[:max_rows, :max_columns], 1, 1)
    if row_step == column_step == 1:
        return Shrunk(values, 1, 1)
    rows, columns = -(-values.shape[0] // row_step), -(-values.shape[1] // column_step)
    padded = np.zeros((rows * row_step, columns * column_step))
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(rows, row_step, columns, column_step).swapaxes(1, 2)
    flat = blocks.reshape(rows, columns, row_step * column_step)
    # A nan must win its block: shrinking may hide small entries, never a broken one.
    weight = np.where(np.isnan(flat), np.inf, np.abs(flat))
    chosen = weight.argmax(axis=2)[..., np.newaxis]
    return Shrunk(np.take_along_axis(flat, chosen, axis=2)[..., 0], row_step, column_step)
