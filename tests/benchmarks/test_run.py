"""A run over tiny problems: its tables, its JSON, its plots, and what it does with a wrong peer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from benchmarks.jacobians.case import Result, measure
from benchmarks.jacobians.memory import memory_table, remember
from benchmarks.options import PEERS, Options
from benchmarks.peers import dense
from benchmarks.problems.catalogue import Problem
from benchmarks.timing import Timing
from torch import Tensor

from benchmarks import jacobians

SMALL = Problem("burgers1d 6", "burgers1d", (6,))
LARGER = Problem("burgers1d 9", "burgers1d", (9,))
OPTIONS = Options(quick=True, peers=("forward", "hand", "dense"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "QUICK", (SMALL, LARGER))


def environment() -> dict[str, str]:
    """Without the address that Inductor leaves there for its own workers."""
    return {k: v for k, v in os.environ.items() if k != "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"}


def test_a_run_shows_writes_and_draws_what_it_measured(tmp_path: Path) -> None:
    before = environment()
    problems, set_up, first, warm = jacobians.run(
        Options(quick=True, peers=OPTIONS.peers, out=tmp_path)
    )
    assert environment() == before
    assert [row.problem for row in warm.rows] == ["burgers1d 6", "burgers1d 9"]
    assert problems.rows[1].timings[:3] == ("9 × 9", "25", "3 rev")
    assert "asdex" not in {*set_up.columns, *first.columns, *warm.columns}
    written = json.loads((tmp_path / "jacobians.json").read_text())
    for saved, row in zip(written["problems"], warm.rows, strict=True):
        assert saved["wrong"] == {}
        for name, cell in zip(warm.columns, row.timings, strict=True):
            if isinstance(cell, Timing):
                assert saved["warm"][name]["median"] == cell.median > 0
            else:
                assert saved["warm"][name] == cell
    plot = (tmp_path / "burgers1d.svg").read_text()
    assert "<svg" in plot


def test_a_wrong_matrix_is_shown_in_place_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(size: int) -> dict[str, dense.Dense]:
        def wrong(func: dense.Func, x: Tensor) -> Tensor:
            found: Tensor = torch.func.jacrev(func)(x)
            return 2 * found

        return {"wrong": wrong}

    monkeypatch.setattr(dense, "variants", twice)
    result = measure(SMALL, "not installed", OPTIONS)
    cell = result.warm["torch.func"]
    assert isinstance(cell, str)
    assert cell.startswith("WRONG: entry")
    assert isinstance(result.warm["by hand"], Timing)


def test_a_problem_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = jacobians.measure

    def fails(problem: Problem, *rest: object) -> Result:
        if problem == SMALL:
            raise RuntimeError("out of memory")
        return plain(problem, *rest)

    monkeypatch.setattr(jacobians, "measure", fails)
    *_, warm = jacobians.run(OPTIONS)
    assert [row.problem for row in warm.rows] == ["burgers1d 9"]
    assert "Failed: burgers1d 6 (RuntimeError: out of memory)." in warm.note


def test_the_memory_of_the_largest_of_a_kind() -> None:
    results = [measure(problem, "not installed", OPTIONS) for problem in (SMALL, LARGER)]
    for result in results:
        result.warm = {"plain": result.warm["plain"], "lifted": "no", "compiled": "no"}
    remember(results, Options(quick=True, peers=()), None)
    assert results[0].memory == {}
    assert isinstance(results[1].memory["plain"], int)
    assert 0 <= results[1].memory["plain"] < 2**28
    (row,) = memory_table(results).rows
    assert row.timings[1:] == ("no", "no")


def test_only_a_whole_run_may_be_saved() -> None:
    assert Options().whole
    assert not Options(only=("heat5",)).whole
    assert not Options(peers=PEERS[:2]).whole
    assert not OPTIONS.whole
