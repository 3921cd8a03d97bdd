"""The ways to one Jacobian that ``pullback bench`` knows: our own, ``torch.func``'s, asdex's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from .. import _checks
from .._jacobian import jacobian
from .._trees import flatten
from ..sparse.plan import Plan
from ..sparse.planning import plan_jacobian
from .bench_problems import Problem

DENSE_BYTES = 2**28
_ROUNDING = 1e-9
Run = Callable[[], Any]


@dataclass(frozen=True)
class Candidate:
    """One way: ``run`` evaluates again what took ``first`` seconds from the function on. Without
    ``run``, ``why`` says why not."""

    name: str
    run: Run | None = None
    first: float | None = None
    why: str = ""


def warm_up() -> None:
    """What is imported and compiled once in a process is not the first problem's."""
    ours(lambda x: (x[1:] - x[:-1]) ** 2, (torch.ones(3),))


def forward(func: Callable[..., Any], args: tuple[Any, ...]) -> Candidate:
    return Candidate("forward", lambda: func(*args))


def ours(
    func: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Plan, scipy.sparse.csr_array, list[Candidate]]:
    """The plain plan, its matrix, and the candidates of pullback."""
    plan, plain = _planned("plain", func, args, lift=False)
    matrix = jacobian(func, plan=plan, layout="scipy")(*args)
    chosen, lifted = _planned("lifted", func, args, lift="auto")
    if not chosen.lifted:
        lifted = Candidate("lifted", why='lift="auto" took the plain plan')
    return plan, matrix, [plain, checked(lifted, matrix), checked(_compiled(func, args), matrix)]


def _planned(
    name: str, func: Callable[..., Any], args: tuple[Any, ...], lift: bool | str
) -> tuple[Plan, Candidate]:
    start = time.perf_counter()
    plan = plan_jacobian(func, *args, lift=lift)
    jac = jacobian(func, plan=plan)
    jac(*args)
    return plan, Candidate(name, lambda: jac(*args), time.perf_counter() - start)


def _compiled(func: Callable[..., Any], args: tuple[Any, ...]) -> Candidate:
    start = time.perf_counter()
    try:
        jac = jacobian(func, plan=plan_jacobian(func, *args), compile=True)
        jac(*args)
    except Exception as error:  # what compiles may refuse in any way
        return Candidate("compiled", why=_checks.first_line(error).removeprefix("jacobian: "))
    if "compil" not in jac.engine:
        return Candidate("compiled", why=(jac.notes or (f"the engine is {jac.engine}",))[-1])
    return Candidate("compiled", lambda: jac(*args), time.perf_counter() - start)


def torch_func(
    func: Callable[..., Any], args: tuple[Any, ...], matrix: scipy.sparse.csr_array
) -> list[Candidate]:
    """``jacrev`` and ``jacfwd``, or why not: what they would hold."""
    size = matrix.shape[0] * matrix.shape[1] * args[0].element_size()
    if size > DENSE_BYTES:
        why = f"left out: a dense matrix of {size / 2**30:,.1f} GiB"
        return [Candidate("jacrev", why=why), Candidate("jacfwd", why=why)]
    jacrev, jacfwd = torch.func.jacrev(func), torch.func.jacfwd(func)
    runs = {"jacrev": lambda: jacrev(*args), "jacfwd": lambda: jacfwd(*args)}
    return [checked(started(name, run), matrix) for name, run in runs.items()]


def asdex(problem: Problem | None, matrix: scipy.sparse.csr_array) -> Candidate:
    """From the function to its values, compiled; only for what is written for JAX too."""
    missing = [name for name in ("jax", "asdex") if find_spec(name) is None]
    if missing:
        return Candidate("asdex", why=f"not installed here: {' and '.join(missing)}")
    if problem is None:
        return Candidate("asdex", why="only for the built-in problems, which JAX can run")
    return _asdex(problem, matrix)


def _asdex(problem: Problem, matrix: scipy.sparse.csr_array) -> Candidate:
    import asdex
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    func, x = problem.in_jax(jnp)
    start = time.perf_counter()
    coloring = asdex.jacobian_coloring(func, x)
    compressed = asdex.compressed_jacobian_from_coloring(func, coloring)
    values = jax.jit(lambda x: asdex.decompress_data(compressed(x), coloring))
    found = np.asarray(values(x))
    seconds = time.perf_counter() - start
    pattern = coloring.sparsity
    entries = (found, (np.asarray(pattern.rows), np.asarray(pattern.cols)))
    theirs = scipy.sparse.coo_array(entries, shape=matrix.shape).tocsr()
    if wrong := _difference(theirs, matrix):
        return Candidate("asdex", why=wrong)
    return Candidate("asdex", lambda: jax.block_until_ready(values(x)), seconds)


def started(name: str, run: Run) -> Candidate:
    start = time.perf_counter()
    try:
        run()
    except Exception as error:  # one mode may lack a formula that another has
        return Candidate(name, why=f"{type(error).__name__}: {_checks.first_line(error)}")
    return Candidate(name, run, time.perf_counter() - start)


def checked(candidate: Candidate, matrix: scipy.sparse.csr_array) -> Candidate:
    """Itself where its matrix is the one given, to rounding; else why it is not shown."""
    if candidate.run is None:
        return candidate
    wrong = _difference(_as_scipy(candidate.run(), matrix.shape), matrix)
    return Candidate(candidate.name, why=wrong) if wrong else candidate


def _as_scipy(found: Any, shape: tuple[int, int]) -> Any:
    """Our CSR tensor, or the dense leaves of ``torch.func``, whose rows follow each other."""
    if isinstance(found, Tensor) and found.layout is torch.sparse_csr:
        parts = (found.values(), found.col_indices(), found.crow_indices())
        return scipy.sparse.csr_array(tuple(p.detach().numpy() for p in parts), shape=found.shape)
    leaves = [leaf.detach().reshape(-1, shape[1]) for leaf in flatten(found)[0]]
    return scipy.sparse.csr_array(torch.cat(leaves).numpy())


def _difference(theirs: Any, matrix: scipy.sparse.csr_array) -> str:
    if theirs.shape != matrix.shape:
        return f"WRONG: its shape is {theirs.shape}, the plain plan's {matrix.shape}"
    apart = float(np.abs((theirs - matrix).data).max(initial=0.0))
    largest = float(np.abs(matrix.data).max(initial=0.0))
    rounding = max(_ROUNDING, 100 * float(np.finfo(matrix.dtype).eps))
    if apart <= rounding * max(1.0, largest):
        return ""
    return f"WRONG: an entry is {apart:.1e} from the plain plan's; the largest is {largest:.1e}"
