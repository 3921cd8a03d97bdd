"""A run over tiny problems: its tables, its JSON, its plots, and what it does with a wrong peer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from benchmarks.matrices.case import Result, measure
from benchmarks.matrices.memory import memory_table, remember
from benchmarks.matrices.peak import evaluate
from benchmarks.options import PEERS, Options
from benchmarks.peers import dense
from benchmarks.problems.catalogue import Problem
from benchmarks.problems.in_torch import build
from benchmarks.timing import Timing
from torch import Tensor

from benchmarks import hessians, jacobians, matrices

SMALL = Problem("burgers1d 6", "burgers1d", (6,))
LARGER = Problem("burgers1d 9", "burgers1d", (9,))
HESSIAN = Problem("rosenbrock 6", "rosenbrock", (6,), matrix="hessian")
OPTIONS = Options(quick=True, peers=("forward", "hand", "dense"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "QUICK", (SMALL, LARGER))
    monkeypatch.setattr(hessians, "QUICK_HESSIANS", (HESSIAN,))


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


def test_a_run_of_hessians(tmp_path: Path) -> None:
    problems, *_, warm = hessians.run(Options(quick=True, peers=OPTIONS.peers, out=tmp_path))
    facts = dict(zip(problems.columns, problems.rows[0].timings, strict=True))
    assert facts["rows × columns"] == "6 × 6"
    assert facts["entries"] == "16"
    assert [facts[kind] for kind in ("rows", "star", "acyclic")] == ["3", "3", "2"]
    assert facts["lift=auto"] == "2 lifted"
    assert {"by hand", "torch.func", "no plan"} <= set(warm.columns)
    for name, cell in zip(warm.columns, warm.rows[0].timings, strict=True):
        assert isinstance(cell, Timing), (name, cell)
    written = json.loads((tmp_path / "hessians.json").read_text())
    assert written["problems"][0]["wrong"] == {}


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own
def test_the_dense_ways_to_a_hessian_agree() -> None:
    func, x = build(HESSIAN)
    truth = torch.func.hessian(func)(x)
    ways = dense.variants(0, "hessian")
    assert {"hessian", "functional", "jacrev", "jacfwd"} < set(ways)
    for name, way in ways.items():
        torch.testing.assert_close(way(func, x), truth, msg=name)


def test_a_wrong_matrix_is_shown_in_place_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(size: int, matrix: str) -> dict[str, dense.Dense]:
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
    plain = matrices.measure

    def fails(problem: Problem, *rest: object) -> Result:
        if problem == SMALL:
            raise RuntimeError("out of memory")
        return plain(problem, *rest)

    monkeypatch.setattr(matrices, "measure", fails)
    *_, warm = jacobians.run(OPTIONS)
    assert [row.problem for row in warm.rows] == ["burgers1d 9"]
    assert "Failed: burgers1d 6 (RuntimeError: out of memory)." in warm.note


@pytest.mark.parametrize("matrix", ["jacobian", "hessian"])
def test_the_peak_of_a_tiny_problem(matrix: str) -> None:
    func, x = build(SMALL if matrix == "jacobian" else HESSIAN)
    found = [evaluate(way, matrix, func, x) for way in ("plain", "lifted", "torch.func")]
    for each in found[:2]:
        torch.testing.assert_close(each.to_dense(), found[2])


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
