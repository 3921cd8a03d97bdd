"""The words that several refusals share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._trees import Tree


def shape_text(shape: Sequence[int]) -> str:
    return str(tuple(shape))


def dtype_text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def can_carry_gradients(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def article(value: object) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def layout(tree: Tree) -> str:
    """``(tensor, {'a': tensor})``: the structure of a pytree in a line."""
    if isinstance(tree, Tensor):
        return "tensor"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {layout(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, tuple):
        inner = ", ".join(map(layout, tree))
        return f"({inner},)" if len(tree) == 1 else f"({inner})"
    if isinstance(tree, list):
        return "[" + ", ".join(map(layout, tree)) + "]"
    return "None" if tree is None else type(tree).__name__


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shape_difference(value: Tensor, output: Tensor) -> str:
    if value.ndim != output.ndim:
        return f"One has {axes(value.ndim)}, the other {axes(output.ndim)}. "
    pairs = enumerate(zip(value.shape, output.shape, strict=True))
    parts = [f"axis {k} ({a} against {b})" for k, (a, b) in pairs if a != b]
    return f"They differ at {' and '.join(parts)}. "


def axes(n: int) -> str:
    return "1 axis" if n == 1 else f"{n} axes"


def shape_remedy(argument: str, name: str, value: Tensor, output: Tensor) -> str:
    remedies = []
    target = shape_text(output.shape)
    if value.ndim == 2 and value.shape[::-1] == output.shape:
        remedies.append(f"{argument}.t() if its rows are the columns of `{name}`")
    if value.numel() == output.numel():
        remedies.append(f"{argument}.reshape({target}) if its entries are already in C order")
    elif _broadcasts(value, output):
        remedies.append(f"{argument}.expand({target}) to repeat it along the missing axes")
    if not remedies:
        remedies.append(f"torch.ones_like({name}) and scale the entries that matter")
    return f"Write {', or '.join(remedies)}."


def _broadcasts(value: Tensor, output: Tensor) -> bool:
    try:
        return bool(torch.broadcast_shapes(value.shape, output.shape) == output.shape)
    except RuntimeError:
        return False
