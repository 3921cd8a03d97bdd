"""Hessians of random programs; thousands with ``python -m tests.sparse.hessian.random_programs``."""

from __future__ import annotations

import pytest

from pullback.sparse.rules import RULES
from pullback.sparse.rules.base import Rule

from ..random_programs import random_program
from .random_programs import judge, main


@pytest.mark.parametrize("seed", range(40))
def test_the_pattern_and_the_values_hold(seed: int) -> None:
    program = random_program(seed)
    verdict = judge(program)
    assert verdict.kind == "held", f"{verdict.kind}: {verdict.text}\n{program}"


def test_a_rule_that_misses_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = RULES["mul"]
    monkeypatch.setitem(RULES, "mul", Rule(lambda step: step.nothing(), right.linear))
    assert main(["--count", "3", "--seed", "2"]) == 1
    assert "missed" in capsys.readouterr().out
