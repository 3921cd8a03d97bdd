"""Lesson 11's verdict: programs whose gradient is missing for a known reason, or arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checking import CrashedError, Outcome, Own, called, right, wrong
from ..values import difference, shown

Pair = tuple[Tensor, Tensor]

VERDICTS = ("frozen", "not a leaf", "no graph", "not reached", "zero", "arrives")


def _leaf(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float32).requires_grad_()


def _same(x: Tensor, function: Callable[[Tensor], Tensor]) -> Pair:
    return function(x), x


def _programs() -> list[tuple[str, Callable[[], Pair], str]]:
    """How a program reads, what makes it, and its verdict, by construction."""
    plain = torch.tensor([1.0, -2.0])
    return [
        ("out = x * x", lambda: _same(_leaf(1, -2), lambda x: x * x), "arrives"),
        ("out = (x * x).sum()", lambda: _same(_leaf(1, -2), lambda x: (x * x).sum()), "arrives"),
        ("out = x * [1, -1]", lambda: _same(_leaf(3, 4), lambda x: x * plain.sign()), "arrives"),
        ("out = x.max()", lambda: _same(_leaf(3, 4), lambda x: x.max()), "arrives"),
        ("out = 0 * x", lambda: _same(_leaf(1, -2), lambda x: 0 * x), "zero"),
        ("out = x.relu() at x = [-1, -2]", lambda: _same(_leaf(-1, -2), torch.relu), "zero"),
        ("out = b * 2, x not used", lambda: (_leaf(1, 2) * 2, _leaf(1, 2)), "not reached"),
        ("out = x.detach() * b", lambda: _cut(), "not reached"),
        ("out = x.detach() * 2", lambda: _same(_leaf(1, 2), lambda x: x.detach() * 2), "no graph"),
        ("x = w * 0.1, out = x * x", lambda: _same(_leaf(1, 2) * 0.1, torch.square), "not a leaf"),
        ("x = w * 2, out = x.detach()", lambda: _same(_leaf(1, 2) * 2, torch.detach), "not a leaf"),
        ("x without requires_grad, out = x * b", lambda: (plain * _leaf(1, 2), plain), "frozen"),
        ("x without requires_grad, out = x * 2", lambda: (plain * 2, plain), "frozen"),
    ]  # fmt: skip


def _cut() -> Pair:
    x = _leaf(1, 2)
    return x.detach() * _leaf(3, 4), x


def judge_verdict(answer: Any, own: Own) -> Outcome:
    for text, make, expected in _programs():
        out, x = make()
        came = called(answer, (out, x), f"On {text}, it")
        if difference(came, expected):
            told = f"On {text}, it gave {shown(came)}; right is {expected!r}."
            return wrong(_hint(came, expected), told)
        trace = _trace(out, x, text)
        if trace is not None:
            return trace
    return right(f"{len(_programs())} programs, and no trace was left in them.")


def _trace(out: Tensor, x: Tensor, text: str) -> Outcome | None:
    """What the answer did to the program: wrote to .grad, or freed the graph."""
    if x.is_leaf and x.grad is not None:
        return wrong(
            "backward writes to .grad; torch.autograd.grad returns, and writes nothing.",
            f"On {text}: x.grad is {shown(x.grad)} afterwards.",
        )
    if not out.requires_grad:
        return None
    try:
        out.backward(torch.ones_like(out))
    except RuntimeError as error:
        if "second time" not in str(error):
            raise CrashedError(error, f"On {text}, a backward afterwards") from error
        return wrong(
            "the graph has been freed: pass retain_graph=True.",
            f"On {text}: a backward afterwards fails.",
        )
    return None


def _hint(came: Any, expected: str) -> str:
    if not isinstance(came, str) or came not in VERDICTS:
        return f"the answer is one of {', '.join(map(repr, VERDICTS))}."
    for pair, hint in _MIXED_UP:
        if (came, expected) == pair:
            return hint
    if VERDICTS.index(expected) < VERDICTS.index(came):
        return _EVIDENCE[expected] + " Ask for it earlier: the first that holds is the answer."
    return _EVIDENCE[expected]


_MIXED_UP = (
    (
        ("zero", "not reached"),
        "no path is not a gradient of zero: torch.autograd.grad(..., allow_unused=True) gives "
        "None.",
    ),
    (
        ("not reached", "zero"),
        "a path that multiplies by 0 is a path: what arrives is a tensor of zeros, not None.",
    ),
    (
        ("zero", "arrives"),
        "some entries are not 0, though others are, or their sum is: ask whether any entry is "
        "not 0.",
    ),
    (
        ("no graph", "not reached"),
        "out has a graph; it just does not lead to x.",
    ),
)

_EVIDENCE = {
    "frozen": "x.requires_grad is False here.",
    "not a leaf": "x.is_leaf is False here: an operation made it.",
    "no graph": "out.requires_grad is False here.",
    "not reached": "torch.autograd.grad(out, x, ones, allow_unused=True) gives None here.",
    "zero": "what arrives is a tensor of zeros here.",
    "arrives": "a gradient with entries that are not 0 arrives here.",
}
