"""Whether a tensor's entries are all finite, and where the first that is not stands."""

from __future__ import annotations

import cmath
from dataclasses import dataclass

import torch
from torch import Tensor

from .stats import entries

Value = float | complex
Index = tuple[int, ...]

_SUMMED_WIDE = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Bad:
    """The first entry (in C order) that is not finite, and how many there are."""

    element: Index
    value: Value
    count: int

    @property
    def kind(self) -> str:
        return "nan" if cmath.isnan(self.value) else "inf"


def all_finite(tensor: Tensor) -> bool:
    """A sum is finite only if every term is: one pass, and a second where the sum overflowed."""
    if tensor.numel() == 0:
        return True
    values, _, _ = entries(tensor)
    if values.numel() == 0:
        return True
    wide = torch.float32 if values.dtype in _SUMMED_WIDE else None
    try:
        total = values.sum(dtype=wide).item()
    except (RuntimeError, NotImplementedError):  # types that torch stores and does not add
        values = values.float()
        total = values.sum().item()
    return cmath.isfinite(total) or bool(values.isfinite().all())


def plain(tensor: Tensor) -> Tensor:
    """The entries as a dense tensor that nothing else writes to; sparse ones are laid out."""
    dense = tensor.detach()
    if dense.layout is not torch.strided or dense.is_mkldnn:
        dense = dense.to_dense()
    return dense.clone()


def first_bad(tensor: Tensor, kind: str | None = None) -> Bad | None:
    """The first entry that is not finite; with ``kind``, the first nan, or the first inf."""
    flags = flagged(tensor, kind)
    count = int(flags.sum())
    if not count:
        return None
    place = int(flags.reshape(-1).to(torch.uint8).argmax())
    element = index_of(place, tuple(tensor.shape))
    return Bad(element, value_at(tensor, element), count)


def flagged(tensor: Tensor, kind: str | None = None) -> Tensor:
    if kind is None:
        return ~tensor.isfinite()
    return tensor.isnan() if kind == "nan" else tensor.isinf()


def index_of(place: int, sizes: Index) -> Index:
    found = []
    for size in reversed(sizes):
        found.append(place % size)
        place //= size
    return tuple(reversed(found))


def value_at(tensor: Tensor, element: Index) -> Value:
    value = tensor[element].item()
    return value if isinstance(value, complex) else float(value)
