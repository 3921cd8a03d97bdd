"""Lesson 11's birthplace: the first node that receives finite numbers and sends others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

import pullback as pb

from ..checking import Case, Exercise, Misconception, Own, same_function

Sum = Callable[[Tensor], Tensor]


def _of(function: Sum, weight: float = 1.0) -> pb.BackwardRecord:
    x = torch.tensor([0.0, 1.0, 4.0], requires_grad=True)
    out = function(x)
    return pb.record(out, torch.full_like(out, weight), inputs={"x": x})


def _masked(x: Tensor) -> Tensor:
    return torch.where(x > 0, x.sqrt(), 0 * x)


def _programs() -> list[tuple[str, Sum, float, str]]:
    """How each reads, the weight of its cotangent, and the birthplace, found by hand."""
    return [
        ("torch.where(x > 0, x.sqrt(), 0 * x)", _masked, 1.0, "SqrtBackward0"),
        ("(x * 3).sqrt(), where inf goes on", lambda x: (x * 3).sqrt(), 1.0, "SqrtBackward0"),
        ("((x - 4).reciprocal() * x).sin(), at a pole", _pole, 1.0, "SinBackward0"),
        ("x * 2, all finite", lambda x: x * 2, 1.0, "nowhere"),
        ("x * 2, weighed with inf", lambda x: x * 2, math.inf, "nowhere"),
    ]


def _pole(x: Tensor) -> Tensor:
    return ((x - 4).reciprocal() * x).sin()


@cache
def _records() -> tuple[tuple[str, pb.BackwardRecord, str], ...]:
    """Made once: a record is plain data, and a look searches the whole process."""
    return tuple((text, _of(f, weight), birth) for text, f, weight, birth in _programs())


def _cases(own: Own) -> list[Case]:
    def case(text: str, record: pb.BackwardRecord) -> Case:
        return Case(f"the record of {text}, x = [0, 1, 4]", lambda: (record,))

    return [case(text, record) for text, record, _ in _records()]


def _birth(record: pb.BackwardRecord) -> str:
    return next(birth for _, known, birth in _records() if known is record)


def _strange(cotangents: Iterable[Any]) -> int:
    return sum(c.stats.nonfinite for c in cotangents if c is not None)


def _senders(record: pb.BackwardRecord) -> list[str]:
    sent = ((n.name, _strange(e.contribution for e in n.edges)) for n in record.nodes)
    return [name for name, count in sent if count]


def _receivers(record: pb.BackwardRecord) -> list[str]:
    return [n.name for n in record.nodes if _strange(n.upstream)]


BIRTHPLACE = Exercise(
    same_function(
        _cases,
        _birth,
        (
            Misconception(
                lambda record: next(iter(_receivers(record)), "nowhere"),
                "that is the first node that *received* such a number: its sender made it.",
            ),
            Misconception(
                lambda record: next(iter(_senders(record)), "nowhere"),
                "that node sent such numbers, but had received some, and passed them on: ask for "
                "a finite upstream as well.",
            ),
            Misconception(
                lambda record: next(iter(_senders(record)[::-1]), "nowhere"),
                "that is the last on the way that sent such numbers; they were born at the first.",
            ),
        ),
        hint="go through record.nodes in order, and compare .stats.nonfinite of the upstream with "
        "that of the contributions on the edges; 'nowhere' if no node turns finite into other.",
        praise="Finite in, not finite out: that is where it was born.",
    )
)
