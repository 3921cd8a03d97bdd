"""All statistics of a large array in one pass over its memory; compiled on first use.

torch reads the array once for each number, and counts zeros with a temporary array. Blocks of
4,096 entries stay in the first cache while several simple loops, each of which vectorizes, go over
them. Least and greatest are found among the bits as integers: for floats, reinterpreted with the
lower bits of negative numbers flipped, the order is the same, and integers vectorize.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

_BLOCK = 4096


@njit(fastmath={"reassoc", "contract", "nsz"}, nogil=True, cache=True)
def _squares(values: Any) -> Any:
    total = values[0] * values[0]
    for k in range(1, values.size):
        total += values[k] * values[k]
    return total


@njit(nogil=True, cache=True)
def _zeros(bits: Any, mask: Any) -> int:
    found = 0
    for k in range(bits.size):
        found += (bits[k] & mask) == 0
    return found


@njit(nogil=True, cache=True)
def _least(bits: Any, shift: Any, mask: Any) -> Any:
    found = mask
    for k in range(bits.size):
        found = min(found, bits[k] ^ ((bits[k] >> shift) & mask))
    return found


@njit(nogil=True, cache=True)
def _greatest(bits: Any, shift: Any, mask: Any) -> Any:
    found = ~mask
    for k in range(bits.size):
        found = max(found, bits[k] ^ ((bits[k] >> shift) & mask))
    return found


@njit(nogil=True, cache=True)
def _all(values: Any, bits: Any, shift: Any, mask: Any) -> Any:
    total, zeros, least, greatest = 0.0, 0, mask, ~mask
    for start in range(0, values.size, _BLOCK):
        stop = min(values.size, start + _BLOCK)
        some = bits[start:stop]
        total += _squares(values[start:stop])
        zeros += _zeros(some, mask)
        least = min(least, _least(some, shift, mask))
        greatest = max(greatest, _greatest(some, shift, mask))
    return total, zeros, least, greatest


def measure(values: npt.NDArray[Any]) -> tuple[float, float, float, int]:
    """Sum of squares, least, greatest and the number of zeros of a flat float32 or float64 array.

    Where the sum of squares is not finite, the others need not mean anything.
    """
    integer: Any = np.int32 if values.dtype == np.float32 else np.int64
    info = np.iinfo(integer)
    shift, mask = integer(info.bits - 1), integer(info.max)
    total, zeros, *ends = _all(values, values.view(integer), shift, mask)
    keys: Any = np.array(ends, dtype=integer)
    least, greatest = (keys ^ ((keys >> shift) & mask)).view(values.dtype)
    return float(total), float(least), float(greatest), int(zeros)
