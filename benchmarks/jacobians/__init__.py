"""Sparse Jacobians: pullback beside hand-written code, ``torch.func``, asdex and sparsejac.

asdex and sparsejac run in a process and an environment of their own, see
``benchmarks.peers.client``. All candidates differentiate the same function of the same float64
numbers, and a time is shown only where the matrix agrees with that of pullback's plain plan.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext, suppress

import torch
from rich.console import Console

from ..options import Options
from ..peers.client import INSTALL, JaxPeers, PeerError, interpreter
from ..problems.catalogue import FULL, QUICK, TINY, Problem, chosen, with_files
from ..problems.in_torch import build
from ..timing import Table
from . import files, plots
from .measure import Result, measure
from .memory import memory_table, remember
from .ours import prepare
from .tables import tables

ABSENT = f"jax and asdex are not installed: `{INSTALL}`"


def run(options: Options) -> list[Table]:
    log = Console(stderr=True)
    problems = chosen(QUICK if options.quick else FULL, options.only)
    if options.bundle is not None:
        problems = with_files(problems, options.bundle)
    python = interpreter() if {"asdex", "sparsejac"} & set(options.peers) else None
    against = ""
    with tempfile.TemporaryDirectory() as cache:
        # A first compilation is one: what an earlier process compiled is not found.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        peer_process = None if python is None else JaxPeers(python, torch.get_num_threads())
        with peer_process or nullcontext() as peer:
            if peer is not None:
                against = f"In a process of its own: {peer.versions()}."
            elif {"asdex", "sparsejac"} & set(options.peers):
                against = ABSENT
                log.print(ABSENT, style="bold red")
            jax = peer or "not installed"
            _warm_up(jax)
            results = [_measured(problem, jax, options, log) for problem in problems]
            if options.memory:
                remember(results, options, python)
    found = tables(results, against) if results else []
    if options.memory and results:
        found.append(memory_table(results))
    if options.out is not None and results:
        files.write(options.out, results, options, against)
        plots.draw(options.out, results)
    return found


def _warm_up(jax: JaxPeers | str) -> None:
    """What is imported and compiled once in a process is not the first problem's."""
    prepare(*build(TINY))
    if not isinstance(jax, str):
        jax.open(TINY)
        for step in ("color", "color_sparsejac"):
            with suppress(PeerError):
                jax.seconds(step, 1)


def _measured(problem: Problem, jax: JaxPeers | str, options: Options, log: Console) -> Result:
    log.print(problem.name, style="dim")
    result = measure(problem, jax, options)
    for name, text in result.wrong.items():
        log.print(f"{problem.name}: {name}: {text}", style="bold red")
    return result
