"""Which node sent an exact 0: a mask, an index, or a factor that is 0 there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .birthlog import Sender
from .events import UserCall
from .finite import Index
from .graph import Port
from .origins import call_of

_MOST_STEPS = 20
_KEEPS_ENTRIES = tuple(
    "Mul Div Neg Sub Add Exp ToCopy Clone Sin Cos Tanh Sigmoid Pow Log Sqrt Alias".split()
)
_SELECTS = ("Slice", "Select", "Index", "IndexSelect", "Gather", "MaskedSelect", "Narrow", "Unbind")


@dataclass(frozen=True)
class ZeroSource:
    """``node`` sent the 0; ``why`` is a clause that follows its name; empty if it is not known."""

    node: str
    call: UserCall | None
    why: str


def zero_source(
    senders: Sequence[Sender],
    sent_by: Mapping[Port, Sequence[Sender]],
    shape: Index,
    element: Index,
) -> ZeroSource | None:
    """Follow an entry that is 0 up to the node whose saved mask or factor makes it 0.

    Steps only through nodes that work entry by entry, as long as there is one sender.
    """
    nearest: ZeroSource | None = None
    for _ in range(_MOST_STEPS):
        if len(senders) != 1:
            return nearest
        node, position = senders[0]
        name = _torch.node_name(node)
        why = _why(node, position, shape, element)
        found = ZeroSource(name, call_of(node), why)
        if why:
            return found
        nearest = nearest or found
        slots = _torch.slots(node)
        if not name.startswith(_KEEPS_ENTRIES) or len(slots) != 1 or slots[0].shape != shape:
            return nearest
        senders = sent_by.get(Port(node, 0), ())
    return nearest


def _why(node: Node, position: int, shape: Index, element: Index) -> str:
    name = _torch.node_name(node).rstrip("0123456789").removesuffix("Backward")
    if name in _SELECTS:
        return "which did not take this entry"
    rule = _RULES.get(name)
    if rule is None:
        return ""
    try:
        return rule(_torch.saved_values(node), position, shape, element)
    except (RuntimeError, KeyError):
        return ""


def _where(saved: Mapping[str, Tensor], position: int, shape: Index, element: Index) -> str:
    taken = bool(saved["condition"].expand(shape)[element])
    return "" if taken == (position == 0) else "which took its other branch there"


def _masked_fill(saved: Mapping[str, Tensor], position: int, shape: Index, element: Index) -> str:
    return "which filled this entry" if bool(saved["mask"].expand(shape)[element]) else ""


def _mul(saved: Mapping[str, Tensor], position: int, shape: Index, element: Index) -> str:
    factor = saved["other" if position == 0 else "self"]
    zero = isinstance(factor, Tensor) and bool((factor.expand(shape) == 0)[element])
    return "whose other factor is 0 there" if zero else ""


def _clamped(saved: Mapping[str, Tensor], position: int, shape: Index, element: Index) -> str:
    value = saved.get("self", saved.get("result"))
    if not isinstance(value, Tensor) or value.shape != torch.Size(shape):
        return ""
    return f"which is flat there (at {float(value[element]):.4g})"


_RULES: dict[str, Callable[[Mapping[str, Tensor], int, Index, Index], str]] = {
    "Where": _where,
    "MaskedFill": _masked_fill,
    "Mul": _mul,
    "Relu": _clamped,
    "Threshold": _clamped,
    "Clamp": _clamped,
    "ClampMin": _clamped,
    "ClampMax": _clamped,
}
