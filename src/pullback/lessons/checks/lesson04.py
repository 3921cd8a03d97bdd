"""Lesson 4: one pass's gradient alone, and a mean gathered chunk by chunk."""

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

Losses = Callable[[Tensor, Tensor], Tensor]


def _tutorial(held: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    inp = torch.eye(4, 5, requires_grad=True)
    inp.grad = None if held is None else held.expand(4, 5).clone()
    out = (inp + 1).pow(2).t()
    return out, torch.ones_like(out), inp


def _random(held: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    drawn = torch.randn(3, generator=generator(), dtype=torch.float64)
    inp = drawn.requires_grad_()
    inp.grad = None if held is None else held.double().expand(3).clone()
    out = torch.outer(inp.sin(), inp)
    return out, torch.randn(3, 3, generator=generator(1), dtype=torch.float64), inp


_OUT = "out = (inp + 1).pow(2).t(), v = ones"
_HELD: tuple[tuple[str, Callable[[], tuple[Tensor, Tensor, Tensor]]], ...] = (
    (f"{_OUT}, inp.grad = None", lambda: _tutorial(None)),
    (f"{_OUT}, inp.grad all 7", lambda: _tutorial(torch.tensor(7.0))),
    ("out = torch.outer(inp.sin(), inp), v random, inp.grad = None", lambda: _random(None)),
    (
        "out = torch.outer(inp.sin(), inp), v random, inp.grad all -2",
        lambda: _random(torch.tensor(-2.0)),
    ),
)


def _judge_fresh(answer: Any, own: Own) -> Outcome:
    for text, make in _HELD:
        out, v, inp = make()
        (expected,) = torch.autograd.grad(out, inp, v, retain_graph=True)
        held = None if inp.grad is None else inp.grad.clone()
        came = called(answer, (out, v, inp), f"On {text}, it")
        if apart := difference(came, expected):
            told = (
                f"On {text}:\n  it gave   {shown(came)}\n  right is  {shown(expected)}\n  {apart}"
            )
            return wrong(_fresh_hint(came, expected, held, out, inp), told)
        before = came.detach().clone() if isinstance(came, Tensor) else came
        (3 * inp).sum().backward()
        if difference(came, before):
            return wrong(
                "you returned the tensor in .grad itself; backward adds to it in place. Return a "
                "clone.",
                f"On {text}, it gave the right gradient; after one more backward that same tensor "
                f"holds {shown(came)}",
            )
    return right(f"Tried on {len(_HELD)} graphs, with and without an old gradient.")


def _fresh_hint(came: Any, expected: Tensor, held: Tensor | None, out: Tensor, inp: Tensor) -> str:
    if held is not None and not difference(came, held + expected):
        return "the old gradient is still in it: set inp.grad to None (or zero it) first."
    if not difference(came, torch.zeros_like(expected)):
        return "the gradient was zeroed after the backward: zero first, then differentiate."
    if held is not None and not difference(came, held):
        return "that is the old gradient; read .grad after the backward."
    if not difference(came, _of_sum(out, inp)):
        return "v was not used: pass it to backward."
    return "start from no gradient, call out.backward(v), and copy inp.grad."


def _of_sum(out: Tensor, inp: Tensor) -> Tensor | None:
    try:
        (found,) = torch.autograd.grad(out.sum(), inp)
    except RuntimeError:  # the answer has used up the graph
        return None
    return found


_FRESH = Exercise(
    _judge_fresh,
    crashes=(
        (
            "'NoneType' object has no attribute 'zero_'",
            "before the first backward .grad is None, and None has no zero_(): ask "
            "`if inp.grad is not None`, or set it to None.",
        ),
        (
            "'NoneType' object has no attribute 'clone'",
            ".grad is None until a backward has run: copy it after.",
        ),
    ),
)


def _squares(w: Tensor, chunk: Tensor) -> Tensor:
    return (chunk @ w).square()


def _waves(w: Tensor, chunk: Tensor) -> Tensor:
    return (chunk @ w).sin() + w.square().sum()


def _chunk_cases(own: Own) -> list[Case]:
    def case(text: str, losses: Losses, sizes: list[int]) -> Case:
        batch = torch.randn(sum(sizes), 3, generator=generator(), dtype=torch.float64)
        w = torch.randn(3, generator=generator(1), dtype=torch.float64)

        def make() -> tuple[Losses, list[Tensor], Tensor]:
            return losses, [part.clone() for part in batch.split(sizes)], w.clone().requires_grad_()

        return Case(f"losses {text}, chunks of {', '.join(map(str, sizes))} samples", make)

    return [
        case("(chunk @ w) ** 2", _squares, [4, 2]),
        case("(chunk @ w) ** 2", _squares, [3, 3, 1]),
        case("sin(chunk @ w) + w . w", _waves, [1, 5, 2]),
        case("sin(chunk @ w) + w . w", _waves, [6]),
    ]


def _mean(losses: Losses, chunks: list[Tensor], w: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(losses(w, torch.cat(chunks)).mean(), w)
    return found


def _summed(weigh: Callable[[Tensor, list[Tensor]], float]) -> Callable[..., Tensor]:
    """The sum over chunks of the gradient of the chunk's losses, added up and weighed."""

    def gradient(losses: Losses, chunks: list[Tensor], w: Tensor) -> Tensor:
        parts = [weigh(c, chunks) * _sum(losses, c, w) for c in chunks]
        return torch.stack(parts).sum(0)

    return gradient


def _sum(losses: Losses, chunk: Tensor, w: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(losses(w, chunk).sum(), w)
    return found


def _count(chunks: list[Tensor]) -> int:
    return sum(map(len, chunks))


_CHUNKS = Exercise(
    same_function(
        _chunk_cases,
        _mean,
        (
            Misconception(
                _summed(lambda c, cs: 1 / len(c)),
                "that adds up the mean of each chunk: as many times too much as there are chunks, "
                "and the samples of small chunks count more.",
            ),
            Misconception(
                _summed(lambda c, cs: 1 / len(c) / len(cs)),
                "dividing by the number of chunks gives every chunk the same weight; a chunk "
                "counts by its share of the samples, len(chunk) / all.",
            ),
            Misconception(
                _summed(lambda c, cs: 1.0),
                "that is the gradient of the sum over all samples; divide by their number.",
            ),
            Misconception(
                lambda losses, cs, w: _sum(losses, cs[-1], w) / len(cs[-1]),
                "only the last chunk is left: .grad was zeroed between the chunks.",
            ),
            Misconception(
                lambda losses, cs, w: _sum(losses, cs[-1], w) / _count(cs),
                "only the last chunk is left: .grad was zeroed between the chunks.",
            ),
            Misconception(
                lambda losses, cs, w: _sum(losses, cs[0], w) / len(cs[0]),
                "only the first chunk was used; go through all of them before you return.",
            ),
            Misconception(
                lambda losses, cs, w: _mean(losses, cs, w) * len(cs),
                "that is too much by the number of chunks: the shares of all chunks add up to 1.",
            ),
        ),
        hint="give every sample the weight 1 / (number of all samples), and let .grad add up.",
    )
)

EXERCISES: dict[str, Exercise] = {"fresh": _FRESH, "chunks": _CHUNKS}
