"""Words for a set of entries of a tensor: ``inp[:, 0]``, "every entry of inp"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LISTED = 4


@dataclass(frozen=True)
class Region:
    """The smallest box of indices that holds a set, and how many entries of the box it has.

    ``axes[d]`` are the touched indices along axis ``d``.
    """

    shape: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    touched: int

    @property
    def box(self) -> int:
        size = 1
        for axis in self.axes:
            size *= len(axis)
        return size

    @property
    def is_everything(self) -> bool:
        return self.touched == int(np.prod(self.shape, dtype=np.int64))


def region_of(touched: npt.NDArray[np.bool_]) -> Region:
    """The region of the True entries of a mask."""
    axes = tuple(
        tuple(int(i) for i in np.flatnonzero(touched.any(axis=_others(touched.ndim, axis))))
        for axis in range(touched.ndim)
    )
    return Region(touched.shape, axes, int(touched.sum()))


def _others(ndim: int, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(ndim) if k != axis)


def region_text(region: Region, name: str) -> str:
    """``inp[:, 0]``, ``every entry of inp``, ``3 of the 8 entries of inp[0:2, :]``, ``nothing``."""
    if region.touched == 0:
        return f"nothing of {name}"
    if region.is_everything:
        return f"every entry of {name}" if region.shape else name
    box = f"{name}[{', '.join(map(_axis_text, region.axes, region.shape))}]"
    if region.touched == region.box:
        return box
    return f"{region.touched} of the {region.box} entries of {box}"


def _axis_text(indices: tuple[int, ...], size: int) -> str:
    if len(indices) == size:
        return ":"
    if len(indices) == 1:
        return str(indices[0])
    first, last = indices[0], indices[-1]
    if last - first + 1 == len(indices):
        return f"{first}:{last + 1}"
    shown = ", ".join(map(str, indices[:_LISTED]))
    return f"[{shown}{', ...' if len(indices) > _LISTED else ''}]"


def moving_region(regions: Sequence[Region], name: str) -> str | None:
    """One subscript in ``i`` for all of ``regions[i]``, or None: ``inp[:, i]``, ``inp[4 - i]``."""
    first = regions[0]
    if len(regions) < 2 or any(r.touched == 0 or r.touched != r.box for r in regions):
        return None
    parts = []
    moves = 0
    for axis, size in enumerate(first.shape):
        sets = [r.axes[axis] for r in regions]
        if all(s == sets[0] for s in sets):
            parts.append(_axis_text(sets[0], size))
            continue
        step = _step(sets)
        if step is None:
            return None
        moves += 1
        parts.append(step)
    return f"{name}[{', '.join(parts)}]" if moves == 1 else None


def _step(sets: Sequence[tuple[int, ...]]) -> str | None:
    """``i``, ``i + 2``, ``4 - i``, ``i:i + 3`` where the k-th set is that at ``i == k``."""
    starts = [s[0] for s in sets]
    lengths = {len(s) for s in sets}
    contiguous = all(s[-1] - s[0] + 1 == len(s) for s in sets)
    if len(lengths) != 1 or not contiguous:
        return None
    length, origin = lengths.pop(), starts[0]
    if starts == [origin + k for k in range(len(sets))]:
        begin = _plus("i", origin)
    elif starts == [origin - k for k in range(len(sets))]:
        begin = f"{origin} - i"
    elif length > 1 and starts == [origin + length * k for k in range(len(sets))]:
        begin, end = _plus(f"{length}*i", origin), _plus(f"{length}*i", origin + length)
        return f"{begin}:{end}"
    else:
        return None
    if length == 1:
        return begin
    return f"{begin}:{_plus('i', origin + length)}" if begin[0] == "i" else None


def _plus(term: str, offset: int) -> str:
    return term if offset == 0 else f"{term} + {offset}"
