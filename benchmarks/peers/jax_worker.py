"""asdex and sparsejac behind a pipe: a JSON request per line on stdin, a JSON answer on stdout.

It times itself, so that the pipe is in no figure. Run by ``client.JaxPeers`` as
``python -m benchmarks.peers.jax_worker THREADS``, in an environment that has them.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..memory import peak_bytes
from ..problems.catalogue import Problem

# sparsejac colors a graph that joins every two rows (or columns) that meet: above this many pairs
# its Python loops take minutes.
PAIRS = 2_000_000


def confine(threads: int) -> None:
    """XLA takes as many threads as the process may use CPUs; it has no switch of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Worker:
    """The problem at hand, its pattern, its coloring and its compiled evaluations.

    Every form of a matrix is a function of x: "values" (asdex's value array), "bcoo" and "csr"
    (asdex's matrices; CSR is SciPy's), "sparsejac" (its BCOO).
    """

    def __init__(self) -> None:
        import asdex
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax, self.asdex = jax, asdex
        self.func: Any = None
        self.x: Any = None
        self.asked = "jacobian"
        self.pattern: Any = None
        self.coloring: Any = None
        self.compiled: dict[str, Any] = {}

    def versions(self) -> Any:
        return {name: _version(name) for name in ("jax", "asdex", "sparsejac")}

    def open(self, name: str, kind: str, size: list[int], source: str, matrix: str) -> Any:
        from ..problems.in_jax import build

        self.func, self.x = build(Problem(name, kind, tuple(size), source, matrix))
        self.asked = matrix
        self.pattern = self.coloring = None
        self.compiled = {}
        return {}

    def detect(self, calls: int) -> Any:
        return {"seconds": _seconds_per_call(self._detect, calls)}

    def color(self, calls: int) -> Any:
        self._kept_pattern()
        return {"seconds": _seconds_per_call(self._color, calls)}

    def color_sparsejac(self, calls: int) -> Any:
        self._kept_coloring()
        return {"seconds": _seconds_per_call(self._sparsejac, calls)}

    def compile(self, form: str, calls: int) -> Any:
        """Seconds from a coloring to a first result: compile, and evaluate once."""
        self._kept_coloring()

        def first() -> None:
            self.compiled[form] = self._compile(form)
            self.jax.block_until_ready(self.compiled[form](self.x))

        return {"seconds": _seconds_per_call(first, calls)}

    def evaluate(self, form: str, calls: int) -> Any:
        run = self._evaluation(form)
        return {
            "seconds": _seconds_per_call(lambda: self.jax.block_until_ready(run(self.x)), calls)
        }

    def facts(self) -> Any:
        coloring = self._kept_coloring()
        nnz, colors = len(coloring.sparsity.rows), int(coloring.num_colors)
        mode = "star" if coloring.symmetric else coloring.mode
        return {"nnz": nnz, "products": colors, "mode": mode}

    def matrix(self, form: str, path: str) -> Any:
        """Write what an evaluation gives, as rows, columns and values of the 2-D matrix."""
        found = self._evaluation(form)(self.x)
        pattern = self._kept_coloring().sparsity
        if form == "values":
            rows, cols, values = pattern.rows, pattern.cols, found
        elif form == "csr":
            entries = found.tocoo()
            rows, cols, values = entries.row, entries.col, entries.data
        else:
            rows, cols = np.divmod(_places(found), self.x.size)
            values = found.data
        np.savez(path, rows=rows, cols=cols, values=np.ravel(values), shape=pattern.shape)
        return {}

    def peak(self) -> Any:
        """The process's peak so far."""
        return {"bytes": peak_bytes()}

    def forward(self) -> Any:
        self.jax.block_until_ready(self.func(self.x))
        return {}

    def _asdex(self, name: str) -> Any:
        return getattr(self.asdex, name.format(self.asked))

    def _detect(self) -> Any:
        func = self.func
        # A new function each time: JAX keeps the traces of those that it has seen.
        self.pattern = self._asdex("{}_sparsity")(lambda x: func(x), self.x)
        return self.pattern

    def _color(self) -> Any:
        self.coloring = self._asdex("{}_coloring_from_sparsity")(self.pattern)
        return self.coloring

    def _kept_pattern(self) -> Any:
        return self._detect() if self.pattern is None else self.pattern

    def _kept_coloring(self) -> Any:
        if self.coloring is None:
            self._kept_pattern()
            self._color()
        return self.coloring

    def _evaluation(self, form: str) -> Any:
        self._kept_coloring()
        if form not in self.compiled:
            self.compiled[form] = self._compile(form)
        return self.compiled[form]

    def _compile(self, form: str) -> Any:
        func, coloring = self.func, self.coloring
        if form == "sparsejac":
            shape, found = self.x.shape, self.jax.jit(self._sparsejac())
            return (lambda x: found(x.reshape(-1))) if len(shape) != 1 else found
        if form == "csr":
            return self._to_scipy()
        if form == "bcoo":
            from_coloring = self._asdex("{}_from_coloring")
            return self.jax.jit(from_coloring(lambda x: func(x), coloring, output_format="bcoo"))
        compressed = self._asdex("compressed_{}_from_coloring")(lambda x: func(x), coloring)
        return self.jax.jit(lambda x: self.asdex.decompress_data(compressed(x), coloring))

    def _to_scipy(self) -> Any:
        """SciPy's format is for functions of vectors; asdex compiles what is inside."""
        coloring = self.coloring
        if self.x.ndim != 1 or self.jax.eval_shape(self.func, self.x).ndim > 1:
            pattern = coloring.sparsity
            flat = self.asdex.SparsityPattern.from_coo(pattern.rows, pattern.cols, pattern.shape)
            coloring = self._asdex("{}_coloring_from_sparsity")(flat, mode=coloring.mode)
        from_coloring = self._asdex("{}_from_coloring")
        run = from_coloring(self._flat_func(), coloring, output_format="scipy_csr")
        return lambda x: run(x.reshape(-1))

    def _flat_func(self) -> Callable[[Any], Any]:
        func, shape = self.func, self.x.shape
        if self.asked == "hessian":
            return lambda x: func(x.reshape(shape))
        return lambda x: func(x.reshape(shape)).reshape(-1)

    def _sparsejac(self) -> Any:
        import sparsejac
        from jax.experimental.sparse import BCOO

        pattern, forward = self.coloring.sparsity, self.coloring.mode != "rev"
        # Two columns meet in every row that has both, two rows in every column.
        meeting = np.bincount(pattern.rows if forward else pattern.cols).astype(np.int64)
        pairs = int((meeting**2).sum())
        if pairs > PAIRS:
            raise ValueError(f"left out: {pairs:,} pairs to color in Python")
        places = np.stack([pattern.rows, pattern.cols], 1)
        ones = np.ones(len(places), dtype=np.float64)
        sparsity = BCOO((ones, places), shape=tuple(pattern.shape))
        how = sparsejac.jacfwd if forward else sparsejac.jacrev
        func = self._flat_func()
        return how(self.jax.grad(func) if self.asked == "hessian" else func, sparsity)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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
    warnings.filterwarnings("ignore", message="Coloring used")
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
