"""What the builders of cotangents are given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .._errors import ArgumentError, TreeError
from .._trees import Tree
from .leaves import leaves_of
from .words import (
    article,
    axes,
    can_carry_gradients,
    dtype_text,
    shape_difference,
    shape_remedy,
    shape_text,
)


def one_tensor(caller: str, argument: str, value: object) -> Tensor:
    """A single floating point or complex tensor, for builders that address its entries."""
    if not isinstance(value, Tensor):
        if isinstance(value, (tuple, list, dict)):
            raise TreeError(
                f"{caller}: `{argument}` is {article(value)}, not a tensor. Build one cotangent "
                f"per output and put them into {article(value)} like the outputs."
            )
        raise TreeError(
            f"{caller}: `{argument}` is {article(value)}, not a tensor. Pass the output itself."
        )
    _weighable(caller, argument, value)
    return value


def cotangent_targets(caller: str, argument: str, value: Tree) -> None:
    leaves = leaves_of(caller, argument, value)
    for name, tensor in zip(leaves.names, leaves.tensors, strict=True):
        _weighable(caller, name, tensor)


def _weighable(caller: str, name: str, tensor: Tensor) -> None:
    if not can_carry_gradients(tensor.dtype):
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}, and only floating point and "
            f"complex tensors have cotangents. Convert it with .float() or .double()."
        )


def entry(caller: str, out: Tensor, index: tuple[int, ...]) -> None:
    if len(index) != out.ndim:
        numbers = "1 number" if len(index) == 1 else f"{len(index)} numbers"
        raise ArgumentError(
            f"{caller}: `index` has {numbers}, but `out` has {axes(out.ndim)} "
            f"(shape {shape_text(out.shape)}); an entry is named by one number per axis. "
            f"Use cotangents.rows or cotangents.mask to weigh more than one entry."
        )
    for axis, (k, size) in enumerate(zip(index, out.shape, strict=True)):
        if not isinstance(k, int) or isinstance(k, bool):
            raise ArgumentError(
                f"{caller}: `index` holds {k!r} at axis {axis}; it must be a whole number. "
                f"Use cotangents.rows or cotangents.mask to weigh more than one entry."
            )
        if not -size <= k < size:
            raise ArgumentError(
                f"{caller}: `index` is {k} at axis {axis}, but `out` has shape "
                f"{shape_text(out.shape)}. {_range_of(axis, size)}"
            )


def _range_of(axis: int, size: int) -> str:
    if size == 0:
        return f"Axis {axis} is empty: there is no entry to name."
    return f"Use a number from {-size} to {size - 1} there."


def rows_of(caller: str, out: Tensor, weights: Mapping[int, float | Tensor]) -> None:
    if out.ndim == 0:
        raise ArgumentError(
            f"{caller}: `out` has shape (), so it has no rows. Use cotangents.ones(out) and scale "
            f"it."
        )
    if not isinstance(weights, Mapping):
        raise ArgumentError(
            f"{caller}: `weights` is {article(weights)}, not a mapping. Write {{row: weight}}, "
            f"such as {{0: 1.0}}."
        )
    size = out.shape[0]
    places: dict[int, int] = {}
    for row, weight in weights.items():
        if not isinstance(row, int) or isinstance(row, bool):
            raise ArgumentError(
                f"{caller}: `weights` names row {row!r}; a row is named by a whole number."
            )
        if not -size <= row < size:
            raise ArgumentError(
                f"{caller}: `weights` names row {row}, but `out` has shape "
                f"{shape_text(out.shape)}. {_range_of(0, size)}"
            )
        if row % size in places:
            raise ArgumentError(
                f"{caller}: `weights` names one row as {places[row % size]} and as {row}. Give "
                f"their sum once."
            )
        places[row % size] = row
        if isinstance(weight, Tensor) and weight.shape not in (out.shape[1:], ()):
            raise ArgumentError(
                f"{caller}: the weight of row {row} has shape {shape_text(weight.shape)}, but a "
                f"row of `out` has shape {shape_text(out.shape[1:])}. Give one weight per entry of "
                f"the row, or a number for all of it."
            )


def boolean_mask(caller: str, out: Tensor, chosen: object) -> None:
    if not isinstance(chosen, Tensor) or chosen.dtype != torch.bool:
        found = (
            f"has dtype {dtype_text(chosen.dtype)}"
            if isinstance(chosen, Tensor)
            else f"is {article(chosen)}"
        )
        raise ArgumentError(
            f"{caller}: `chosen` {found}; it must be a boolean tensor. Write a comparison, such as "
            f"out > 0, or chosen.bool()."
        )
    if chosen.shape != out.shape:
        raise ArgumentError(
            f"{caller}: `chosen` has shape {shape_text(chosen.shape)}, but `out` has shape "
            f"{shape_text(out.shape)}; the two are paired entry by entry. "
            f"{shape_difference(chosen, out)}{shape_remedy('chosen', 'out', chosen, out)}"
        )
    if chosen.device != out.device:
        raise ArgumentError(
            f"{caller}: `chosen` is on {chosen.device}, but `out` is on {out.device}. Write "
            f"chosen.to(out.device)."
        )


def usable_sum(caller: str, total: Tensor) -> None:
    if total == 0 or not torch.isfinite(total):
        raise ArgumentError(
            f"{caller}: the weights of `v` add up to {total.item()}, and cannot be scaled to add "
            f"up to 1. Divide by v.abs().sum() or v.norm() if the size of v is what matters."
        )
