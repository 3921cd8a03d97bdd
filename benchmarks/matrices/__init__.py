"""Sparse matrices of derivatives, by pullback and by others: the Jacobians and the Hessians.

asdex and sparsejac run in a process and an environment of their own, see
``benchmarks.peers.client``. All candidates differentiate the same function of the same float64
numbers, and a time is shown only where the matrix agrees with that of pullback's plain plan.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import torch
from rich.console import Console

from ..options import Options
from ..peers.client import INSTALL, JaxPeers, PeerError, interpreter
from ..peers.turns import reason
from ..problems.catalogue import TINY, Problem, chosen, with_files
from ..timing import Table
from . import files, plots
from .case import Result, measure
from .memory import memory_table, remember
from .ours import prepare
from .tables import as_tables

ABSENT = f"jax and asdex are not installed: `{INSTALL}`."
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def run(matrix: str, problems: Sequence[Problem], options: Options) -> list[Table]:
    """Measure ``problems`` that are asked for their ``matrix``, "jacobian" or "hessian"."""
    log = Console(stderr=True)
    problems = chosen(problems, options.only)
    if options.bundle is not None:
        problems = with_files(problems, options.bundle)
    wanted = {"asdex", "sparsejac"} & set(options.peers)
    python = interpreter() if wanted else None
    if wanted and python is None:
        log.print(ABSENT, style="bold red")
    with _empty_cache():
        results, note = _measured(matrix, problems, options, python, log)
        if options.memory:
            remember(results, options, python)
    if not results:
        return []
    if options.out is not None:
        files.write(options.out, matrix, results, options, note)
        plots.draw(options.out, results)
    memory = [memory_table(results)] if options.memory else []
    return [*as_tables(matrix, results, note), *memory]


def _measured(
    matrix: str, problems: Sequence[Problem], options: Options, python: str | None, log: Console
) -> tuple[list[Result], str]:
    """The results, and a note on the peers and on problems that failed: these end nothing."""
    results, failed = [], []
    peer_process = None if python is None else JaxPeers(python, torch.get_num_threads())
    with peer_process or nullcontext() as peer:
        jax = peer or "not installed"
        _warm_up(TINY[matrix], jax)
        for problem in problems:
            log.print(problem.name, style="dim")
            try:
                results.append(measure(problem, jax, options))
            except Exception as error:
                failed.append(f"{problem.name} ({reason(error)})")
                log.print(failed[-1], style="bold red")
                continue
            for name, text in results[-1].wrong.items():
                log.print(f"{problem.name}: {name}: {text}", style="bold red")
            if options.out is not None:
                files.write(options.out, matrix, results, options, "")  # a run may be cut short
        note = "" if peer is None else f"In a process of its own: {peer.versions()}."
    return results, note + (f" Failed: {'; '.join(failed)}." if failed else "")


def _warm_up(tiny: Problem, jax: JaxPeers | str) -> None:
    """What is imported and compiled once in a process is not the first problem's."""
    prepare(tiny)
    if not isinstance(jax, str):
        jax.open(tiny)
        for step in ("color", "color_sparsejac"):
            with suppress(PeerError):
                jax.seconds(step, 1)


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A first compilation is one: what an earlier process compiled is not found."""
    before = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            del os.environ[CACHE]
            if before is not None:
                os.environ[CACHE] = before
