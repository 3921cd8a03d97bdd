"""Lesson 5: several products from one graph, and a loop whose state is cut off."""

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
    right,
    same_function,
    wrong,
)
from ..values import difference, shown

Graph = tuple[Tensor, Tensor, list[Tensor]]


def _tutorial() -> Graph:
    inp = torch.eye(4, 5, requires_grad=True)
    out = (inp + 1).pow(2).t()
    first, last = torch.zeros(5, 4), torch.zeros(5, 4)
    first[0], last[-1] = 1, 1
    return out, inp, [torch.ones(5, 4), first, last]


def _random(held: float | None) -> Graph:
    inp = torch.randn(3, generator=generator(), dtype=torch.float64).requires_grad_()
    inp.grad = None if held is None else torch.full_like(inp, held)
    out = torch.outer(inp.exp(), inp.sin())
    drawn = torch.randn(4, 3, 3, generator=generator(1), dtype=torch.float64)
    return out, inp, list(drawn)


_GRAPHS: tuple[tuple[str, Callable[[], Graph]], ...] = (
    ("out = (inp + 1).pow(2).t(), vs = all, first row, last row", _tutorial),
    ("out = torch.outer(inp.exp(), inp.sin()), four random vs", lambda: _random(None)),
    ("out = torch.outer(inp.exp(), inp.sin()), inp.grad all 5 before", lambda: _random(5.0)),
)


def _judge_several(answer: Any, own: Own) -> Outcome:
    for text, make in _GRAPHS:
        out, inp, vs = make()
        expected = tuple(torch.autograd.grad(out, inp, v, retain_graph=True)[0] for v in vs)
        held = None if inp.grad is None else inp.grad.clone()
        came = called(answer, (out, inp, list(vs)), f"On {text}, it")
        if apart := difference(came, expected):
            told = f"On {text}: {apart}\n  it gave   {shown(came)}\n  right is  {shown(expected)}"
            return wrong(_several_hint(came, expected, held), told)
        if _changed(held, inp.grad):
            was, now = shown(held), shown(inp.grad)
            return wrong(
                "the products are right, but inp.grad was changed: put it back, or use "
                "torch.autograd.grad, which deposits nothing.",
                f"On {text}: inp.grad was {was}, and is {now}",
            )
        try:
            out.backward(vs[0])
        except RuntimeError:
            return wrong(
                "the products are right, but the graph was freed on the way: retain it in the "
                "last call as well.",
                f"On {text}: one more backward through out raised",
            )
    return right(f"Tried on {len(_GRAPHS)} graphs.")


def _several_hint(came: Any, expected: tuple[Tensor, ...], held: Tensor | None) -> str:
    added = list(torch.stack(expected).cumsum(0))
    start = torch.zeros_like(expected[0]) if held is None else held
    if not difference(came, tuple(start + a for a in added)):
        return (
            "each gradient has the ones before it added in: .grad accumulates. Use "
            "torch.autograd.grad, or reset .grad before each backward."
        )
    if not difference(came, tuple(start + added[-1] for _ in expected)) or not difference(
        came, tuple(expected[-1] for _ in expected)
    ):
        return (
            "all entries of your list are the same tensor, the one in .grad, which backward "
            "writes in place: clone it each time."
        )
    if not difference(came, added[-1]):
        return "that is the sum of all products; a list with one for each v is asked for."
    return "for each v: the gradient of (v * out).sum(), that v alone, as a tensor."


def _changed(before: Tensor | None, after: Tensor | None) -> bool:
    if before is None or after is None:
        return before is not after
    return bool(difference(after, before))


_SEVERAL = Exercise(
    _judge_several,
    crashes=(
        (
            "a second time",
            "the first product freed what the second one needs: retain_graph=True.",
        ),
        (
            "does not require grad",
            "a detached out has no graph; the products go through the graph that out has.",
        ),
    ),
)


def _step_cases(own: Own) -> list[Case]:
    points = ((0.5, [1.0, 2.0, 3.0]), (-0.8, [0.3, -0.2, 0.1, 0.4]), (1.2, [0.5]), (0.9, [0.1] * 5))

    def case(w: float, xs: list[float]) -> Case:
        def make() -> tuple[Tensor, Tensor]:
            return torch.tensor(w, requires_grad=True), torch.tensor(xs)

        return Case(f"w = {w}, xs = {xs}", make)

    return [case(*point) for point in points]


def _cut(w: Tensor, xs: Tensor) -> Tensor:
    """By the chain rule: d h^2 / d w = 2 h (1 - h^2) times the h before."""
    found, h = [], torch.zeros(())
    for x in xs:
        before, h = h, torch.tanh(w.detach() * h + x)
        found.append(2 * h * (1 - h * h) * before)
    return torch.stack(found)


def _whole(w: Tensor, xs: Tensor) -> Tensor:
    found, h = [], torch.zeros(())
    for x in xs:
        h = torch.tanh(w * h + x)
        found.append(torch.autograd.grad(h * h, w, retain_graph=True)[0])
    return torch.stack(found)


def _no_square(w: Tensor, xs: Tensor) -> Tensor:
    found, h = [], torch.zeros(())
    for x in xs:
        before, h = h, torch.tanh(w.detach() * h + x)
        found.append((1 - h * h) * before)
    return torch.stack(found)


def _last_of(gradients: Tensor) -> Tensor:
    return gradients[-1].expand(len(gradients))


_STEPS = Exercise(
    same_function(
        _step_cases,
        _cut,
        (
            Misconception(
                _whole,
                "that gradient flows through all steps before: the h of the step before must be a "
                "constant. Detach it, rather than retain the graph.",
            ),
            Misconception(
                lambda w, xs: _whole(w, xs).cumsum(0),
                "the past is in it twice: the gradient flows through all steps before (detach h), "
                "and .grad still holds the earlier ones (reset it).",
            ),
            Misconception(
                lambda w, xs: _cut(w, xs).cumsum(0),
                "the gradients of earlier steps are added in: reset w.grad before each backward.",
            ),
            Misconception(
                lambda w, xs: _last_of(_cut(w, xs).cumsum(0)),
                "all entries are one tensor, the one in w.grad, with everything added up: reset "
                "w.grad to None before each backward.",
            ),
            Misconception(
                lambda w, xs: _last_of(_cut(w, xs)),
                "all entries are one tensor: zero_() empties it in place, in your list as well. "
                "Set w.grad to None, or append a clone.",
            ),
            Misconception(
                lambda w, xs: torch.zeros(len(xs)),
                "every gradient is 0: the h before was reset to 0, or w.grad was zeroed after the "
                "backward.",
            ),
            Misconception(
                _no_square,
                "that is the gradient of h; the loss of a step is h ** 2.",
            ),
        ),
        hint="in each step: detach the old h, compute the new one, start from no gradient, call "
        "backward on h ** 2.",
    ),
    crashes=(
        (
            "a second time",
            "the second step's graph still hangs on the first one's, through h: use h.detach() "
            "where the step begins. (retain_graph=True would silence the error, and give another "
            "gradient.)",
        ),
        (
            "does not require grad",
            "the h of this step must keep its graph until backward has run; only the h before is "
            "cut off.",
        ),
    ),
)

EXERCISES: dict[str, Exercise] = {"several": _SEVERAL, "steps": _STEPS}
