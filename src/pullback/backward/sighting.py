"""A sighting measured: which entry, what arrived there, what the node alone does to it."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import _torch
from .birth import Shown
from .birthlog import Sighting
from .events import UserCall
from .finite import Bad, Index, Value, all_finite, first_bad, value_at
from .formulas import formulas_of
from .local import (
    Rerun,
    derivative_at,
    element_alone,
    is_defined_at,
    is_regular_at,
    operands_at,
    rerun_of,
)
from .origins import call_of

_BY_ENTRY = ("ToCopy", "Neg", "Tan", "Sigmoid", "Gelu", "Silu", "Softplus", "LogSigmoid")


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the first bad contribution; fields that are not known are None or empty.

    ``inner`` is the entry of the node's own result behind ``element``: the engine sums what was
    broadcast. ``kept_finite_by`` is the power of 2 whose inverse makes the contribution finite.
    """

    name: str
    call: UserCall | None
    position: int
    count: int
    bad: Bad
    shape: Index
    dtype: torch.dtype
    formula: str
    inner: Index | None = None
    upstream: Value | None = None
    operands: dict[str, Shown] = field(default_factory=dict)
    derivative: Value | None = None
    defined: bool = True
    regular: bool = False
    rerun: Rerun | None = None
    alone_is_finite: bool | None = None
    halvings: int = 0
    for_zero: str = ""
    nan_saved: str = ""

    @property
    def regular_and_infinite(self) -> bool:
        """The derivative exists at this operand, and is too large for the dtype."""
        slope = self.derivative
        return self.regular and slope is not None and not cmath.isfinite(slope)


def facts_of(seen: Sighting) -> Facts:
    """Measure the first contribution of ``seen`` that is not finite, in the order of positions."""
    sent = [(k, t, first_bad(t)) for k, t in enumerate(seen.sent) if t is not None]
    position, tensor, bad = next((k, t, b) for k, t, b in sent if b is not None)
    name, lines = _torch.node_name(seen.node), formulas_of(_torch.node_name(seen.node))
    basic = Facts(
        name,
        call_of(seen.node),
        position,
        len(seen.sent),
        bad,
        tuple(tensor.shape),
        tensor.dtype,
        lines[min(position, len(lines) - 1)] if lines else "",
    )
    if seen.received is None:
        return basic
    alone = _torch.run_alone(seen.node, seen.received)
    own = None if alone is None or position >= len(alone) else alone[position]
    if own is None:
        return basic
    return _measured(basic, seen, own, seen.received)


def _measured(
    basic: Facts, seen: Sighting, own: Tensor, received: Sequence[Tensor | None]
) -> Facts:
    own = own.to_dense() if own.layout is not torch.strided else own
    inner = element_alone(own, basic.bad.element, basic.shape)
    finite = all_finite(own) and all_finite(_summed(own, basic))
    known = {
        **vars(basic),
        "inner": inner,
        "alone_is_finite": finite,
        "halvings": _halvings(seen, basic, received),
        "for_zero": _sent_for_zero(seen, basic, received),
        "nan_saved": _nan_saved(seen),
    }
    upstream = received[0] if len(received) == 1 else None
    if upstream is None or inner is None:
        return Facts(**known)
    rerun = rerun_of(seen.node, upstream)
    known["rerun"] = rerun
    if rerun is not None:
        known["operands"] = operands_at(rerun, inner)
    by_entry = rerun is not None and rerun.by_entry
    entrywise = rerun is not None or basic.name.startswith(_BY_ENTRY)
    if entrywise and (by_entry or upstream.shape == own.shape):
        known["upstream"] = value_at(upstream, inner)
    if rerun is not None and by_entry:
        known["derivative"] = derivative_at(seen.node, upstream, basic.position, inner)
        known["defined"] = is_defined_at(rerun, inner)
        known["regular"] = is_regular_at(rerun, inner, basic.position)
    return Facts(**known)


def _summed(own: Tensor, basic: Facts) -> Tensor:
    try:
        return own.sum_to_size(basic.shape).to(basic.dtype)
    except RuntimeError:
        return own


def _halvings(seen: Sighting, basic: Facts, received: Sequence[Tensor | None]) -> int:
    """The least k for which 2**-k times the upstream comes through finite; 0 if there is none."""
    tiny = 2.0 ** math.ceil(math.log2(torch.finfo(basic.dtype).tiny) * 0.9)
    if not _is_finite_for(seen, basic, received, tiny):
        return 0
    low, high = 0, math.ceil(-math.log2(tiny))  # 2**-low is too large, 2**-high fits
    while high - low > 1:
        middle = (low + high) // 2
        if _is_finite_for(seen, basic, received, 2.0**-middle):
            high = middle
        else:
            low = middle
    return high


def _is_finite_for(
    seen: Sighting, basic: Facts, received: Sequence[Tensor | None], scale: float
) -> bool:
    alone = _torch.run_alone(seen.node, [None if t is None else t * scale for t in received])
    own = None if alone is None else alone[basic.position]
    return own is not None and all_finite(own) and all_finite(_summed(own, basic))


def _sent_for_zero(seen: Sighting, basic: Facts, received: Sequence[Tensor | None]) -> str:
    """``nan`` or ``inf`` where even zeros come through as something else; else nothing."""
    alone = _torch.run_alone(seen.node, [None if t is None else t * 0 for t in received])
    own = None if alone is None else alone[basic.position]
    bad = None if own is None else first_bad(own.to_dense() if own.is_sparse else own)
    return "" if bad is None else bad.kind


def _nan_saved(seen: Sighting) -> str:
    saved = _torch.saved_values(seen.node).items()
    tensors = [(k, t) for k, t in saved if isinstance(t, Tensor) and t.layout is torch.strided]
    return next((k for k, t in tensors if bool(t.isnan().any())), "")
