"""A cotangent turned into data, and the comparison behind the conservation check."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import _checks
from .events import Cotangent
from .stats import Stats, in_memory_order, stats_of


def same_entries(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are views of the same memory that read every entry once.

    Then their statistics are the same, which spares a pass over the data at each reshape or
    transposition.
    """
    return (
        left.layout is torch.strided
        and right.layout is torch.strided
        and left.numel() == right.numel()
        and left.dtype == right.dtype
        and left.data_ptr() == right.data_ptr()
        and in_memory_order(left).is_contiguous()
        and in_memory_order(right).is_contiguous()
    )


def cotangent_of(
    tensor: Tensor,
    keep: Callable[[Tensor], Tensor | None],
    measured: Stats | None = None,
) -> Cotangent:
    """Statistics are taken now only where the values are not kept: kept ones can tell later."""
    values = keep(tensor)
    if values is None and measured is None:
        measured = stats_of(tensor)
    dtype, device = _checks.dtype_text(tensor.dtype), str(tensor.device)
    return Cotangent(tuple(tensor.shape), dtype, device, measured, values)


def add(left: Tensor, right: Tensor) -> Tensor:
    """The sum of two contributions, as the engine adds them."""
    if left.layout != right.layout and left.layout is not torch.strided:
        return right + left
    return left + right


def difference(expected: Tensor, found: Tensor) -> float:
    """The largest |expected - found| relative to the largest |found|; 0.0 for equal bits.

    Entries that are nan in both, or the same infinity in both, do not differ.
    """
    if expected.layout is torch.sparse_coo and found.layout is torch.sparse_coo:
        left, right = expected.coalesce(), found.coalesce()
        if torch.equal(left.indices(), right.indices()):
            return _dense_difference(left.values(), right.values())
    return _dense_difference(_plain(expected), _plain(found))


def _dense_difference(left: Tensor, right: Tensor) -> float:
    if left.shape != right.shape:
        return math.inf
    if torch.equal(left, right):
        return 0.0
    left, right = _wide(left), _wide(right)
    gap = (left - right).abs()
    equal = (left == right) | (left.isnan() & right.isnan())
    gap = torch.where(equal, torch.zeros_like(gap), gap)
    scale = right.abs()
    scale = torch.where(scale.isfinite(), scale, torch.zeros_like(scale)).max()
    worst = float(gap.max())
    if worst == 0:
        return 0.0
    return math.inf if not math.isfinite(worst) else worst / max(float(scale), 1e-300)


def _plain(tensor: Tensor) -> Tensor:
    strided = tensor.layout is torch.strided and not tensor.is_mkldnn
    return tensor if strided else tensor.to_dense()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
