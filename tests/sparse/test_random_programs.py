"""Random programs against dense autograd; thousands with ``python -m tests.sparse.random_programs``."""

from __future__ import annotations

import pytest
import torch

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


def test_most_programs_are_captured() -> None:
    kinds = [judge(random_program(seed)).kind for seed in range(100, 110)]
    assert kinds.count("held") >= 9


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
