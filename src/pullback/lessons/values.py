"""Comparing what an answer gave with what is right, and showing both in a few lines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SHOWN = 40


def difference(came: Any, expected: Any) -> str:
    """How two values differ, in words; empty where they agree up to rounding.

    Numbers, lists and arrays may stand for tensors; tuples and dicts are compared item by item.

    >>> difference([1.0, 2.0], torch.tensor([1.0, 2.0]))
    ''
    >>> difference(torch.ones(2, 3), torch.ones(3, 2))
    'The shape is (2, 3); it should be (3, 2).'
    >>> difference(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.0]))
    'They differ first at [1]: 5 against 2.'
    """
    if isinstance(expected, str | bool) or expected is None:
        same = isinstance(came, str | bool | np.bool_ | None) and came == expected
        return "" if same else f"{came!r} is not {expected!r}."
    if isinstance(expected, dict):
        return _of_dicts(came, expected)
    if isinstance(expected, tuple):
        return _of_tuples(came, expected)
    a, b = as_tensor(came), as_tensor(expected)
    if a is None or b is None:
        return f"It gave a {type(came).__name__}, not a {type(expected).__name__}."
    return _of_tensors(a, b)


def as_tensor(value: Any) -> Tensor | None:
    """A tensor, an array, a number or a list of numbers as a tensor; None for anything else."""
    if isinstance(value, Tensor):
        return value.detach().to_dense() if value.layout is not torch.strided else value.detach()
    if isinstance(value, bool | str) or value is None:
        return None
    if isinstance(value, list | tuple) and value and all(isinstance(v, Tensor) for v in value):
        alike = len({v.shape for v in value}) == 1
        return torch.stack([v.detach() for v in value]) if alike else None
    try:
        return torch.as_tensor(np.array(value, order="C"))  # torch takes no negative strides
    except (TypeError, ValueError):
        return None


def shown(value: Any) -> str:
    """A value in few characters: the numbers of a small tensor, the shape of a large one."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shown(v)}" for key, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
    tensor = as_tensor(value)
    if tensor is None:
        return repr(value)
    if tensor.numel() > _SHOWN:
        return f"a tensor of shape {tuple(tensor.shape)}"
    return _numbers(tensor.tolist())


def _numbers(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_numbers, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _of_dicts(came: Any, expected: dict[Any, Any]) -> str:
    if not isinstance(came, dict) or set(came) != set(expected):
        keys = sorted(came) if isinstance(came, dict) else f"a {type(came).__name__}"
        return f"The keys are {keys}; they should be {sorted(expected)}."
    found = ((key, difference(came[key], right)) for key, right in expected.items())
    return next((f"At {key!r}: {text}" for key, text in found if text), "")


def _of_tuples(came: Any, expected: tuple[Any, ...]) -> str:
    if isinstance(came, Tensor | np.ndarray) and came.ndim:
        came = tuple(came)
    if not isinstance(came, tuple | list) or len(came) != len(expected):
        many = len(came) if isinstance(came, tuple | list) else f"a {type(came).__name__}"
        return f"It should be {len(expected)} values; it is {many}."
    pairs = enumerate(zip(came, expected, strict=True))
    found = ((k, difference(a, b)) for k, (a, b) in pairs)
    return next((f"At position {k}: {text}" for k, text in found if text), "")


def _of_tensors(came: Tensor, expected: Tensor) -> str:
    if came.shape != expected.shape:
        return f"The shape is {tuple(came.shape)}; it should be {tuple(expected.shape)}."
    if came.numel() == 0:
        return ""
    rounding = max(_rounding(came), _rounding(expected))
    a, b = came.to(torch.float64), expected.to(torch.float64)
    finite = b[b.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    close = torch.isclose(a, b, rtol=rounding, atol=rounding * scale, equal_nan=True)
    if bool(close.all()):
        return ""
    place = [int(i) for i in (~close).nonzero()[0]]
    values = f"{float(a[tuple(place)]):.6g} against {float(b[tuple(place)]):.6g}"
    return f"They differ first at {place}: {values}." if place else f"They differ: {values}."


def _rounding(tensor: Tensor) -> float:
    """What an answer may be off by, relative to the largest entry: some hundred roundings."""
    exact = not tensor.is_floating_point()
    return 1e-9 if exact else math.sqrt(torch.finfo(tensor.dtype).eps) * 0.3
