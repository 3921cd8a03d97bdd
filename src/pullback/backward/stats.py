"""Numbers about the entries of one tensor, each exact to the rounding of its dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stats:
    """What a reader wants to know of a tensor's entries.

    ``norm`` is the 2-norm; ``min`` and ``max`` are of the entries (of their moduli if the tensor
    is complex; nan if any entry is nan); ``zeros`` is the share of entries equal to 0, between 0
    and 1; ``nonfinite`` counts inf and nan. For a tensor without entries all are 0.
    """

    norm: float
    min: float
    max: float
    zeros: float
    nonfinite: int


EMPTY = Stats(0.0, 0.0, 0.0, 0.0, 0)
# Squares leave the range of a float outside of these, so the norm is taken again in float64.
_SAFE_NORM = {torch.float64: (1e-150, 1e150), torch.complex128: (1e-150, 1e150)}
_SAFE_NORM_SINGLE = (1e-15, 1e18)
_WORTH_A_KERNEL = 65_536
_MEASURED_AS_THEY_ARE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def entries(tensor: Tensor) -> tuple[Tensor, int, int]:
    """The stored entries as a dense tensor, how often each occurs, and how many zeros are implied.

    An expanded tensor (the gradient of a sum) is read once, not once per copy; a sparse tensor is
    read through its values.
    """
    if tensor.layout is not torch.strided or tensor.is_mkldnn:
        if tensor.layout is torch.sparse_coo:
            values = tensor.coalesce().values()
            return values, 1, tensor.numel() - values.numel()
        return tensor.to_dense(), 1, 0
    copies = 1
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
            copies *= size
    return in_memory_order(tensor), copies, 0


def in_memory_order(tensor: Tensor) -> Tensor:
    """The axes permuted so that entries follow each other in memory.

    Reductions read a transposed tensor several times slower than the same memory in order.
    """
    if tensor.is_contiguous():
        return tensor
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda axis: -strides[axis]))


def stats_of(tensor: Tensor) -> Stats:
    """Statistics of every entry of ``tensor``, each exact to the rounding of its dtype."""
    total = tensor.numel()
    if total == 0:
        return EMPTY
    values, copies, implied = entries(tensor)
    if values.numel() == 0:
        return Stats(0.0, 0.0, 0.0, 1.0, 0)
    if values.is_complex():
        values = values.abs()
    if values.dtype not in _MEASURED_AS_THEY_ARE:
        values = values.float()
    if values.numel() == 1:
        stats = _single(values.item(), copies)
        return stats if implied == 0 else _with_implied(stats, implied, total)
    stats = _in_one_pass(values, copies) or _number_by_number(values, copies)
    return stats if implied == 0 else _with_implied(stats, implied, total)


def _in_one_pass(values: Tensor, copies: int) -> Stats | None:
    """By the compiled kernel, for what it is worth loading it for; None for everything else."""
    plain = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    if not plain or values.numel() < _WORTH_A_KERNEL or not values.is_contiguous():
        return None
    measure = one_pass_kernel()
    if measure is None:
        return None
    squares, least, greatest, zeros = measure(values.detach().reshape(-1).numpy())
    norm = math.sqrt(squares) if math.isfinite(squares) else math.inf
    low, high = _SAFE_NORM.get(values.dtype, _SAFE_NORM_SINGLE)
    if not (low < norm < high or zeros == values.numel()):
        return None
    return Stats(norm * math.sqrt(copies), least, greatest, zeros / values.numel(), 0)


@cache
def one_pass_kernel() -> Callable[[npt.NDArray[Any]], tuple[float, float, float, int]] | None:
    """None where numba cannot compile or store what it compiled."""
    try:
        from .kernels import measure

        measure(np.ones(1, dtype=np.float32))
    except Exception:  # numba fails in many ways; torch then measures as well, only slower
        return None
    return measure


def _number_by_number(values: Tensor, copies: int) -> Stats:
    least, greatest = (float(bound) for bound in torch.aminmax(values))
    finite = math.isfinite(least) and math.isfinite(greatest)
    norm = _norm(values, least, greatest) * math.sqrt(copies) if finite else _unbounded(values)
    zeros = 0 if least > 0 or greatest < 0 else _zeros(values)
    nonfinite = 0 if finite else int((~values.isfinite()).sum()) * copies
    return Stats(norm, least, greatest, zeros / values.numel(), nonfinite)


def _single(value: float, copies: int) -> Stats:
    finite = math.isfinite(value)
    norm = abs(value) * math.sqrt(copies)
    return Stats(norm, value, value, float(value == 0), 0 if finite else copies)


def _zeros(values: Tensor) -> int:
    """torch counts with a branch per entry, five times slower where zeros come at random."""
    if values.device.type == "cpu" and values.numel() > 4096:
        return int(np.count_nonzero((values == 0).numpy()))
    return values.numel() - int(values.count_nonzero())


def _norm(values: Tensor, least: float, greatest: float) -> float:
    wide = torch.float64 if values.dtype is torch.float64 else torch.float32
    norm = float(torch.linalg.vector_norm(values, dtype=wide))
    low, high = _SAFE_NORM.get(values.dtype, _SAFE_NORM_SINGLE)
    if low < norm < high or (least == 0 and greatest == 0):
        return norm
    scale = max(abs(least), abs(greatest))
    return float(torch.linalg.vector_norm(values.double() / scale)) * scale


def _unbounded(values: Tensor) -> float:
    return math.nan if bool(values.isnan().any()) else math.inf


def _with_implied(stats: Stats, implied: int, total: int) -> Stats:
    stored = total - implied
    return Stats(
        stats.norm,
        min(stats.min, 0.0),
        max(stats.max, 0.0),
        (stats.zeros * stored + implied) / total,
        stats.nonfinite,
    )
