"""``pullback bench``: one Jacobian in every way there is, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

from .. import draw
from .._checks import commands as checks
from ..sparse.plan import Plan
from . import bench_candidates as candidates
from . import failures, script
from .bench_candidates import Candidate, Run
from .bench_problems import PROBLEMS, Problem
from .stages import seconds_text

CALLER = "bench"
PEERS = ("torch.func", "asdex")
ROUNDS = 9
# Seconds that the calls of one round fill, and all rounds of one candidate at most.
_FILLED, _BUDGET = 0.02, 1.0


@dataclass(frozen=True)
class Request:
    """What was typed, a field for each option."""

    problem: str = ""
    peers: str = ",".join(PEERS)
    threads: int = 1
    traceback: bool = False


@dataclass(frozen=True)
class Case:
    """A function at a point; ``builtin`` where it is written for JAX too."""

    title: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    builtin: Problem | None = None


def run(request: Request) -> int:
    """Do it, and return the exit code: 0 done, 1 the function failed, 2 refused."""
    threads = torch.get_num_threads()
    try:
        peers = checks.names_text(CALLER, "--peers", request.peers, PEERS)
        checks.positive(CALLER, "--threads", request.threads)
        torch.set_num_threads(request.threads)
        with torch.no_grad():
            candidates.warm_up()
            for case in _cases(request.problem):
                typer.echo(report(case, peers))
    except (Exception, SystemExit) as error:
        if request.traceback:
            raise
        return failures.say(CALLER, error)
    finally:
        torch.set_num_threads(threads)
    return 0


def _cases(text: str) -> list[Case]:
    if ":" in text:
        file, name = checks.target_text(CALLER, text)
        path = Path(file)
        checks.file_is_there(CALLER, "FILE.py", path)
        target = script.target_of(CALLER, script.import_file(path), path, name)
        args = script.point_of_module(CALLER, target).args
        checks.real_tensor_first(CALLER, name, args)
        return [Case(name, target.func, args)]
    if text and text not in PROBLEMS:
        raise checks.no_such_problem(CALLER, text, tuple(PROBLEMS))
    cases = []
    for name in [text] if text else PROBLEMS:
        func, x = PROBLEMS[name].in_torch()
        cases.append(Case(f"{name}: {PROBLEMS[name].about}", func, (x,), PROBLEMS[name]))
    return cases


def report(case: Case, peers: Sequence[str]) -> str:
    """The table of one case: one evaluation of each candidate, and the way to the first."""
    plan, matrix, ways = candidates.ours(case.func, case.args)
    ways = [candidates.forward(case.func, case.args), *ways]
    if "torch.func" in peers:
        ways += candidates.torch_func(case.func, case.args, matrix)
    if "asdex" in peers:
        ways.append(candidates.asdex(case.builtin, matrix))
    times = medians({way.name: way.run for way in ways if way.run is not None})
    return draw.to_text(_page(case, plan, ways, times))


def _page(
    case: Case, plan: Plan, ways: Sequence[Candidate], times: Mapping[str, float]
) -> draw.Page:
    m, n = plan.pattern.shape
    facts = (
        f"J is {draw.count(m)} × {draw.count(n)} with {draw.count(plan.pattern.nnz)} entries that "
        f"may be nonzero; plain, it takes {draw.count(plan.num_products)} products ({plan.mode})."
    )
    columns = ("", "one evaluation", "× forward", "the first, with its set-up")
    rows = tuple(_row(way, times) for way in ways if way.run is not None)
    left_out = tuple((way.name, way.why) for way in ways if way.run is None)
    blocks: list[draw.Block] = [draw.Sentence(facts), draw.Table("Medians", columns, rows)]
    if left_out:
        blocks.append(draw.Sentence("Not measured:", left_out))
    return draw.Page(case.title, tuple(blocks))


def _row(way: Candidate, times: Mapping[str, float]) -> tuple[str, str, str, str]:
    again = times[way.name]
    first = "" if way.first is None else seconds_text(way.first)
    return way.name, seconds_text(again), f"{again / times['forward']:.1f}", first


def medians(runs: dict[str, Run]) -> dict[str, float]:
    """Seconds of one call of each: the median over rounds that interleave them."""
    once = {name: min(_seconds(call, 1) for _ in range(2)) for name, call in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(ROUNDS):
        for name, call in runs.items():
            turns = max(1, min(ROUNDS, int(_BUDGET / max(once[name], 1e-9))))
            if (k + 1) * turns // ROUNDS > k * turns // ROUNDS:
                calls = max(1, int(_FILLED / max(once[name], 1e-9)))
                samples[name].append(_seconds(call, calls))
    return {name: statistics.median(found) for name, found in samples.items()}


def _seconds(call: Run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
