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
    first = cotangent.reshape(-1)[0]
    if bool((cotangent == first).all()):
        return _constant(first, total, name)
    return _selection(cotangent, name) or _combination(cotangent, name)


def _constant(weight: Tensor, total: int, name: str) -> Meaning:
    value = weight.item()
    if total == 1:
        asks = f"which asks for the gradient of {name} itself"
        return Meaning("ones" if value == 1 else "constant", f"{_text(value)}, {asks}")
    if value == 1:
        return Meaning("ones", f"all ones, which asks for the gradient of {name}.sum()")
    asks = f"which asks for the gradient of {name}"
    if bool(weight == torch.ones_like(weight) / total):
        return Meaning("mean", f"1/{total} everywhere, {asks}.mean()")
    return Meaning("constant", f"{_text(value)} everywhere, {asks}.sum() times {_text(value)}")


def _text(value: complex | float) -> str:
    return str(value) if isinstance(value, complex) else number(value)


def _selection(cotangent: Tensor, name: str) -> Meaning | None:
    """Weights that are not 0 in one entry, or in some rows only."""
    hit = cotangent.nonzero()
    if len(hit) == 1:
        index = tuple(hit[0].tolist())
        entry = f"{name}[{', '.join(map(str, index))}]"
        value = cotangent[index].item()
        if value == 1:
            asks = f"which asks for one row of the Jacobian: the gradient of {entry} alone"
            return Meaning("one_hot", f"one-hot, {asks}")
        words = f"{_text(value)} in one entry, which asks for that times the gradient of {entry}"
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
    if cotangent.is_complex():
        return Meaning("weights", f"complex weights, {asks} (v.conj() * {name}).sum().real")
    total = float(cotangent.double().sum())
    tolerance = 8 * torch.finfo(cotangent.dtype).eps * cotangent.numel()
    if bool((cotangent >= 0).all()) and abs(total - 1) <= tolerance:
        return Meaning("average", f"weights that add up to 1, {asks} a weighted average of {name}")
    return Meaning("weights", f"weights, {asks} (v * {name}).sum()")
