"""Derivatives by differences alone: a witness that shares no code with any backward.

It says of each entry how far it may be off, and where there is no derivative at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Steps are these powers of the precision, relative to the argument: truncation spoils the longest,
# rounding the shortest, and what is noise shows between the two.
POWERS = (1 / 6, 1 / 4, 1 / 3, 2 / 5, 1 / 2)
WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}


@dataclass(frozen=True)
class Slope:
    """``J u`` for each output, how far it may be off, where the function has no derivative, and
    which entries no step has moved."""

    values: tuple[Tensor, ...]
    errors: tuple[Tensor, ...]
    rough: tuple[Tensor, ...]
    still: tuple[Tensor, ...]

    def is_flat(self) -> bool:
        """Whether the function is constant along the direction, but for jumps."""
        pairs = zip(self.still, self.rough, strict=True)
        return all(bool((still | rough).all()) for still, rough in pairs)


def slope(moved: Callable[[float], tuple[Tensor, ...]], reach: float, eps: float) -> Slope:
    """Central differences at several steps; of each entry the extrapolation that is surest.

    ``moved(h)`` are the outputs h further on; ``reach`` is the longest way that can be gone, and
    ``eps`` the precision of the outputs. Steps h > k with slopes of error O(h^2) give
    D(k) + (D(k) - D(h)) k^2 / (h^2 - k^2).
    """
    steps = [reach * eps**power for power in POWERS]
    here = moved(0.0)
    ahead, behind = [moved(h) for h in steps], [moved(-h) for h in steps]
    entries = [
        _of_output(base, [a[n] for a in ahead], [b[n] for b in behind], steps, eps)
        for n, base in enumerate(here)
    ]
    values, errors, rough, still = zip(*entries, strict=True) if entries else ((), (), (), ())
    return Slope(values, errors, rough, still)


def _of_output(
    base: Tensor, ahead: Sequence[Tensor], behind: Sequence[Tensor], steps: list[float], eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    slopes = [(a - b) / (2 * h) for a, b, h in zip(ahead, behind, steps, strict=True)]
    noise = _noise(base, slopes, steps, eps)
    best, error = _extrapolated(slopes, steps, noise)
    jumps = _jumps(base, ahead, behind, 64 * eps * largest(base))
    rough = _kinked(base, ahead, behind, steps, noise, best) | jumps | ~best.isfinite()
    still = torch.stack([out == base for out in (*ahead[1:], *behind[1:])]).all(0)
    # What the longest step moves and no shorter one does is rounded to something coarse.
    coarse = still & ((ahead[0] != base) | (behind[0] != base))
    error = error.masked_fill(coarse, float("inf"))
    return best, error, rough, still


def _noise(base: Tensor, slopes: Sequence[Tensor], steps: Sequence[float], eps: float) -> Tensor:
    """How far the outputs may be off by themselves: rounding, and what the two shortest steps show
    of it, at the entry and at the others."""
    seen = torch.zeros_like(base.abs())
    for fine, h in zip(slopes[-2:], steps[-2:], strict=True):
        off = ((fine - slopes[2]).abs() * h).nan_to_num(0.0, 0.0, 0.0)
        seen = torch.maximum(seen, off)
    others = float(seen.median()) if seen.numel() else 0.0  # by chance its own may be small
    return seen + others + 4 * eps * largest(base)


def _extrapolated(
    slopes: Sequence[Tensor], steps: Sequence[float], noise: Tensor
) -> tuple[Tensor, Tensor]:
    best, error = slopes[-1], torch.full_like(noise, float("inf"))
    for h, k, wide, fine in zip(steps, steps[1:], slopes, slopes[1:], strict=False):
        found = fine + (fine - wide) * k**2 / (h**2 - k**2)
        doubt = (fine - wide).abs() * k / h + noise / k
        surer = doubt < error  # never where a step has left the domain
        best, error = torch.where(surer, found, best), torch.where(surer, doubt, error)
    return best, error


def _kinked(
    base: Tensor,
    ahead: Sequence[Tensor],
    behind: Sequence[Tensor],
    steps: Sequence[float],
    noise: Tensor,
    best: Tensor,
) -> Tensor:
    """Where the slopes on the two sides do not meet as the steps get shorter."""
    bends = [(a - 2 * base + b).abs() for a, b in zip(ahead, behind, strict=True)]
    sharp = (bends[2] / steps[2] > 0.2 * bends[0] / steps[0]) & (bends[2] > 4 * noise)
    return sharp & (bends[2] / steps[2] > 1e-6 * best.abs())


def _jumps(
    base: Tensor, ahead: Sequence[Tensor], behind: Sequence[Tensor], rounding: float
) -> Tensor:
    """Where the two sides stay apart as the steps get shorter."""
    sides = list(zip(ahead[1:], behind[1:], strict=True))
    found = torch.zeros_like(base, dtype=torch.bool)
    for gaps in ([(a - 2 * base + b).abs() for a, b in sides], [(a - b).abs() for a, b in sides]):
        least, most = torch.stack(gaps).amin(0), torch.stack(gaps).amax(0)
        found |= (least > rounding) & (most < 1.01 * least)
    return found


def largest(tensor: Tensor) -> float:
    """The largest absolute value among the finite entries."""
    return float(tensor.abs().nan_to_num(0.0, 0.0, 0.0).amax()) if tensor.numel() else 0.0


def bound_text(error: float) -> str:
    """What an estimated error is below, as a power of ten.

    >>> bound_text(3e-11), bound_text(0.0)
    ('1e-9', '0')
    """
    if not 0 < error < math.inf:
        return "0" if error == 0 else str(error)
    return f"1e{math.ceil(math.log10(10 * error))}"
