"""Values that the program of the products writes itself: the torch side of a ``Script``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled.places import Placed, Strided
from .lift.strided import Script, Term, Walk, Write

Segments = Sequence[Tensor]
# Above so many reads, a segment is put into memory once.
_READS = 2


class Fused:
    """``pieces`` of the values, from the products of each factor in flat segments, and their
    ``places``. By torch's own calls alone, which a compiler sees through."""

    def __init__(self, script: Script, dtype: torch.dtype, device: torch.device) -> None:
        self._script, self._dtype, self._device = script, dtype, device
        places: list[Strided | Tensor] = [Strided(w.start, w.steps, w.shape) for w in script.writes]
        if script.scattered.entries.size:
            places.append(self._tensor(script.scattered.entries))
        self._held = _read_often(script)
        self.placed = Placed(script.size, dtype, device, tuple(places), len(self._held))

    def pieces(self, products: Sequence[Segments]) -> list[Tensor]:
        found = [self._written(write, products) for write in self._script.writes]
        if self._script.scattered.entries.size:
            found.append(self._picked(products))
        return found + [products[k][segment] for k, segment in self._held]

    def _written(self, write: Write, products: Sequence[Segments]) -> Tensor:
        total: Tensor | None = None
        for k, term in enumerate(write.terms):
            shape = write.shape if not write.summed else (write.summed[k],)
            found = self._product(term, products, shape)
            found = found.sum() if write.summed else found
            found = found if term.weight == 1 else found * term.weight
            total = found if total is None else total + found
        if total is None:
            return self._full(write.shape, write.constant)
        return total if write.constant == 0 else total + write.constant

    def _product(self, term: Term, products: Sequence[Segments], shape: tuple[int, ...]) -> Tensor:
        read = [
            _read(products[k][walk.segment], walk, shape)
            for k, walk in enumerate((term.first, term.second))
            if walk is not None
        ]
        if not read:
            return self._full(shape, 1.0)
        return read[0] if len(read) == 1 else read[0] * read[1]

    def _full(self, shape: tuple[int, ...], value: float) -> Tensor:
        return torch.full(shape, value, dtype=self._dtype, device=self._device)

    @cached_property
    def _pools(self) -> list[tuple[list[tuple[int, Tensor]], bool, Tensor]]:
        """For each factor, which elements of which segments the scattered entries read, whether
        they read the 1 behind them, and where in those, one after the other, each term reads."""
        scattered, found = self._script.scattered, []
        both = (scattered.first, scattered.second)
        for cuts, places in zip(self._script.cuts, both, strict=False):
            used, where = np.unique(places, return_inverse=True)
            segment = np.searchsorted(cuts, used, side="right") - 1
            last = len(cuts) - 1
            reads = [
                (int(s), self._tensor(used[segment == s] - cuts[s]))
                for s in np.unique(segment[segment < last])
            ]
            found.append((reads, bool((segment == last).any()), self._tensor(where.reshape(-1))))
        return found

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        scattered = self._script.scattered
        weights, constants = (
            torch.from_numpy(np.ascontiguousarray(a)).to(self._device, self._dtype)
            for a in (scattered.weights, scattered.constants)
        )
        return weights, constants

    def _picked(self, products: Sequence[Segments]) -> Tensor:
        weights, constants = self._weights
        product: Tensor | None = None
        for segments, (reads, one, where) in zip(products, self._pools, strict=True):
            pool = [segments[s].index_select(0, at) for s, at in reads]
            pool += [self._full((1,), 1.0)] if one else []
            if not pool:
                continue
            whole = pool[0] if len(pool) == 1 else torch.cat(pool)
            found = whole.index_select(0, where).view(weights.shape)
            product = found if product is None else product * found
        if product is None:
            return constants
        # What weighs nothing is no term: 0 * inf would be one.
        return torch.where(weights != 0, product * weights, 0).sum(0) + constants

    def _tensor(self, places: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(places, dtype=np.int64)).to(self._device)


def _read_often(script: Script) -> list[tuple[int, int]]:
    """The segments, factor by factor, that would be computed anew for many a read."""
    reads = Counter(
        (k, walk.segment)
        for write in script.writes
        for term in write.terms
        for k, walk in enumerate((term.first, term.second))
        if walk is not None
    )
    return [segment for segment, count in reads.items() if count > _READS]


def _read(segment: Tensor, walk: Walk, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1:
        return _line(segment, walk.base, walk.strides[0], shape[0])
    (jump, stride), (lines, size) = walk.strides, shape
    if jump == 0:
        return _line(segment, walk.base, stride, size).expand(shape)
    row, column = divmod(walk.base, jump)
    rows = segment.view(-1, jump)[row : row + lines]
    if stride == 0:
        return rows[:, column : column + 1].expand(shape)
    return rows[:, column : column + stride * (size - 1) + 1 : stride]


def _line(segment: Tensor, base: int, stride: int, size: int) -> Tensor:
    if stride == 0:
        return segment[base : base + 1].expand(size)
    last = base + stride * (size - 1)
    if stride < 0:
        return segment[last : base + 1 : -stride].flip(0)
    return segment[base : last + 1 : stride]
