"""Statistics of cotangents as they pass, and the comparison behind the conservation check."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import _checks
from .events import Cotangent, Stats

EMPTY = Stats(0.0, 0.0, 0.0, 0.0, 0)
# Squares leave the range of a float outside of these, so the norm is taken again in float64.
_SAFE_NORM = {torch.float64: (1e-150, 1e150), torch.complex128: (1e-150, 1e150)}
_SAFE_NORM_SINGLE = (1e-15, 1e18)


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
    return tensor, copies, 0


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
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    if values.numel() == 1:
        stats = _single(values.item(), copies)
        return stats if implied == 0 else _with_implied(stats, implied, total)
    least, greatest = (float(bound) for bound in torch.aminmax(values))
    finite = math.isfinite(least) and math.isfinite(greatest)
    norm = _norm(values, least, greatest) * math.sqrt(copies) if finite else _unbounded(values)
    zeros = 0 if least > 0 or greatest < 0 else values.numel() - int(values.count_nonzero())
    nonfinite = 0 if finite else int((~values.isfinite()).sum()) * copies
    stats = Stats(norm, least, greatest, zeros / values.numel(), nonfinite)
    return stats if implied == 0 else _with_implied(stats, implied, total)


def _single(value: float, copies: int) -> Stats:
    finite = math.isfinite(value)
    norm = abs(value) * math.sqrt(copies)
    return Stats(norm, value, value, float(value == 0), 0 if finite else copies)


def _norm(values: Tensor, least: float, greatest: float) -> float:
    norm = float(torch.linalg.vector_norm(values))
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
        and _reads_once(left)
        and _reads_once(right)
    )


def _reads_once(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (tensor.ndim >= 2 and tensor.mT.is_contiguous())


def cotangent_of(
    tensor: Tensor,
    keep: Callable[[Tensor], Tensor | None],
    stats: Stats | None = None,
) -> Cotangent:
    return Cotangent(
        tuple(tensor.shape),
        _checks.dtype_text(tensor.dtype),
        str(tensor.device),
        stats_of(tensor) if stats is None else stats,
        keep(tensor),
    )


def add(left: Tensor, right: Tensor) -> Tensor:
    """The sum of two contributions, as the engine adds them."""
    if left.layout != right.layout and left.layout is not torch.strided:
        return right + left
    return left + right


def difference(expected: Tensor, found: Tensor) -> float:
    """The largest |expected - found| relative to the largest |found|; 0.0 for equal bits.

    Entries that are nan in both, or the same infinity in both, do not differ.
    """
    left, right = _plain(expected), _plain(found)
    if left.shape != right.shape:
        return math.inf
    if torch.equal(left, right):
        return 0.0
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
    dense = tensor.to_dense() if tensor.layout is not torch.strided or tensor.is_mkldnn else tensor
    narrow = dense.dtype not in (
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    )
    return dense.float() if narrow else dense
