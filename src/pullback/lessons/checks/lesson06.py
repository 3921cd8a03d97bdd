"""Lesson 6: weights on a row, a total that is aimed at, and the range of all totals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checking import (
    Case,
    Exercise,
    Misconception,
    Outcome,
    Own,
    called,
    generator,
    own_tensors,
    right,
    same_function,
    wrong,
)
from ..values import as_tensor, shown

Function = Callable[[Tensor], Tensor]


def _tutorial_out() -> Tensor:
    return (torch.eye(4, 5, requires_grad=True) + 10).pow(3).t()


def _outs(own: Own) -> list[tuple[str, Tensor]]:
    drawn = torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    found = [
        ("the lesson's out, (5, 4)", _tutorial_out()),
        ("an out of shape (2, 3)", torch.ones(2, 3, requires_grad=True) * 2),
        ("an out of shape (3, 2) in float64", drawn.requires_grad_().sin()),
        ("an out of shape (4,)", torch.arange(4.0, requires_grad=True) * 2),
        ("an out of shape (3, 2, 2)", torch.ones(3, 2, 2, requires_grad=True) * 2),
    ]
    theirs = [t for t in own_tensors(own) if t.ndim and len(t) > 1 and t.numel()]
    return found + [(f"your own out, {tuple(t.shape)}", t) for t in theirs]


def _judge_first_row(answer: Any, own: Own) -> Outcome:
    if isinstance(answer, Tensor):  # a v for the lesson's out
        return _judge_weights(answer, *_outs(())[0]) or right(
            "A function of out would do it for every shape."
        )
    for text, out in _outs(own):
        before = out.detach().clone()
        v = called(answer, (out,), f"On {text}, it")
        if not torch.equal(out.detach(), before):
            return wrong(
                "it wrote into out itself; begin with a new tensor, torch.zeros_like(out).",
                f"On {text}, out has other values afterwards",
            )
        if bad := _judge_weights(v, text, out):
            return bad
    return right("Every entry of the first row outweighs every other entry, in each shape tried.")


def _judge_weights(came: Any, text: str, out: Tensor) -> Outcome | None:
    v = as_tensor(came)
    if v is None:
        return wrong("return a tensor of weights.", f"On {text}, it gave {came!r:.80}")
    told = f"On {text}, v is {shown(v)}"
    if v.shape != out.shape:
        return wrong(_shape_hint(v, out), f"{told}: shape {tuple(v.shape)}, not {tuple(out.shape)}")
    v = v.double()
    if not bool(v.isfinite().all()):
        return wrong("weights are finite numbers.", told)
    first, rest = v[0], v[1:]
    if bool(first.min() > rest.max()):
        return None
    return wrong(_weights_hint(v), f"{told}: {_beaten(first, rest)}")


def _beaten(first: Tensor, rest: Tensor) -> str:
    return (
        f"the smallest weight of row 0 is {first.min():.6g}, the largest elsewhere {rest.max():.6g}"
    )


def _shape_hint(v: Tensor, out: Tensor) -> str:
    if v.shape == out.shape[::-1]:
        return "that is the shape of inp; v is paired with out, entry by entry."
    try:
        spreads = torch.broadcast_shapes(v.shape, out.shape) == out.shape
    except RuntimeError:
        spreads = False
    if spreads:
        return (
            "backward does not broadcast: v needs a weight for each entry of out, so spread it "
            "over the whole shape."
        )
    return "v has exactly the shape of out; torch.zeros_like(out) is a good beginning."


def _weights_hint(v: Tensor) -> str:
    first, rest = v[0], v[1:]
    if bool((v == v.reshape(-1)[0]).all()):
        return "all weights are equal; the first row should have more than the others."
    if bool(first.max() < rest.min()):
        return "the first row has less weight than the others: it is turned around."
    if v.ndim == 2 and bool(v[:, 0].min() > v[:, 1:].max()):
        return "those are weights on the first column, v[:, 0]; the first row is v[0]."
    if bool(rest[-1].min() > first.max()):
        return "the last row has the most weight: index 0 is the first, -1 the last."
    if bool(first.max() > rest.max()):
        return "only a part of the first row is heavier; give every entry of v[0] more weight."
    if bool(first.sum() > rest.sum()):
        return "the first row is heavier as a whole, but not entry by entry."
    return "set v[0] to more than every other weight."


_FIRST_ROW = Exercise(
    _judge_first_row,
    crashes=(
        (
            "too many indices",
            "out may have one axis, or three: v[0] is the first row for any number of them.",
        ),
        (
            "a view of a leaf Variable",
            "v is made by hand and needs no graph: torch.zeros_like(out) has none.",
        ),
    ),
)


def _total_of(v: Tensor) -> float:
    """By the derivative of the cube, not by autograd."""
    slope = 3 * (torch.eye(4, 5, dtype=torch.float64) + 10) ** 2
    return float((v.double().t() * slope).sum())


def _judge_hit(answer: Any, own: Own) -> Outcome:
    came = called(answer, (_tutorial_out(),), "On out, it") if callable(answer) else answer
    v = as_tensor(came)
    if v is None:
        return wrong("v is a tensor of weights.", f"It is {came!r:.80}")
    told = f"v is {shown(v)}"
    if v.shape != (5, 4):
        return wrong("v has the shape of out, (5, 4).", f"{told}: shape {tuple(v.shape)}")
    if not bool(v.isfinite().all()):
        return wrong("weights are finite numbers.", told)
    weight, least, total = float(v.double().sum()), float(v.min()), _total_of(v)
    facts = f"{told}: smallest weight {least:.6g}, sum {weight:.6g}, total {total:.6g}"
    if least < 0:
        return wrong("a weight is negative; then the total is no average of row sums.", facts)
    if abs(weight - 1) > 1e-5:
        return wrong("the weights add up to another number than 1: divide v by v.sum().", facts)
    if abs(total - 330) > 1e-2:
        on_diagonal = (total - 300) / 63
        return wrong(
            f"the share of weight on entries with row sum 363 (the diagonal) is {on_diagonal:.3f}; "
            f"the total is 300 + 63 times that share.",
            facts,
        )
    return right(f"Its total is {total:.4g}: {(total - 300) / 63:.1%} of the weight is on 363.")


_HIT = Exercise(_judge_hit)


def _mixing(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=generator(1), dtype=torch.float64)


def _range_cases(own: Own) -> list[Case]:
    matrix = _mixing(4, 3)
    drawn = torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    functions: list[tuple[str, Function, Tensor]] = [
        (
            "f = M @ x.sin(), M random of 4 x 3, x random of 3 x 2",
            lambda x: matrix @ x.sin(),
            drawn,
        ),
        ("f = (x + 10).pow(3).t(), x = torch.eye(4, 5)", _cube, torch.eye(4, 5)),
        ("f = x.cumsum(0), x a vector of 3", lambda x: x.cumsum(0), drawn[:, 0]),
        ("f = x.prod(), a single number", lambda x: x.prod(), drawn),
        ("f = x.outer(x.exp()), x a vector of 3", lambda x: torch.outer(x, x.exp()), drawn[:, 1]),
    ]

    def case(text: str, f: Function, x: Tensor) -> Case:
        return Case(text, lambda: (f, x.clone()))

    return [case(*each) for each in functions]


def _cube(x: Tensor) -> Tensor:
    return (x + 10).pow(3).t()


def _matrix(f: Function, x: Tensor) -> Tensor:
    """J as a matrix, row by row."""
    found: Tensor = torch.autograd.functional.jacobian(f, x)
    return found.reshape(-1, x.numel())


def _ends(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.min(), values.max()


def _range(f: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    return _ends(_matrix(f, x).sum(1))


_RANGE = Exercise(
    same_function(
        _range_cases,
        _range,
        (
            Misconception(
                lambda f, x: _ends(_matrix(f, x)),
                "those are the smallest and largest entries of J; a total adds up a whole row "
                "before it is weighed.",
            ),
            Misconception(
                lambda f, x: _ends(_matrix(f, x).sum(0)),
                "those are column sums: the gradient of f(x).sum(), entry by entry. A total is "
                "v . (J 1), so row sums are needed.",
            ),
            Misconception(
                lambda f, x: _range(f, x)[::-1],
                "the pair is turned around: the smallest first.",
            ),
            Misconception(
                lambda f, x: (_matrix(f, x).sum(1).mean(),) * 2,
                "that is the total of uniform weights only; other weights reach further.",
            ),
            Misconception(
                lambda f, x: _ends(_matrix(f, x).abs().sum(1)),
                "a total adds up entries with their signs: no abs.",
            ),
            Misconception(
                lambda f, x: _ends(f(x)),
                "those are values of f; the totals are made of derivatives.",
            ),
            Misconception(
                lambda f, x: (torch.zeros(()), _matrix(f, x).sum(1).max()),
                "the weights add up to 1, so they cannot all be zero: the smallest row sum is the "
                "lower end.",
            ),
        ),
        hint="the ends are the smallest and the largest row sum of J; a one-hot v reaches each.",
    )
)

EXERCISES: dict[str, Exercise] = {"first-row": _FIRST_ROW, "hit": _HIT, "range": _RANGE}
