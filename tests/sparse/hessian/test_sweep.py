"""A part of the sweep of Hessians over torch's own operators; ``make sweep`` runs all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pullback.sparse.rules import RULES
from pullback.sparse.rules.base import Rule
from pullback.sparse.study import Study

pytest.importorskip("expecttest")

from ..sweep import Sample, operators
from .sweep import Outcome, examine, main, report, sweep_one

EVERY = 16
SHOWN = (
    "div.no_rounding_mode",
    "index_put",
    "nn.functional.conv1d",
    "cumprod",
    "linalg.solve",
    "atan2",
)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    ops = operators()
    labels = dict.fromkeys([*sorted(ops)[::EVERY], *SHOWN])
    return [sweep_one(label, ops[label], most=1, turn=turn) for turn, label in enumerate(labels)]


def test_no_pattern_misses_an_entry(outcomes: list[Outcome]) -> None:
    assert [m for o in outcomes for m in o.missed] == []
    assert [c for o in outcomes for c in o.crashed] == []


def test_values_are_those_of_a_backward_through_the_backward(
    outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [w for o in outcomes for w in o.wrong] == []
    assert [r for o in outcomes for r in o.refused] == []
    assert sum(o.samples for o in outcomes) > 30
    assert report(outcomes, 1.0)
    assert "0 misses; 0 wrong; 0 crashes" in capsys.readouterr().out


def test_the_sweep_sees_a_rule_that_misses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = RULES["mul"]
    monkeypatch.setitem(RULES, "mul", Rule(lambda step: step.nothing(), right.linear))
    outcome = sweep_one("square", operators()["square"], most=1)
    assert outcome.missed
    assert outcome.wrong
    assert not report([outcome], 1.0)
    assert main(["--only", "square", "--most", "1"]) == 1
    assert "missed: 0" not in capsys.readouterr().out


class Crossed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.roll(1, 0) ** 2


def test_the_sweep_sees_a_matrix_taken_for_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(1.0, 5.0, dtype=torch.float64)
    sample = Sample("crossed", Crossed.apply, (x,), 4)
    for seen in (False, True):
        outcome = Outcome("crossed")
        examine(sample, outcome, turn=2)
        assert outcome.failed == seen
        monkeypatch.setattr(Study, "asymmetry", "")
