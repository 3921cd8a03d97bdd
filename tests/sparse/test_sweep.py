"""A part of the sweep over torch's own operators; ``make sweep`` runs all of it."""

from __future__ import annotations

import pytest
import torch
from torch.fx import Node

from pullback.sparse.lift.settled import Settled
from pullback.sparse.rules import RULES
from pullback.sparse.rules.base import Rule

pytest.importorskip("expecttest")

from .sweep import Outcome, baseline, operators, report, sweep_one

EVERY = 12
SHOWN = ("sum", "index_put", "masked_scatter", "nn.functional.conv1d", "cumsum", "linalg.solve")


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    ops = operators()
    labels = sorted(ops)[::EVERY]
    return [sweep_one(label, ops[label], lifts=1) for label in dict.fromkeys([*labels, *SHOWN])]


def test_no_pattern_misses_an_entry(outcomes: list[Outcome]) -> None:
    assert [m for o in outcomes for m in o.missed] == []
    assert [c for o in outcomes for c in o.crashed] == []


def test_lifted_values_are_those_of_autograd(outcomes: list[Outcome]) -> None:
    assert [w for o in outcomes for w in o.wrong] == []
    assert sum(o.lifted for o in outcomes) > 20


def test_hardly_any_operator_falls_to_the_pessimistic_rule(
    outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(outcomes, 1.0)
    assert "0 misses" in capsys.readouterr().out
    assert {o.label: o.pessimistic for o in outcomes if o.pessimistic} == {}


def test_patterns_are_no_looser_than_they_were(outcomes: list[Outcome]) -> None:
    before = baseline()
    known = {o.label: o for o in outcomes if o.label in before and o.detected}
    looser = {
        label: (before[label][2], o.claimed)
        for label, o in known.items()
        if o.detected == before[label][0] and o.claimed > before[label][2]
    }
    assert looser == {}
    assert known or not before


def test_complex_operators() -> None:
    ops = operators(torch.complex128)
    for label in ("mul", "view_as_real", "abs", "fft.fft", "addcmul", "real"):
        outcome = sweep_one(label, ops[label], torch.complex128, most=2)
        assert outcome.samples
        assert not outcome.failed, (outcome.missed, outcome.crashed)


def test_the_sweep_sees_a_rule_that_misses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = RULES["roll"]
    monkeypatch.setitem(RULES, "roll", Rule(lambda step: step.inputs[0], right.linear))
    outcome = sweep_one("roll", operators()["roll"])
    assert outcome.missed
    assert not report([outcome], 1.0)
    capsys.readouterr()


def test_the_sweep_sees_a_lift_that_is_wrong_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = Settled._follows_from

    def believing(self: Settled, node: Node, floats: bool) -> frozenset[str] | None:
        settled = node.op == "placeholder" and node not in self._graph.linear
        return frozenset() if settled else right(self, node, floats)

    monkeypatch.setattr(Settled, "_follows_from", believing)
    outcome = sweep_one("mul", operators()["mul"])
    assert outcome.wrong
    assert not report([outcome], 1.0)
    capsys.readouterr()


def test_the_sweep_sees_an_operator_without_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "roll")
    outcome = sweep_one("roll", operators()["roll"])
    assert outcome.pessimistic == {"roll": "it has no rule"}
    assert not outcome.failed
