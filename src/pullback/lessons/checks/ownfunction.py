"""Lesson 12's last exercise: the learner's own Function on trial."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checking import CrashedError, Outcome, Own, called, generator, right, wrong
from ..values import difference, shown
from .several import given

_STEP, _EQUAL = 1e-5, 1e-5


def judge_mine(answer: Any, own: Own) -> Outcome:
    function, x = given(answer, "MyFunction", "my_x")
    if not isinstance(function, type) or not issubclass(function, torch.autograd.Function):
        return wrong(
            "MyFunction is the class itself, a torch.autograd.Function.",
            f"MyFunction is {shown(function)}.",
        )
    if not isinstance(x, Tensor) or x.dtype != torch.float64 or x.numel() < 2:
        has = f"{x.dtype}, {x.numel()} entries" if isinstance(x, Tensor) else shown(x)
        return wrong("my_x is a float64 tensor of at least two entries.", f"my_x is {has}.")
    x = x.detach()
    if not bool(x.isfinite().all()):
        return wrong("my_x is a point of finite numbers.", f"my_x is {shown(x)}.")
    own_x = x.clone()
    out = called(function.apply, (own_x,), "On my_x, MyFunction.apply")
    if not torch.equal(own_x, x):
        return wrong(
            "x is the caller's: compute with it, never into it.", "Forward has changed x itself."
        )
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.numel() < 2:
        has = f"shape {tuple(out.shape)}, {out.dtype}" if isinstance(out, Tensor) else shown(out)
        return wrong("it returns one real tensor of at least two entries.", f"It gave {has}.")
    if not bool(out.isfinite().all()):
        return wrong("move my_x to where the result is finite.", f"It gave {shown(out)}.")
    return _tried(function.apply, x, out)


def _tried(apply: Any, x: Tensor, out: Tensor) -> Outcome:
    moved, kink = _columns(apply, x)
    if kink is not None:
        return wrong(
            "move my_x off the kink, and test there: no J, no adjoint.",
            f"At entry {kink} of my_x, the slopes to the left and to the right differ.",
        )
    units = torch.eye(out.numel(), dtype=out.dtype).reshape(-1, *out.shape)
    rows = torch.stack([_pull(apply, x, v).reshape(-1) for v in units])
    if not bool(rows.isfinite().all()):
        return wrong("backward gives inf or NaN at my_x.", f"J by backward is {shown(rows)}.")
    if failed := _entry(rows, moved):
        return failed
    draw = generator(12)
    for size in (1.0, 0.01, 100.0):
        w = size * torch.randn(out.shape, generator=draw, dtype=torch.float64).to(out.dtype)
        before = w.clone()
        came, linear = _pull(apply, x, w).reshape(-1), before.reshape(-1) @ rows
        if not torch.equal(w, before):
            return wrong(
                "v is the caller's, and other nodes may still read it: compute with it, never into "
                "it.",
                "Backward has changed v itself.",
            )
        if apart := difference(came, linear):
            return wrong(
                "each row of J is right, and still backward is not linear in v: is there a clamp, "
                "an abs, a norm of v?",
                f"For a random w of size {size:g}, backward does not give the rows of J weighed "
                f"with w. {apart}",
            )
    return right(
        f"All {rows.numel()} entries of J agree with differences, and backward is linear in v."
    )


def _pull(apply: Any, x: Tensor, v: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    try:
        out = apply(leaf)
        (found,) = torch.autograd.grad(out, leaf, v, allow_unused=True)
    except Exception as error:
        raise CrashedError(error, "On my_x, its backward") from error
    return torch.zeros_like(x) if found is None else found.detach()


def _columns(apply: Any, x: Tensor) -> tuple[Tensor, int | None]:
    """J by central differences, and the first entry of x at which it has a kink."""
    here = apply(x.clone()).reshape(-1)
    columns, kink = [], None
    for k in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[k] = _STEP
        up, down = (apply(x + step * sign).reshape(-1) for sign in (1, -1))
        sides = ((up - here) / _STEP, (here - down) / _STEP)
        scale = 1e-3 * (1 + float(torch.cat(sides).abs().max()))
        if kink is None and float((sides[0] - sides[1]).abs().max()) > scale:
            kink = k
        columns.append((up - down) / (2 * _STEP))
    return torch.stack(columns, dim=1).detach(), kink


def _entry(rows: Tensor, moved: Tensor) -> Outcome | None:
    far = (rows - moved).abs() > _EQUAL * max(1e-3, float(moved.abs().max()))
    if not bool(far.any()):
        return None
    i, j = (int(k) for k in far.nonzero()[0])
    return wrong(
        _idea(rows, moved),
        f"Entry ({i}, {j}) of J: backward has {float(rows[i, j]):.6g}, forward has "
        f"{float(moved[i, j]):.6g}. (Row: entry {i} of the output; column: entry {j} of my_x.)",
    )


def _idea(rows: Tensor, moved: Tensor) -> str:
    if not bool(moved.any()):
        return (
            "forward does not move with x at this point, while backward answers as if it did: a "
            "straight-through backward is useful, but it is not the adjoint."
        )
    if rows.shape[0] == rows.shape[1] and not difference(rows, moved.T):
        return "backward has J where it needs J': transpose."
    factor = float((rows * moved).sum() / moved.square().sum())
    if factor and torch.allclose(rows, factor * moved, rtol=1e-4, atol=1e-6):
        return f"every entry is off by the same factor, {factor:.4g}."
    return "backward returns J' v: what each entry of x does to each entry of y, weighed with v."
