"""asdex behind a pipe: one JSON request per line on stdin, one JSON answer per line on stdout.

It times itself, so that the pipe is in no figure. Run by ``client.Asdex`` as
``python -m benchmarks.peers.asdex_worker THREADS``, in an environment that has jax and asdex.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from .problems import Problem


def confine(threads: int) -> None:
    """XLA takes as many threads as the process may use CPUs; it has no switch of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Worker:
    """The problem at hand, its coloring and its compiled evaluations."""

    def __init__(self) -> None:
        import asdex
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax, self.asdex = jax, asdex
        self.func: Any = None
        self.x: Any = None
        self.coloring: Any = None
        self.compiled: dict[str, Any] = {}

    def versions(self) -> Any:
        return {name: version(name) for name in ("jax", "asdex")}

    def open(self, name: str, kind: str, size: list[int]) -> Any:
        from .in_jax import build

        self.func, self.x = build(Problem(name, kind, tuple(size)))
        self.coloring, self.compiled = None, {}
        return {}

    def plan(self, calls: int) -> Any:
        """Seconds of detection and coloring."""
        return {"seconds": _seconds_per_call(self._color, calls)}

    def first(self, calls: int) -> Any:
        """Seconds from the function to its first values: detect, color, compile, evaluate."""

        def all_of_it() -> None:
            self._compile("values", self._color())(self.x).block_until_ready()

        return {"seconds": _seconds_per_call(all_of_it, calls)}

    def facts(self) -> Any:
        coloring = self._kept()
        nnz, colors = len(coloring.sparsity.rows), int(coloring.num_colors)
        return {"nnz": nnz, "products": colors, "mode": coloring.mode}

    def evaluate(self, form: str, calls: int) -> Any:
        """Seconds of one evaluation, compiled; ``form`` is "values" or "bcoo"."""
        run = self._evaluation(form)
        return {
            "seconds": _seconds_per_call(lambda: self.jax.block_until_ready(run(self.x)), calls)
        }

    def matrix(self, form: str, path: str) -> Any:
        """Write what an evaluation gives, as rows, columns and values of the 2-D matrix."""
        found = self._evaluation(form)(self.x)
        sparsity = self._kept().sparsity
        if form == "values":
            rows, cols, values = sparsity.rows, sparsity.cols, found
        else:
            rows, cols = np.divmod(_places(found), self.x.size)
            values = found.data
        np.savez(path, rows=rows, cols=cols, values=np.ravel(values), shape=sparsity.shape)
        return {}

    def _color(self) -> Any:
        func = self.func
        # A new function each time: JAX keeps the traces of those that it has seen.
        self.coloring = self.asdex.jacobian_coloring(lambda x: func(x), self.x)
        return self.coloring

    def _kept(self) -> Any:
        return self._color() if self.coloring is None else self.coloring

    def _evaluation(self, form: str) -> Any:
        if form not in self.compiled:
            self.compiled[form] = self._compile(form, self._kept())
        return self.compiled[form]

    def _compile(self, form: str, coloring: Any) -> Any:
        func = self.func
        if form == "bcoo":
            run = self.asdex.jacobian_from_coloring(
                lambda x: func(x), coloring, output_format="bcoo"
            )
            return self.jax.jit(run)
        compressed = self.asdex.compressed_jacobian_from_coloring(lambda x: func(x), coloring)
        return self.jax.jit(lambda x: self.asdex.decompress_data(compressed(x), coloring))


def _places(matrix: Any) -> Any:
    """Of the entries of a BCOO: where each is in C order. Axes of one element may be batches."""
    if any(length != 1 for length in matrix.shape[: matrix.n_batch]):
        raise ValueError(f"a BCOO of {matrix.n_batch} batch axes has no single list of entries")
    indices = np.asarray(matrix.indices).reshape(-1, matrix.n_sparse)
    return np.ravel_multi_index(tuple(indices.T), matrix.shape[matrix.n_batch :])


def _seconds_per_call(candidate: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        candidate()
    return (time.perf_counter() - start) / calls


def main() -> None:
    confine(int(sys.argv[1]))
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may speak on the pipe
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # told to the other side, which shows it
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
