"""Batches: which rows and columns belong to which sample, and the proof that none meets another."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _checks
from .._trees import Structure, Tree
from .arguments import Arguments
from .leaf import Leaf
from .pattern import SparsityPattern
from .plan import Plan

BLOCK_DIAGONAL = "block_diagonal"
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """``count`` samples, each of ``height`` rows and ``width`` columns: that of every row and of
    every column, and where these stand among those of their sample (``above``, ``within``)."""

    count: int
    of_rows: Ints
    of_cols: Ints
    above: Ints
    within: Ints
    height: int
    width: int


def samples_of(caller: str, outputs: Sequence[Leaf], inputs: Sequence[Leaf]) -> Samples:
    """One sample for each index of the first axis, which all tensors must share."""
    count = _checks.shared_batch(caller, outputs, inputs)
    rows, above, height = _numbered(outputs, count)
    cols, within, width = _numbered(inputs, count)
    return Samples(count, rows, cols, above, within, height, width)


def _numbered(leaves: Sequence[Leaf], count: int) -> tuple[Ints, Ints, int]:
    """The sample of every element, its place in that sample, and how many there are of these."""
    of, place, start = [], [], 0
    for leaf in leaves:
        size = _size(leaf)
        of.append(np.repeat(np.arange(count, dtype=np.int64), size))
        place.append(start + np.tile(np.arange(size, dtype=np.int64), count))
        start += size
    return np.concatenate(of), np.concatenate(place), start


def coupling(pattern: SparsityPattern, samples: Samples) -> tuple[int, int] | None:
    """An entry whose row and column belong to different samples, or None: all are independent."""
    if samples.count < 2 or not pattern.nnz:
        return None
    if pattern.is_full:
        return 0, int(np.flatnonzero(samples.of_cols != samples.of_rows[0])[0])
    rows = np.repeat(samples.of_rows, np.diff(pattern.indptr))
    across = rows != samples.of_cols[pattern.indices]
    if not across.any():
        return None
    entry = int(np.argmax(across))
    row = int(np.searchsorted(pattern.indptr, entry, side="right")) - 1
    return row, int(pattern.indices[entry])


def prove(caller: str, pattern: SparsityPattern, samples: Samples) -> None:
    """Refuse a pattern with an entry across samples: it names the call that couples them."""
    entry = coupling(pattern, samples)
    if entry is None:
        return
    row, col = entry
    a, b = int(samples.of_rows[row]), int(samples.of_cols[col])
    chain = None if pattern._story is None else pattern.why(row, col)
    link = None if chain is None else _coupling_link(chain.links, samples.count, b)
    ends = None if chain is None else (chain.output, chain.input)
    raise _checks.coupled_samples(caller, (a, b), ends, link)


# Calls of the backward that give elements another place in the shape, and join nothing.
_RESHAPES = frozenset(
    "view _unsafe_view reshape _reshape_alias squeeze unsqueeze permute transpose t clone "
    "contiguous alias detach".split()
)


def _coupling_link(links: Sequence[Any], count: int, sample: int) -> Any:
    """The call at which a chain, followed from its input, leaves ``sample``."""
    last = -1
    for k, link in enumerate(links):
        if not link.shape or link.shape[0] != count or link.index[0] != sample:
            break
        last = k
    ahead = links[max(last, 0) :]
    telling = [link for link in ahead if link.call not in _RESHAPES]
    return next(iter((*telling, *ahead)), None)


class SampleBlocks:
    """Lays the values of one plan out as a block for each sample."""

    def __init__(self, caller: str, plan: Plan) -> None:
        self.samples = samples_of(caller, plan.outputs, plan.inputs)
        prove(caller, plan.pattern, self.samples)
        self._outputs, self._inputs = plan.outputs, plan.inputs
        self._height, self._width = plan.pattern.shape[0], self.samples.width
        self._is_whole = plan.pattern.nnz == self._height * self._width
        self._places: dict[torch.device, Tensor] = {}
        self._pattern = plan.pattern

    def __call__(self, values: Tensor, arguments: Arguments, out: Structure) -> Tree:
        rows = self._rows(values).split([o.numel for o in self._outputs], dim=0)
        found = []
        sizes = [*map(_size, self._inputs)]
        for o, row in zip(self._outputs, rows, strict=True):
            pieces = row.split(sizes, dim=1)
            shaped = [
                piece.reshape(_shape(o) + _shape(i)[1:])
                for i, piece in zip(self._inputs, pieces, strict=True)
            ]
            found.append(arguments.in_selected(shaped))
        return out.rebuild(found)

    def _rows(self, values: Tensor) -> Tensor:
        """Shape ``(m, width)``: a row's entries in the columns of its own sample."""
        shape = self._height, self._width
        if self._is_whole:
            return values.reshape(shape)
        if values.device not in self._places:
            self._places[values.device] = torch.from_numpy(self._scattered()).to(values.device)
        zeros = values.new_zeros(self._height * self._width)
        return zeros.index_copy(0, self._places[values.device], values).reshape(shape)

    def _scattered(self) -> Ints:
        pattern = self._pattern
        rows = np.repeat(np.arange(self._height, dtype=np.int64), np.diff(pattern.indptr))
        return rows * self._width + self.samples.within[pattern.indices]


_made: weakref.WeakKeyDictionary[Plan, SampleBlocks] = weakref.WeakKeyDictionary()


def sample_blocks(caller: str, plan: Plan) -> SampleBlocks:
    """How to lay out a plan's values, worked out and proven once.

    Raises:
        ArgumentError: a tensor has no first axis, or they differ in its length.
        UnsupportedError: an entry of the plan's pattern lies across two samples.
    """
    if plan not in _made:
        _made[plan] = SampleBlocks(caller, plan)
    return _made[plan]


def _size(leaf: Leaf) -> int:
    """Of one sample of it."""
    return torch.Size(_shape(leaf)[1:]).numel()


def _shape(leaf: Leaf) -> tuple[int, ...]:
    return (*leaf.shape, 2) if leaf.dtype.is_complex else leaf.shape
