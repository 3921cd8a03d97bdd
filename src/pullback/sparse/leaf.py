"""What a plan takes for granted of a tensor of the arguments or the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Leaf(NamedTuple):
    """A tensor leaf: its name in messages, its shape, its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Rows or columns that it takes: a complex element takes two, (re, im)."""
        return torch.Size(self.shape).numel() * (2 if self.dtype.is_complex else 1)

    @property
    def real_dtype(self) -> torch.dtype:
        return torch.empty(0, dtype=self.dtype).real.dtype


def leaf(name: str, tensor: Tensor) -> Leaf:
    return Leaf(name, tuple(tensor.shape), tensor.dtype)


def values_dtype(inputs: Sequence[Leaf], outputs: Sequence[Leaf]) -> torch.dtype:
    """Of a Jacobian's values: what the dtypes of inputs and outputs promote to, real."""
    dtype = inputs[0].real_dtype
    for entry in (*inputs, *outputs):
        dtype = torch.promote_types(dtype, entry.real_dtype)
    return dtype
