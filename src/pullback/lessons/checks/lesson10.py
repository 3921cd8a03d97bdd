"""The exercises of lesson 10: a question as a cotangent, elasticities, a first-order forecast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checking import (
    Case,
    CrashedError,
    Exercise,
    Misconception,
    Outcome,
    Own,
    called,
    generator,
    right,
    same_function,
    wrong,
)
from ..values import shown
from .several import fresh, given

Function = Callable[[Tensor], Tensor]


def _tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _weigh_cases(own: Own) -> list[Case]:
    out = _tensor([20, 25], [20, 50], [30, 58], [30, 115], [54, 83]).float()
    masks = ([False, True, False, True, False], [True, False, False, False, False], [True] * 5)
    cases = [Case(f"wet = {mask}", fresh(out, torch.tensor(mask))) for mask in masks]
    return [*cases, Case("wet = [False, True], n = 2", fresh(out[:2], torch.tensor([False, True])))]


def _weights(out: Tensor, wet: Tensor) -> Tensor:
    chosen = torch.stack([torch.zeros_like(wet), wet], dim=1)
    return chosen.to(out.dtype) / int(wet.sum())


_WEIGH = Exercise(
    same_function(
        _weigh_cases,
        _weights,
        (
            Misconception(
                lambda out, wet: _weights(out, wet) * wet.sum(),
                "weights of 1 ask about the *sum* over the wet situations; for a mean they add up "
                "to 1.",
            ),
            Misconception(
                lambda out, wet: (_weights(out, wet) + _weights(out, wet).flip(1)) / 2,
                "reaction, column 0, has weight as well; only braking was asked about.",
            ),
            Misconception(
                lambda out, wet: _weights(out, wet) + _weights(out, wet).flip(1),
                "reaction, column 0, has weight as well; only braking was asked about.",
            ),
            Misconception(
                lambda out, wet: _weights(out, wet).flip(1),
                "that is the reaction; braking is column 1.",
            ),
            Misconception(
                lambda out, wet: _weights(out, torch.ones_like(wet)),
                "that is the mean over all situations; the dry ones get weight 0.",
            ),
            Misconception(
                lambda out, wet: _weights(out, wet) * wet.sum() / len(out),
                "divided by the number of all situations; the mean is over the wet ones, so divide "
                "by how many these are.",
            ),
            Misconception(
                lambda out, wet: _weights(out, wet) * wet.sum() / out.numel(),
                "divided by the number of all entries; the mean is over the wet ones, so divide by "
                "how many these are.",
            ),
            Misconception(
                lambda out, wet: _weights(out, wet) * out,
                "that multiplies with the distances: v holds weights, and does not depend on what "
                "the outputs are.",
            ),
            Misconception(
                lambda out, wet: out[wet, 1].mean(),
                "that is the mean itself; asked is the v that asks for it, with the shape of out.",
            ),
        ),
        hint="v has the shape of out: 0, but for v[wet, 1], where it is 1 / (how many are wet).",
        praise="Its total is the mean's own response.",
    )
)


def _powers(x: Tensor) -> Tensor:
    return torch.stack([x[0] * x[1], x[0] ** 2 / x[2]])


def _mixed(x: Tensor) -> Tensor:
    return -x.square().cumsum(0) * x.sum()


def _elasticity_cases(own: Own) -> list[Case]:
    named: list[tuple[str, Function, Tensor]] = [
        ("f = [x0 x1, x0 ** 2 / x2] at [3, 2, 4]", _powers, _tensor(3, 2, 4)),
        ("f = -x.square().cumsum(0) * x.sum() at [1, -2, 4]", _mixed, _tensor(1, -2, 4)),
        ("f = x.exp() at [0.5, -1]", torch.exp, _tensor(0.5, -1)),
        ("f = x.prod()[None] at [2, 3, 5, 7]", lambda x: x.prod()[None], _tensor(2, 3, 5, 7)),
    ]
    return [Case(text, fresh(f, x)) for text, f, x in named]


def _matrix(f: Function, x: Tensor) -> Tensor:
    """J, a row per backward pass."""
    leaf = x.detach().requires_grad_()
    rows = [torch.autograd.grad(y, leaf, retain_graph=True)[0] for y in f(leaf)]
    return torch.stack(rows)


def _elastic(f: Function, x: Tensor) -> Tensor:
    return _matrix(f, x) * x / f(x)[:, None]


_ELASTICITY = Exercise(
    same_function(
        _elasticity_cases,
        _elastic,
        (
            Misconception(
                _matrix,
                "that is J, which has units: multiply column j by x[j], divide row i by y[i].",
            ),
            Misconception(
                lambda f, x: _matrix(f, x) * x,
                "that is x dy/dx, in units of y: divide row i by y[i].",
            ),
            Misconception(
                lambda f, x: _matrix(f, x) / f(x)[:, None],
                "that is the relative change of y for one unit of x: multiply column j by x[j].",
            ),
            Misconception(
                lambda f, x: _matrix(f, x) * f(x)[:, None] / x,
                "y and x have changed places: multiply by x[j], divide by y[i].",
            ),
            Misconception(
                lambda f, x: _elastic(f, x).abs(),
                "the sign is lost: braking gets *shorter* with more grip.",
            ),
            Misconception(
                lambda f, x: _matrix(f, x) * x[:, None] / f(x)[:, None],
                "x[j] belongs to column j, so no [:, None] there; y[i] belongs to row i.",
            ),
            Misconception(
                lambda f, x: _matrix(f, x) * x / f(x),
                "y[i] belongs to row i: divide by f(x)[:, None].",
            ),
            Misconception(
                lambda f, x: _elastic(f, x).T,
                "a row belongs to an entry of y, a column to one of x: this is transposed.",
            ),
            Misconception(
                lambda f, x: _elastic(f, x) * 100,
                "per cent for one per cent: the two hundreds cancel.",
            ),
        ),
        hint="E[i, j] = J[i, j] * x[j] / y[i].",
        praise="In a product of powers, these are the exponents.",
    ),
    crashes=(
        ("must match the size", "y[i] belongs to row i, f(x)[:, None]; x[j] to column j, x."),
    ),
)


def _forecast_cases(own: Own) -> list[Case]:
    draw = generator(10)
    cases = []
    named: tuple[tuple[str, Function, Tensor], ...] = (
        ("f = [x0 x1, x0 ** 2 / x2], all 1 % more", _powers, _tensor(3, 2, 4)),
        ("f = [x0 x1, x0 ** 2 / x2], x2 halved", _powers, _tensor(30, 1, 0.8)),
        ("f = x @ x.T at a (2, 3)", lambda x: x @ x.T, _tensor([1, 2, 0.5], [-1, 0, 3])),
    )
    for k, (text, f, x) in enumerate(named):
        v = torch.randn(f(x).shape, generator=draw, dtype=torch.float64)
        factors = (
            torch.full_like(x, 1.01),
            _tensor(1, 1, 0.5),
            1 + torch.rand(x.shape, generator=draw, dtype=torch.float64) / 5,
        )[k]
        cases.append(Case(f"{text}, a random v", fresh(f, x, v, factors)))
    return cases


def _first_order(f: Function, x: Tensor, v: Tensor, factors: Tensor) -> Tensor:
    return _along(f, x, v, x * (factors - 1))


def _along(f: Function, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((v * f(leaf)).sum(), leaf)
    return (gradient * t).sum()


_PREDICTED = Exercise(
    same_function(
        _forecast_cases,
        _first_order,
        (
            Misconception(
                lambda f, x, v, factors: (v * (f(x * factors) - f(x))).sum(),
                "that is the true change, from a second run of f. Asked is the forecast of the "
                "slope at x: v J times the step.",
            ),
            Misconception(
                lambda f, x, v, factors: _along(f, x, v, x * factors),
                "the step is x * factors - x, that is x * (factors - 1): a factor of 1 is no "
                "change.",
            ),
            Misconception(
                lambda f, x, v, factors: _along(f, x, v, factors - 1),
                "factors - 1 is the step in parts of x; multiply it by x.",
            ),
            Misconception(
                lambda f, x, v, factors: _along(f, x, v, x),
                "that is the response to 100 %: factors have not been used.",
            ),
            Misconception(
                lambda f, x, v, factors: _first_order(f, x, torch.ones_like(v), factors),
                "v has not been used: the outputs are weighed with it.",
            ),
            Misconception(
                lambda f, x, v, factors: (v * f(x)).sum() + _first_order(f, x, v, factors),
                "that is the new value; asked is the change alone.",
            ),
            Misconception(
                lambda f, x, v, factors: _along(f, x * factors, v, x * (factors - 1)),
                "the slope was taken at the new point; take it at x.",
            ),
            Misconception(
                lambda f, x, v, factors: _first_order(f, x * factors, v, factors),
                "the slope was taken at the new point; take it at x.",
            ),
            Misconception(
                lambda f, x, v, factors: _along(f, x, v, x * factors.log()),
                "log(factors) is the step of z; it is the forecast in z, close by. In x, the step "
                "is x * (factors - 1).",
            ),
        ),
        hint="one VJP gives v J, with the shape of x; multiply by the step x * (factors - 1), sum.",
        praise="Good near x, and only there.",
    ),
    crashes=(("has shape", "v weighs f(x) and goes into the VJP; factors belongs to x."),),
)

_STEP = 1e-5


def _judge_mine(answer: Any, own: Own) -> Outcome:
    f, x, position = given(answer, "my_f", "my_x", "my_strongest")
    if not isinstance(x, Tensor) or x.dtype != torch.float64 or x.ndim != 1 or len(x) < 2:
        has = f"{x.dtype}, shape {tuple(x.shape)}" if isinstance(x, Tensor) else shown(x)
        return wrong("my_x is a float64 vector of at least two entries.", f"my_x is {has}.")
    x = x.detach()
    if not bool((x.isfinite() & (x != 0)).all()):
        return wrong("1 % of 0 is 0: choose a point without zeros.", f"my_x is {shown(x)}.")
    if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < len(x):
        return wrong(
            f"my_strongest is a whole number from 0 to {len(x) - 1}.",
            f"my_strongest is {shown(position)}.",
        )
    moved = _moved(f, x)
    if not bool(moved.isfinite().all()):
        return wrong(
            "my_f has no finite value near my_x.", f"Responses to 100 %, scaled: {shown(moved)}."
        )
    return _ranked(moved, x, position) or _by_autograd(f, x, moved) or _told(moved, position)


def _moved(f: Any, x: Tensor) -> Tensor:
    """x dF/dx for F = f(x).sum(), by central differences in parts of x."""
    found = []
    for k in range(len(x)):
        ends = []
        for sign in (1, -1):
            moved = x.clone()
            moved[k] *= 1 + sign * _STEP
            out = called(f, (moved,), f"On my_x with entry {k} moved, my_f")
            if not isinstance(out, Tensor):
                text = f"my_f returns a tensor; it gave {shown(out)}"
                raise CrashedError(TypeError(text), "On my_x, the check")
            ends.append(float(out.detach().double().sum()))
        found.append((ends[0] - ends[1]) / (2 * _STEP))
    return _tensor(*found)


def _ranked(moved: Tensor, x: Tensor, position: int) -> Outcome | None:
    sizes = moved.abs()
    if not bool(sizes.any()):
        return wrong(
            "my_f(x).sum() does not move with any entry of x here.", "All responses are 0."
        )
    if float(sizes[position]) >= (1 - 1e-4) * float(sizes.max()):
        return None
    best = int(sizes.argmax())
    told = (
        f"For 1 % more of entry {position}, the sum moves by {float(moved[position]) / 100:.4g}; "
        f"of entry {best}, by {float(moved[best]) / 100:.4g}."
    )
    if position == int((moved / x).abs().argmax()):
        hint = "that entry has the steepest slope, in its own unit. Multiply each slope by x."
    elif position == int(x.abs().argmax()):
        hint = "that is the largest entry of x; multiply it by its slope, and it is not."
    elif position == int(moved.argmax()):
        hint = "a decrease is a change as well: compare absolute values."
    else:
        hint = "compare abs(x * gradient of my_f(x).sum()), entry by entry."
    return wrong(hint, told)


def _by_autograd(f: Any, x: Tensor, moved: Tensor) -> Outcome | None:
    leaf = x.clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(f(leaf).sum(), leaf)
    except Exception as error:
        raise CrashedError(error, "Differentiating my_f(x).sum()") from error
    found = gradient * x
    if torch.allclose(found, moved, rtol=1e-4, atol=1e-4 * float(moved.abs().max())):
        return None
    return wrong(
        "your position is right, but autograd has other slopes than my_f: a detach, a kink at "
        "my_x, a random number? Worth knowing before you trust its gradients.",
        f"x * gradient is {shown(found)}; differences give {shown(moved)}.",
    )


def _told(moved: Tensor, position: int) -> Outcome:
    order = ", ".join(str(k) for k in moved.abs().argsort(descending=True).tolist())
    return right(
        f"For 1 %, entry {position} moves the sum by {float(moved[position]) / 100:.4g}. From the "
        f"strongest to the weakest: {order}. Autograd agrees."
    )


EXERCISES = {
    "weigh": _WEIGH,
    "elasticity": _ELASTICITY,
    "predicted": _PREDICTED,
    "mine": Exercise(_judge_mine),
}
