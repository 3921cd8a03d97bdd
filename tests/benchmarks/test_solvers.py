"""The benchmark of solvers on tiny problems: same answers, and what is shown where there is none."""

from __future__ import annotations

import time

import numpy as np
import pytest
from benchmarks.options import Options
from benchmarks.timing import Timing

from benchmarks import solvers


def test_all_candidates_find_the_same_solution() -> None:
    for problem in (
        solvers.brusselator(5),
        solvers.bundle(Options(quick=True)),
        solvers.bratu(7),
    ):
        found = [solve() for solve in problem.candidates.values()]
        for other in found[1:]:
            np.testing.assert_allclose(other.x, found[0].x, rtol=1e-3, atol=1e-3)
        named = {*problem.candidates, *problem.left}
        assert named == {*solvers.COLUMNS}


def test_a_wrong_answer_and_a_slow_solver_stand_in_place_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(solvers, "_PATIENCE", 0.01)
    right = solvers.Solved(np.ones(3), 5, 1)

    def slow() -> solvers.Solved:
        fun = solvers.Counted(lambda: np.ones(3))
        while True:
            time.sleep(0.02)
            fun()

    problem = solvers.Problem(
        "made up",
        np.ones(3),
        lambda x: x,
        lambda x: np.eye(3),
        None,
        {
            solvers.OURS: lambda: right,
            solvers.PLANNED: lambda: right,
            solvers.GIVEN: lambda: solvers.Solved(np.full(3, 1.5), 9, 1),
            solvers.KRYLOV: slow,
        },
        {solvers.PLAIN: "too many"},
    )
    times, counts = solvers._measured(problem, 2)
    ours, planned, given, plain, krylov = times.timings
    assert isinstance(ours, Timing)
    assert isinstance(planned, Timing)
    assert (given, plain, krylov) == ("off by 0.5", "too many", "none in 0 s")
    assert counts.timings == ("3", "1", "5", "5", "9", "–", "–", "0.5")
