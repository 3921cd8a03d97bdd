"""What a plan chooses by itself, against what was measured to be faster."""

from __future__ import annotations

import pytest
from benchmarks.problems.catalogue import QUICK, Problem
from benchmarks.problems.in_torch import build

import pullback as pb

# Replayed on one thread, medians of 15 interleaved rounds: coloring all of J against lifting. The
# dense networks and attention were faster plain, by 1.2 to 1.3 times; all others lifted, by 1.6 to
# 5 times.
FASTER_PLAIN = {"attention", "dense_mlp", "tall_mlp"}


@pytest.mark.parametrize("problem", QUICK, ids=lambda p: p.name)
def test_the_choice_is_the_measured_best(problem: Problem) -> None:
    func, x = build(problem)[:2]
    plan = pb.plan_jacobian(func, x)
    assert plan.lifted == (problem.kind not in FASTER_PLAIN), plan.reason
    assert ("without lifting" in plan.reason) == plan.lifted
    assert plan.lifted or "lifting it" in plan.reason
