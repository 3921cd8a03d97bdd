"""What a stepper is asked: where to go, what to show, what to put in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import ArgumentError, CotangentError
from .words import article, dtype_text, shape_text

_TOLD = 12


def byte_budget(caller: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ArgumentError(
            f"{caller}: `budget` is {value!r}; it must be a whole number of bytes, from 0 on "
            f"(0: nothing is kept, and back() is not possible)."
        )


def pass_is_over(caller: str, count: int) -> ArgumentError:
    return ArgumentError(
        f"{caller}: the pass is over, all {count} nodes have run. back() undoes the last step; "
        f"finish() gives the deposits."
    )


def nothing_to_undo(caller: str, forgotten: int) -> ArgumentError:
    if forgotten:
        return ArgumentError(
            f"{caller}: what came before is forgotten ({forgotten} steps and edits): it took more "
            f"than the budget. Begin anew with pb.step(..., budget=...) and more bytes."
        )
    return ArgumentError(f"{caller}: nothing has been done yet: this is the start of the pass.")


def already_added(caller: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: finish(accumulate=True) has added the deposits of this pass to .grad, which is "
        f"neither undone nor done twice. Begin anew with pb.step(...)."
    )


def place_in_pass(caller: str, node: object, count: int) -> int:
    """A node by its turn, or as the stepper shows it."""
    index = getattr(node, "index", node)
    if not isinstance(index, int) or isinstance(index, bool):
        raise ArgumentError(
            f"{caller}: `node` is {article(node)}; it must be one of the stepper's `nodes`, or its "
            f"number."
        )
    if not -count <= index < count:
        raise ArgumentError(
            f"{caller}: `node` is {index}, but the pass has {count} nodes, numbered from 0."
        )
    return index % count


def slot_of_node(caller: str, slot: object, label: str, slots: int) -> None:
    if not isinstance(slot, int) or isinstance(slot, bool) or not 0 <= slot < slots:
        there = "only slot 0" if slots == 1 else f"slots 0 to {slots - 1}"
        raise ArgumentError(f"{caller}: `slot` is {slot!r}, but {label} has {there}.")


def step_is_forgotten(caller: str, label: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: what {label} received is forgotten: it took more than the budget. Begin anew "
        f"with pb.step(..., budget=...) and more bytes."
    )


def nothing_to_edit(caller: str, label: str, slot: int) -> ArgumentError:
    return ArgumentError(
        f"{caller}: nothing has arrived at slot {slot} of {label}, so there is nothing for a "
        f"function to change. Pass a tensor."
    )


def replacement(
    caller: str,
    value: object,
    label: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """A cotangent to be put in the place of another."""
    if not isinstance(value, Tensor):
        raise CotangentError(
            f"{caller}: {label} was to receive {article(value)}, not a tensor. Pass a tensor of "
            f"shape {shape_text(shape)}, or a function that makes one from what arrived."
        )
    if tuple(value.shape) != shape:
        raise CotangentError(
            f"{caller}: the tensor has shape {shape_text(value.shape)}, but {label} receives a "
            f"cotangent of shape {shape_text(shape)}; the two are paired entry by entry."
        )
    if value.dtype != dtype:
        raise CotangentError(
            f"{caller}: the tensor has dtype {dtype_text(value.dtype)}, but {label} receives a "
            f"cotangent of dtype {dtype_text(dtype)}. Write .to(torch.{dtype_text(dtype)})."
        )
    if value.device != device:
        raise CotangentError(
            f"{caller}: the tensor is on {value.device}, but {label} receives its cotangent on "
            f"{device}. Write .to({str(device)!r})."
        )
    return value


def no_stop(caller: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: until what? Pass nonfinite=True, norm_ratio=10.0, op='Exp', line='model.py:12' "
        f"(or line=12), or a function of the step that says when to stop."
    )


def function_of_step(caller: str, value: object) -> Callable[[Any], object]:
    if not callable(value):
        raise ArgumentError(
            f"{caller}: `predicate` is {article(value)}; it must be a function of the step that "
            f"says when to stop, such as lambda step: step.norm_ratio > 10."
        )
    return value


def ratio(caller: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentError(f"{caller}: `norm_ratio` is {article(value)}; it must be a number.")
    if not (math.isfinite(value) and value > 0 and value != 1):
        raise ArgumentError(
            f"{caller}: `norm_ratio` is {value!r}; it must be above 1 to stop where the norm grows "
            f"so much in a step, or between 0 and 1 to stop where it shrinks so much."
        )
    return float(value)


def known_op(caller: str, op: object, known: Sequence[str]) -> None:
    told = ", ".join(known[:_TOLD]) + (", ..." if len(known) > _TOLD else "")
    raise ArgumentError(f"{caller}: no node of this pass is named {op!r}; there are {told}.")


def known_line(caller: str, line: object, known: Sequence[str]) -> None:
    if not known:
        raise ArgumentError(
            f"{caller}: no node of this pass knows the line that made it. Compute the outputs "
            f"inside `with pb.trace():`."
        )
    told = ", ".join(known[:_TOLD]) + (", ..." if len(known) > _TOLD else "")
    raise ArgumentError(f"{caller}: no node of this pass was made at {line!r}; lines are {told}.")
