"""Peaks of memory, each in a process of its own: what a plan and one evaluation add to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from ..options import Options
from ..peers.client import ROOT, JaxPeers, PeerError
from ..peers.turns import reason
from ..problems.catalogue import TINY, Problem
from ..timing import Row, Table
from .case import DENSE_BYTES, Result
from .ours import COMPILED, LIFTED, PLAIN

PATIENCE = 120.0
DENSE = "torch.func"


def remember(results: Sequence[Result], options: Options, python: str | None) -> None:
    """Measure the largest problem of each kind: a process takes seconds to start."""
    largest: dict[str, Result] = {}
    for result in results:
        kind = result.problem.kind
        if kind not in largest or result.facts["nnz"] > largest[kind].facts["nnz"]:
            largest[kind] = result
    for result in largest.values():
        result.memory = _memory(result, options, python)


def _memory(result: Result, options: Options, python: str | None) -> dict[str, int | str]:
    """Bytes above the process's peak after one forward, for each candidate."""
    facts, found = result.facts, {}
    for candidate in (PLAIN, LIFTED, COMPILED):
        cell = result.warm[candidate]
        found[candidate] = cell if isinstance(cell, str) else _ours(result, candidate, options)
    if "dense" in options.peers:
        size = 8 * facts["rows"] * facts["columns"]
        too_large = f"dense: {size / 2**30:,.1f} GiB"
        found[DENSE] = too_large if size > DENSE_BYTES else _ours(result, DENSE, options)
    if "asdex" in options.peers and python is not None:
        found["asdex"] = _asdex(result.problem, python, options)
    return found


def _ours(result: Result, candidate: str, options: Options) -> int | str:
    request = {"candidate": candidate, "threads": options.threads, **asdict(result.problem)}
    command = [sys.executable, "-m", "benchmarks.matrices.peak", json.dumps(request)]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"more than {PATIENCE:.0f} s"
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or [f"ended ({ended.returncode})"])[-1][:90]
    return int(ended.stdout.split()[-1])


def _asdex(problem: Problem, python: str, options: Options) -> int | str:
    with JaxPeers(python, options.threads, PATIENCE) as jax:
        try:
            for each in (TINY[problem.matrix], problem):
                jax.open(each)
                jax.forward()
                before = jax.peak()
                jax.seconds("evaluate", 1, form="values")
            return jax.peak() - before
        except PeerError as error:
            return reason(error)


def memory_table(results: Sequence[Result]) -> Table:
    results = [result for result in results if result.memory]
    columns = tuple(dict.fromkeys(name for result in results for name in result.memory))
    rows = [
        Row(r.problem.name, tuple(_told(r.memory.get(name, "")) for name in columns))
        for r in results
    ]
    return Table(
        "Peak memory above one forward",
        columns,
        tuple(rows),
        "The largest problem of each kind: a plan and one evaluation, in a process of its own that "
        "has evaluated a tiny one; `torch.func` by its `jacrev` (for Hessians, of the gradient) in "
        "chunks of 256.",
        compare=False,
    )


def _told(found: int | str) -> str:
    return found if isinstance(found, str) else f"{found / 2**20:,.0f} MiB"
