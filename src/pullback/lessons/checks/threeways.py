"""Lesson 7's last exercise: the learner's own function, and v'J of it in three ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pullback as pb

from ..checking import CrashedError, Outcome, Own, called, right, wrong
from ..values import difference, shown
from .several import given

Function = Callable[[Tensor], Tensor]


def judge_mine(answer: Any, own: Own) -> Outcome:
    f, x, v = given(answer, "my_f", "my_x", "my_v")
    if not isinstance(x, Tensor) or x.dtype != torch.float64:
        told = f"my_x is {shown(x) if not isinstance(x, Tensor) else x.dtype}."
        return wrong("give a float64 tensor: differences need its digits.", told)
    if x.numel() == 0 or not bool(x.isfinite().all()):
        return wrong("give a point of finite numbers, at least one.", f"my_x is {shown(x)}.")
    x = x.detach().clone()
    out, again = (called(f, (x.clone().requires_grad_(),), "On my_x, my_f") for _ in range(2))
    refusal = _unusable(out, again, v)
    if refusal is not None:
        return refusal
    try:
        by_matrix, ledger, wiggled = _three_ways(f, x, v.detach().to(out.dtype))
    except Exception as error:
        raise CrashedError(error, "On my_x, forward ran; one of the three ways") from error
    ways = f"On my_x:\n  matrix       {shown(by_matrix)}\n  ledger       {shown(ledger)}\n"
    ways += f"  differences  {shown(wiggled)}"
    if difference(ledger.float(), by_matrix) or difference(wiggled.float(), ledger):
        return wrong(
            "backward and differences see different functions. Something in my_f is cut off from "
            "the graph (.detach(), .data, .item()) or rewritten (a straight-through estimator), or "
            "my_x lies on a kink (relu at 0, a maximum attained twice), where there is no "
            "derivative.",
            ways,
        )
    return right("All three agree on your own function.")


def _three_ways(f: Function, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    ledger = pb.record(f(leaf), v, inputs={"x": leaf}, keep="tensors").deposits.get("x")
    ledger = torch.zeros_like(x) if ledger is None else ledger
    matrix = pb.jacobian(f)(x.clone()).reshape(v.numel(), -1).detach()
    by_matrix = (v.reshape(-1) @ matrix).reshape(x.shape)
    return by_matrix, ledger, _by_differences(f, x, v)


def _unusable(out: Any, again: Any, v: Any) -> Outcome | None:
    if not isinstance(out, Tensor) or out.numel() < 2:
        return wrong(
            "my_f returns a tensor of more than one entry: one row is no matrix.",
            f"my_f(my_x) is {shown(out)}.",
        )
    if out.is_complex():
        return wrong(
            "let my_f return real numbers, torch.view_as_real(y) for instance: a complex y has two "
            "for each entry.",
            f"my_f(my_x) is of {out.dtype}.",
        )
    if not bool(out.isfinite().all()):
        return wrong("move my_x to where my_f is finite.", f"my_f(my_x) is {shown(out)}.")
    if not torch.equal(out, again):
        return wrong(
            "my_f gives other numbers each time, so it has no one Jacobian. Draw random numbers "
            "outside of it.",
            f"On my_x:\n  first   {shown(out)}\n  second  {shown(again)}",
        )
    if not isinstance(v, Tensor) or v.shape != out.shape:
        has = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
        return wrong(
            "my_v weighs the entries of my_f(my_x), so it has the same shape.",
            f"my_f(my_x) has shape {tuple(out.shape)}, my_v has {has}.",
        )
    if not bool(v.isfinite().all()):
        return wrong("weights are finite numbers.", f"my_v is {shown(v)}.")
    if not out.requires_grad:
        return wrong(
            "something in my_f left the graph (.detach(), .item(), torch.no_grad(), an integer), "
            "so backward sees no x at all.",
            f"x requires grad, and my_f(x).requires_grad is {out.requires_grad}.",
        )
    return None


def _by_differences(f: Function, x: Tensor, v: Tensor) -> Tensor:
    steps = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape) * 1e-6
    with torch.no_grad():
        found = [(v * (f(x + step) - f(x - step))).sum() / 2e-6 for step in steps]
    return torch.stack(found).reshape(x.shape)
