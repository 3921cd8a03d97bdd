"""Derivatives of a Function's forward, by differences alone: a witness that shares no code with its
backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._differences import WIDE, Slope, largest, slope
from .audit_call import UNKNOWN, Call


class NoForward(Exception):  # noqa: N818 - no error: the audit says less
    """Why forward cannot be run again."""


@dataclass(frozen=True)
class Forward:
    """Forward at the point of a call, in double precision where the Function bears it.

    ``outputs`` are the places of the outputs that a cotangent can reach.
    """

    call: Call
    arguments: tuple[Any, ...]
    places: tuple[int, ...]
    eps: float

    def at(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        found = run(self.call, arguments)
        return tuple(found[k].detach() for k in self.places)

    def slope(self, place: int, direction: Tensor) -> Slope:
        """The change of all outputs along ``direction`` in the argument at ``place``."""
        point = self.arguments[place]
        size = float(point.abs().amax()) or 1.0 if point.numel() else 1.0
        reach = size / (float(direction.abs().amax()) or 1.0)

        def moved(step: float) -> tuple[Tensor, ...]:
            changed = list(self.arguments)
            changed[place] = point + step * direction.to(point.dtype)
            return self.at(changed)

        return slope(moved, reach, self.eps)


def forward_of(call: Call, like: Sequence[Tensor | None]) -> Forward:
    """Raises NoForward where an argument is gone, or forward does not give the same twice."""
    gone = [a.name for a in call.arguments if a.value is UNKNOWN]
    if gone:
        raise NoForward(
            f"{', '.join(f'`{name}`' for name in gone)} could not be had: neither saved, nor a "
            f"leaf. pb.audit_function({call.name}, ...) tries it at arguments of yours"
        )
    places = tuple(k for k, t in enumerate(like) if t is not None)
    plain = [a.value.detach() if isinstance(a.value, Tensor) else a.value for a in call.arguments]
    try:
        first, again = run(call, plain), run(call, plain)
        if not all(map(_equal, first, again)):
            raise NoForward("forward draws random numbers, and a difference needs the same twice")
        wide = _widened(call, plain, first, places)
    except NoForward:
        raise
    except Exception as error:
        raise NoForward(
            f"forward could not be run again ({type(error).__name__}: {error})"
        ) from None
    arguments = plain if wide is None else wide
    dtypes = [t.dtype for t in run(call, arguments) if isinstance(t, Tensor)]
    eps = max(
        torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point or dtype.is_complex
    )
    return Forward(call, tuple(arguments), places, eps)


def run(call: Call, arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Forward on copies, without a graph: it may write into what it is given."""
    own = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    with torch.no_grad():
        return call.applied(own)


def _widened(
    call: Call, plain: Sequence[Any], outputs: Sequence[Any], places: Sequence[int]
) -> list[Any] | None:
    """The arguments in double precision; None where forward does not follow them there."""
    wide = [a.to(WIDE.get(a.dtype, a.dtype)) if isinstance(a, Tensor) else a for a in plain]
    try:
        found = run(call, wide)
    except Exception:  # a kernel for float32 alone, say
        return None
    for k in places:
        a, b = found[k], outputs[k]
        if a.dtype != WIDE.get(b.dtype, b.dtype) or a.shape != b.shape:
            return None
        if not torch.allclose(a.to(b.dtype), b, rtol=0.02, atol=0.02 * largest(b), equal_nan=True):
            return None
    return wide


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True)
    return True
