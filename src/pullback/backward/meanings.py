"""What a cotangent asks for, read from its entries: a sum, a mean, one row of the Jacobian."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..draw.numbers import count, number

_LISTED_ROWS = 8


class Meaning(NamedTuple):
    """A code for programs (``ones``, ``mean``, ``one_hot``...) and the words for people."""

    code: str
    words: str


def meaning_of(cotangent: Tensor, name: str) -> Meaning:
    """What differentiating ``name`` with this cotangent computes; the words follow "v is".

    ``v . out`` is the one number whose gradient it is; for complex outputs, its real part.
    """
    total = cotangent.numel()
    if total == 0:
        return Meaning("empty", "empty, as the output is: nothing flows back")
    if bool((cotangent == 0).all()):
        return Meaning("zeros", "all zeros: every gradient will be 0")
    nonfinite = total - int(cotangent.isfinite().sum())
    if nonfinite:
        return Meaning("non-finite", f"inf or nan in {count(nonfinite)} entries, which will spread")
    if cotangent.is_complex():
        return _complex(cotangent, name)
    first = cotangent.reshape(-1)[0]
    if bool((cotangent == first).all()):
        return _constant(first, total, name)
    return _selection(cotangent, name) or _combination(cotangent, name)


def _complex(cotangent: Tensor, name: str) -> Meaning:
    """torch's convention: the gradient that belongs to the real part of what v weighs."""
    if bool((cotangent == 1).all()):
        return Meaning("ones", f"all ones, which asks for the gradient of {name}.sum().real")
    asks = f"which ask for the gradient of (v.conj() * {name}).sum().real"
    return Meaning("weights", f"complex weights, {asks}")


def _constant(weight: Tensor, total: int, name: str) -> Meaning:
    value = float(weight)
    if total == 1:
        asks = f"which asks for the gradient of {name} itself"
        asks += "" if value == 1 else f" times {number(value)}"
        return Meaning("ones" if value == 1 else "constant", f"{number(value)}, {asks}")
    if value == 1:
        return Meaning("ones", f"all ones, which asks for the gradient of {name}.sum()")
    asks = f"which asks for the gradient of {name}"
    if bool(weight == torch.ones_like(weight) / total):
        return Meaning("mean", f"1/{total} everywhere, {asks}.mean()")
    return Meaning("constant", f"{number(value)} everywhere, {asks}.sum() times {number(value)}")


def _selection(cotangent: Tensor, name: str) -> Meaning | None:
    """Weights that are not 0 in one entry, or in some rows only."""
    hit = cotangent.nonzero()
    if len(hit) == 1:
        index = tuple(hit[0].tolist())
        entry = f"{name}[{', '.join(map(str, index))}]"
        value = float(cotangent[index])
        if value == 1:
            asks = f"which asks for one row of the Jacobian: the gradient of {entry} alone"
            return Meaning("one_hot", f"one-hot, {asks}")
        words = f"{number(value)} in one entry, which asks for that times the gradient of {entry}"
        return Meaning("one_entry", words)
    rows = hit[:, 0].unique().tolist()
    if cotangent.ndim < 2 or len(rows) == cotangent.shape[0] or len(rows) > _LISTED_ROWS:
        return None
    which = f"row {rows[0]}" if len(rows) == 1 else f"rows {', '.join(map(str, rows))}"
    words = f"0 outside of {which}"
    if bool((cotangent[rows] == 1).all()):
        return Meaning("rows", f"{words} and 1 inside, which asks for the gradient of their sum")
    return Meaning("rows", f"{words}, so no other entry of {name} counts")


def _combination(cotangent: Tensor, name: str) -> Meaning:
    asks = "which ask for the gradient of"
    total = float(cotangent.double().sum())
    tolerance = 4 * torch.finfo(cotangent.dtype).eps * float(cotangent.double().abs().sum())
    if bool((cotangent >= 0).all()) and abs(total - 1) <= tolerance:
        return Meaning("average", f"weights that add up to 1, {asks} a weighted average of {name}")
    return Meaning("weights", f"weights, {asks} (v * {name}).sum()")
