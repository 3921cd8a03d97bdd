"""The exercises of lesson 12: an adjoint by hand, the test of one, a Function that holds."""

from __future__ import annotations

from typing import Any

import numpy as np
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
    is_open,
    right,
    same_function,
    wrong,
)
from ..values import difference, shown
from .functions import Specimen, specimens
from .ownfunction import judge_mine
from .several import fresh

_SHAPES = ((4,), (3, 2), (1,), (2, 3, 2))


def _running_cases(own: Own) -> list[Case]:
    return [
        Case(
            f"v = 1, 2, 3... of shape {shape}",
            fresh(torch.arange(1.0, torch.Size(shape).numel() + 1).reshape(shape)),
        )
        for shape in _SHAPES
    ]


def _rest(v: Tensor) -> Tensor:
    """x[k] takes part in y[k], y[k + 1], and so on to the end."""
    return torch.stack([v[k:].sum(0) for k in range(len(v))])


_RUNNING = Exercise(
    same_function(
        _running_cases,
        _rest,
        (
            Misconception(
                lambda v: v.cumsum(0),
                "that is forward once more. x[k] takes part in y[k] and in all that follow, not "
                "in those before: sum from the other end.",
            ),
            Misconception(
                lambda v: torch.cat([v[:1], v[1:] - v[:-1]]),
                "that is the *inverse*, which undoes the sum. The adjoint hands each v to all "
                "that was added up for it.",
            ),
            Misconception(
                lambda v: v,
                "that is only each x[k]'s part in its own y[k]; it also takes part in all y after.",
            ),
            Misconception(
                lambda v: v.flip(0).cumsum(0),
                "the sums are right, in reverse order: turn the result around again.",
            ),
            Misconception(
                lambda v: _rest(v) - v,
                "x[k] takes part in y[k] as well: the sum begins with v[k].",
            ),
            Misconception(
                lambda v: v.sum(0).expand_as(v),
                "that is the adjoint of y = x.sum(0), where each x takes part in everything; "
                "here x[k] takes no part in the y before it.",
            ),
            Misconception(
                lambda v: v.flip(-1).cumsum(-1).flip(-1),
                "the sum runs along the first axis, 0.",
            ),
        ),
        hint="x[k] receives v[k] + v[k + 1] + ..., to the end of the first axis.",
        praise="Summed forward, handed back from the end. It is a transpose, not an inverse.",
    )
)


def _judge_test(answer: Any, own: Own) -> Outcome:
    tried = specimens()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        failed = next((f for specimen in tried if (f := _misjudged(answer, specimen))), None)
    false = sum(not s.honest for s in tried)
    praise = f"{len(tried) - false} honest ones accepted, {false} false ones found."
    return failed or right(praise)


def _misjudged(answer: Any, specimen: Specimen) -> Outcome | None:
    given = called(answer, (specimen.apply, specimen.x.clone()), f"On {specimen.text}, it")
    told = f"On {specimen.text}:\n  it gave   {shown(given)}\n  right is  {specimen.honest}"
    verdict = _truth(given)
    if verdict is None:
        return wrong("the answer is True or False.", told)
    return None if verdict == specimen.honest else wrong(specimen.hint, told)


def _truth(value: Any) -> bool | None:
    if isinstance(value, Tensor) and value.dtype is torch.bool and value.numel() == 1:
        return bool(value)
    return bool(value) if isinstance(value, bool | np.bool_) else None


_TEST = Exercise(
    _judge_test,
    crashes=(
        ("has shape", "w has the shape of f(x), t has that of x; they differ here."),
        ("must match the size", "w has the shape of f(x), t has that of x; they differ here."),
    ),
)


def _gain(x: Tensor, s: Tensor, a: float) -> Tensor:
    return a * x**2 * s[:, None]


def _gain_cases(own: Own) -> list[Case]:
    cases = []
    for m, n in ((3, 4), (4, 4), (5, 1), (1, 3)):
        draw = generator(m * n)
        x, s, v = (
            torch.randn(shape, generator=draw, dtype=torch.float64)
            for shape in ((m, n), (m,), (m, n))
        )
        text = f"x of ({m}, {n}), s of ({m},), a = -1.5: the gradients of (x, s)"
        cases.append(Case(text, fresh(x, s, -1.5, v)))
    return cases


def _pulled(function: Any, x: Tensor, s: Tensor, a: float, v: Tensor) -> Any:
    """The gradients of x and s; None where backward returns nothing at all: the stub does."""
    x, s = x.requires_grad_(), s.requires_grad_()
    returned: list[Any] = []

    class Watched(function):  # type: ignore[misc]
        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            returned.append(function.backward(ctx, *cotangents))
            return returned[0]

    apply: Any = Watched.apply
    out = apply(x, s, a)
    try:
        found = torch.autograd.grad(out, (x, s), v, allow_unused=True)
    except RuntimeError:
        if returned and is_open(returned[0]):
            return None
        raise
    return tuple(
        torch.zeros_like(t) if g is None else g for t, g in zip((x, s), found, strict=True)
    )


def _of(x: Tensor, s: Tensor, a: float, v: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * a * x * s[:, None] * v, (a * x**2 * v).sum(1)


_VALUES = same_function(
    _gain_cases,
    _of,
    (
        Misconception(
            lambda x, s, a, v: (_of(x, s, a, v)[0] / a, _of(x, s, a, v)[1] / a),
            "the factor a is missing in backward: keep it on ctx, as ctx.a.",
        ),
        Misconception(
            lambda x, s, a, v: (_of(x, s, a, v)[0] / 2, _of(x, s, a, v)[1]),
            "the derivative of x ** 2 is 2 x: the 2 is missing.",
        ),
        Misconception(
            lambda x, s, a, v: _of(x, s, a, torch.ones_like(v)),
            "v has not been used: every entry is weighed with it.",
        ),
        Misconception(
            lambda x, s, a, v: (_of(x, s, a, v)[0], torch.zeros_like(s)),
            "s gets nothing: backward returns one gradient for each of x and s.",
        ),
        Misconception(
            lambda x, s, a, v: (_of(x, s, a, v)[0], _of(x, s, a, v)[1] / v.shape[1]),
            "that is a mean over the row; s[i] takes part in each of its entries, so they are "
            "summed.",
        ),
    ),
    hint="x gets 2 a x s[:, None] v; s gets a x ** 2 v, summed over each row.",
)


def _judge_function(answer: Any, own: Own) -> Outcome:
    if not isinstance(answer, type) or not issubclass(answer, torch.autograd.Function):
        kind = answer.__name__ if isinstance(answer, type) else type(answer).__name__
        return wrong(
            "hand in the class itself, a torch.autograd.Function.", f"The answer is: {kind}."
        )
    apply: Any = answer.apply
    forward = same_function(
        lambda _: [Case(c.text.partition(":")[0], c.make) for c in _gain_cases(())],
        lambda x, s, a, v: _gain(x, s, a),
        hint="forward was given: a * x ** 2 * s[:, None].",
    )(lambda x, s, a, v: apply(x, s, a), own)
    if not forward.ok:
        return forward
    values = _VALUES(lambda x, s, a, v: _pulled(answer, x, s, a, v), own)
    if not values.ok:
        return values
    for trial in (_left_alone, _write_in_place, _second_derivative):
        if (failed := trial(apply)) is not None:
            return failed
    return right(
        "Right gradients, a write in place is refused, and it can be differentiated twice."
    )


def _arguments() -> tuple[Tensor, Tensor, float, Tensor]:
    x, s, a, v = _gain_cases(())[0].make()
    return x.requires_grad_(), s.requires_grad_(), a, v


def _left_alone(apply: Any) -> Outcome | None:
    x, s, a, v = _arguments()
    before = v.clone()
    torch.autograd.grad(apply(x, s, a), (x, s), v)
    if torch.equal(v, before):
        return None
    return wrong(
        "v is the caller's, and other nodes may still read it: compute with it, never into it.",
        f"Backward has changed v itself: v[0] was {shown(before[0])}, is {shown(v[0])}.",
    )


def _write_in_place(apply: Any) -> Outcome | None:
    """Either an error or the right gradients will do: a copy that was kept is safe as well."""
    for written in ("x", "s"):
        x, s, a, v = _arguments()
        inputs = {"x": x.clone(), "s": s.clone()}
        out = apply(*inputs.values(), a)
        with torch.no_grad():
            inputs[written].zero_()
        try:
            found = torch.autograd.grad(out, (x, s), v)
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                continue
            raise CrashedError(error, f"After {written}.zero_(), backward") from error
        if apart := difference(found, _of(x.detach(), s.detach(), a, v)):
            return wrong(
                f"{written} was kept as an attribute, which notes no version; give tensors to "
                f"ctx.save_for_backward, all in one call.",
                f"After {written}.zero_() between forward and backward, the gradients are silently "
                f"wrong. {apart}",
            )
    return None


def _second_derivative(apply: Any) -> Outcome | None:
    try:
        came = [_hessian_part(f) for f in (apply, _gain)]
    except Exception as error:
        raise CrashedError(error, "Differentiated twice, it") from error
    apart = difference(came[0], came[1])
    if not apart:
        return None
    return wrong(
        "backward uses something that was computed in forward, or without a graph, and counts as a "
        "constant (@once_differentiable makes it one). Save x and s, and compute the slope from "
        "them in backward.",
        f"Differentiated twice, the gradients of (x, s) of <backward(v), 1> are not right. {apart}",
    )


def _hessian_part(function: Any) -> tuple[Tensor, Tensor]:
    x, s, a, v = _arguments()
    first = torch.autograd.grad(function(x, s, a), (x, s), v, create_graph=True)
    number = sum(g.sum() for g in first) + 0 * (x.sum() + s.sum())
    found = torch.autograd.grad(number, (x, s))
    return found[0], found[1]


_FUNCTION = Exercise(
    _judge_function,
    crashes=(
        (
            "an invalid gradient at index 1",
            "the gradient of s has the shape of s, one number per row: sum over each row, .sum(1).",
        ),
        (
            "an invalid gradient at index 0",
            "the gradient of x comes first, and has the shape of x.",
        ),
        (
            "incorrect number of gradients",
            "forward has three inputs, so backward returns three things; None for a.",
        ),
        (
            "forward input was not a Variable",
            "a is no tensor: return None for it.",
        ),
        (
            "call numpy()",
            "a second derivative goes through what backward computes, so that has to be torch "
            "operations on what was saved: NumPy leaves no graph.",
        ),
        ("save_for_backward can only save", "only tensors: keep a as ctx.a = a."),
        ("not enough values to unpack", "what was saved is not what backward unpacks."),
        ("must match the size", "s[:, None] is the column that scales the rows of x."),
    ),
)

EXERCISES = {
    "running": _RUNNING,
    "test": _TEST,
    "function": _FUNCTION,
    "mine": Exercise(judge_mine),
}
