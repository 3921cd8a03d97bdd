"""What a leaf's ``.grad`` holds beside the deposit that the next backward would add."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _torch

_MOST_TIMES = 1000


def state_of_grad(tensor: Tensor, deposit: Tensor) -> str:
    """What is there now and what one more backward makes of it; a clause that follows a name."""
    if not tensor.is_leaf and not tensor.retains_grad:
        return (
            "it was computed, so a plain backward keeps no gradient for it; retain_grad(), or "
            "backward(..., inputs=...), would write this deposit to its .grad."
        )
    return _of_writable(tensor.grad, deposit) + _hooks_afterwards(tensor)


def _of_writable(grad: Tensor | None, deposit: Tensor) -> str:
    if grad is None:
        return (
            ".grad is None now. The next backward puts this deposit there, and a second one adds "
            "it again, giving exactly twice as much, unless .grad is zeroed (zero_(), or set to "
            "None) in between."
        )
    times = multiple(grad, deposit)
    if times == 0:
        return ".grad holds zeros, so the next backward leaves exactly this deposit there."
    if times is not None:
        return (
            f".grad already holds {times} time{'s' * (times != 1)} this deposit, as {times} "
            f"backward{'s' * (times != 1)} without zeroing leave it; one more makes it {times + 1} "
            f"times. Zero it before a backward that should stand alone."
        )
    return (
        ".grad already holds something that is no whole multiple of this deposit; the next "
        "backward adds the deposit to it. Zero it before a backward that should stand alone."
    )


def _hooks_afterwards(tensor: Tensor) -> str:
    names = _torch.post_accumulate_hook_names(tensor)
    return f" Then {', '.join(names)} runs on it, and may change it." if names else ""


def multiple(grad: Tensor, deposit: Tensor) -> int | None:
    """The number of deposits whose sum ``grad`` is, entry by entry, to the rounding of its dtype.

    0 for zeros; None where there is no such number up to 1000.
    """
    found = _wide(grad.detach())
    unit = _wide(deposit)
    if bool((found == 0).all()):
        return 0
    size = unit.abs()
    if not bool(size.isfinite().all()) or float(size.max()) == 0:
        return None
    top = int(size.reshape(-1).argmax())
    ratio = found.reshape(-1)[top] / unit.reshape(-1)[top]
    ratio = ratio.real if ratio.is_complex() else ratio
    if not 0.5 < float(ratio) < _MOST_TIMES:
        return None
    times = round(float(ratio))
    # Adding n equal numbers rounds n times, each time by at most half a unit of the sum.
    slack = times * torch.finfo(deposit.dtype).eps * size * times
    return times if bool(((found - times * unit).abs() <= slack).all()) else None


def _wide(tensor: Tensor) -> Tensor:
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return dense.to(torch.complex128 if dense.is_complex() else torch.float64)
