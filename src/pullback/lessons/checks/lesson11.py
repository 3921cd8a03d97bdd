"""The exercises of lesson 11: why a gradient is missing, modified or not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checking import CrashedError, Exercise, Outcome, Own, called, right, wrong
from ..values import difference, shown
from .births import BIRTHPLACE
from .verdicts import judge_verdict

_LISTS = (
    ([1.0, -2.0, 3.0], 0.1),
    ([[1.0, 2.0], [3.0, 4.0]], -2.0),
    ([5.0], 1.0),
    ([3, -4], 2),
)


def _judge_leaf(answer: Any, own: Own) -> Outcome:
    for values, scale in _LISTS:
        call = f"On values = {values}, scale = {scale}, it"
        w = called(answer, (values, scale), call)
        expected = torch.tensor(values, dtype=torch.float32) * scale
        if not isinstance(w, Tensor) or difference(w, expected):
            told = f"{call} gave {shown(w)}; right is {shown(expected)}."
            return wrong("the tensor holds scale * values.", told)
        if w.dtype != torch.float32:
            return wrong(
                "float32 is asked for: give the dtype when the tensor is made, while it has no "
                "graph.",
                f"{call} gave {w.dtype}.",
            )
        if not w.requires_grad:
            return wrong(
                "it does not require grad. Ask for that last, with .requires_grad_().",
                f"{call} gave a tensor whose requires_grad is False.",
            )
        if not w.is_leaf:
            made = w.grad_fn.name() if w.grad_fn is not None else "an operation"
            return wrong(
                "it was computed from a leaf, and is none itself: its .grad stays None. Do the "
                "arithmetic first, and make the result a leaf.",
                f"{call} gave a tensor that {made} made; is_leaf is False.",
            )
        (w * w).sum().backward()
        if w.grad is None or difference(w.grad, 2 * expected):
            told = f"{call}: after (w * w).sum().backward(), w.grad is {shown(w.grad)}."
            return wrong("its .grad is not that of this backward alone.", told)
    return right("Arithmetic first, requires_grad_() last.")


def broken(x: Tensor) -> Tensor:
    y = x.exp()
    y += 1
    y[0] = 0.0
    return y * y


def _vectors() -> list[Tensor]:
    return [
        torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64),
        torch.tensor([-1.0, 2.0, 0.25, -3.0], dtype=torch.float64),
    ]


def _judge_in_place(answer: Any, own: Own) -> Outcome:
    for x in _vectors():
        call = f"On x = {shown(x)}, it"
        leaf = x.clone().requires_grad_()
        came = called(answer, (leaf,), call)
        expected = broken(x.clone())
        if not isinstance(came, Tensor) or difference(came, expected):
            told = f"{call} gave {shown(came)}; broken(x) gives {shown(expected)}."
            return wrong(_value_hint(x, came), told)
        if not torch.equal(leaf.detach(), x):
            return wrong("x itself has been written to; it is the caller's.", f"{call} changed x.")
        hint, told = _gradient_of(came, leaf, x)
        if hint:
            return wrong(hint, f"{call} {told}")
    return right("The same values, and the gradient that belongs to them.")


def _value_hint(x: Tensor, came: Any) -> str:
    if not difference(came, (x.exp() + 1) ** 2):
        return "y[0] = 0.0 is part of the program: the first entry is 0."
    return "a repair computes what the broken program computes."


def _gradient_of(came: Tensor, leaf: Tensor, x: Tensor) -> tuple[str, str]:
    """A hint and what shows it, or two empty texts. The truth is (e^x + 1)^2, differentiated by
    hand, and 0 at the first entry."""
    if not came.requires_grad:
        return (
            "without a graph there is nothing to repair: .detach() and .data silence the error and "
            "the gradient with it.",
            "gave a tensor that has no graph.",
        )
    expected = 2 * (x.exp() + 1) * x.exp()
    expected[0] = 0.0
    try:
        (gradient,) = torch.autograd.grad(came.sum(), leaf)
    except RuntimeError as error:
        return (
            "backward still needs numbers that were overwritten: those of exp, if they are changed "
            "in place; those of y, if it is changed after y * y has saved it. Make a new tensor.",
            f"has a backward that raised: {str(error).split(' Hint:')[0]}",
        )
    if not difference(gradient, expected):
        return "", ""
    told = f"has gradient {shown(gradient)}; right is {shown(expected)}."
    hidden = 2 * (x.exp() + 1) * (x.exp() + 1)
    hidden[0] = 0.0
    if not difference(gradient, hidden):
        return (
            "the write was hidden from the version counter, so exp took exp(x) + 1 for its result. "
            "A silent wrong number is worse than the error: write y = y + 1.",
            told,
        )
    if not difference(gradient[0], 2 * (x.exp() + 1)[0] * x.exp()[0]) or gradient[0] != 0:
        return "the first entry is the constant 0, so its gradient is 0.", told
    return "the gradient is not that of the values.", told


def _points() -> list[Tensor]:
    lists = ([4.0, 1.0, 0.25], [0.0, 1.0], [-4.0, 9.0], [1e-8, 0.0, -1.0, 100.0])
    return [torch.tensor(entries, dtype=torch.float64) for entries in lists]


def _judge_root(answer: Any, own: Own) -> Outcome:
    for x in _points():
        call = f"On x = {shown(x)}, it"
        leaf = x.clone().requires_grad_()
        came = called(answer, (leaf,), call)
        expected = x.clamp(min=0).sqrt()
        if not isinstance(came, Tensor) or difference(came, expected):
            told = f"{call} gave {shown(came)}; right is {shown(expected)}."
            return wrong(_root_hint(x, came, expected), told)
        if not came.requires_grad:
            return wrong("the result has no graph; the gradient is asked for, too.", f"{call}: so.")
        gradient = _root_gradient(came, leaf, call)
        if gradient is None:
            return wrong("the result must come from x as it was given.", f"{call}: no path to x.")
        slope = torch.zeros_like(x)
        slope[x > 0] = 0.5 / x[x > 0].sqrt()
        if difference(gradient, slope):
            told = f"{call} has gradient {shown(gradient)}; right is {shown(slope)}."
            return wrong(_slope_hint(gradient), told)
    return right("The root never sees a number whose slope is infinite.")


def _root_gradient(came: Tensor, leaf: Tensor, call: str) -> Tensor | None:
    try:
        (gradient,) = torch.autograd.grad(came.sum(), leaf, allow_unused=True)
    except RuntimeError as error:
        raise CrashedError(error, f"{call} gave the right values; its backward") from error
    return gradient


def _root_hint(x: Tensor, came: Any, expected: Tensor) -> str:
    if not isinstance(came, Tensor) or came.shape != x.shape:
        return "the result is a tensor of the shape of x."
    if bool(came.isnan().any()):
        return "the root of a negative number is NaN: the result is 0 there."
    if bool((came.detach() - expected).abs().max() < 0.1):
        return (
            "a small number added under the root changes the values, at 0 by its own root. Mask, "
            "do not shift."
        )
    return "the root of x where x > 0, and 0 elsewhere."


def _slope_hint(gradient: Tensor) -> str:
    if bool(gradient.isnan().any()):
        return (
            "0 from the mask, times the infinite slope of the root: NaN. The mask on the result "
            "comes too late on the way back; give the root a harmless number where x is not "
            "positive."
        )
    if bool(gradient.isinf().any()):
        return "the root was still taken at 0, where its slope is infinite: feed it something else."
    return "1 / (2 sqrt(x)) where x > 0, and exactly 0 elsewhere."


EXERCISES = {
    "leaf": Exercise(
        _judge_leaf,
        crashes=(
            (
                "nly Tensors of floating point",
                "[3, -4] is a list of whole numbers, which cannot require grad: give "
                "dtype=torch.float32 when the tensor is made.",
            ),
        ),
    ),
    "verdict": Exercise(judge_verdict),
    "in-place": Exercise(_judge_in_place),
    "birthplace": BIRTHPLACE,
    "safe-root": Exercise(
        _judge_root,
        crashes=(
            (
                "modified by an inplace operation",
                "the root saved its result for its backward, and that was written to afterwards. "
                "Mask with torch.where, the input as well as the result.",
            ),
        ),
    ),
}
