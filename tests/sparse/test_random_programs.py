"""Random programs against dense autograd; thousands with ``python -m tests.sparse.random_programs``."""

from __future__ import annotations

import pytest
import torch
from torch.fx import Node

from pullback.sparse.lift.settled import Settled
from pullback.sparse.rules import RULES
from pullback.sparse.rules.base import Rule

from .random_programs import judge, main, random_program
from .random_steps import STEPS

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_pattern_and_the_values_hold(seed: int) -> None:
    program = random_program(seed)
    verdict = judge(program)
    assert verdict.kind in ("held", "not captured"), f"{verdict.kind}: {verdict.text}\n{program}"


def test_a_seed_names_one_program() -> None:
    first, second = random_program(3), random_program(3)
    assert str(first) == str(second)
    for seed in (0, 1):
        torch.manual_seed(seed)
        left = first.func(*first.inputs(seed))
        torch.manual_seed(seed)
        right = second.func(*second.inputs(seed))
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_most_programs_are_captured_and_lifted() -> None:
    verdicts = [judge(random_program(seed)) for seed in range(100, 110)]
    assert sum(v.kind == "held" for v in verdicts) >= 9
    assert sum(v.lifted for v in verdicts) >= 7


def test_a_lift_that_is_wrong_elsewhere_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Settled._follows_from

    def believing(self: Settled, node: Node, floats: bool) -> frozenset[str] | None:
        settled = node.op == "placeholder" and node not in self._graph.linear
        return frozenset() if settled else right(self, node, floats)

    monkeypatch.setattr(Settled, "_follows_from", believing)
    assert any(judge(random_program(seed)).kind == "wrong values" for seed in range(100, 106))


def test_every_step_is_drawn_somewhere() -> None:
    drawn = {name for seed in range(150) for name in random_program(seed).names}
    assert drawn == set(STEPS)


def test_a_rule_that_misses_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("flip", "slice_backward", "roll"):
        right = RULES[name]
        monkeypatch.setitem(RULES, name, Rule(lambda step: step.nothing(), right.linear))
    assert main(["--count", "12", "--seed", "0"]) == 1
    assert "missed" in capsys.readouterr().out
