"""pullback's candidates: the plan that colors the matrix, the one that may lift, and compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import pullback as pb

from ..peers.turns import Timed, reason, single, timed
from ..problems.catalogue import Problem
from ..problems.in_torch import Func, build
from ..timing import Cell
from .derivative import DERIVATIVES, Derivative

PLAIN, LIFTED, COMPILED = "plain", "lifted", "compiled"
NAMES = (PLAIN, LIFTED, COMPILED)
# Into the memory of an earlier matrix, by the last way above that there is; and dense, as
# torch.func's, up to so many entries.
IN_PLACE, NO_PLAN = "out=", "no plan"
NO_PLAN_ENTRIES = 2**22
# Calls after which products are replayed as they stay to be, without a plan as well.
SETTLED = 6
Matrix = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ours:
    """The two plans, and for each name an evaluation or why there is none.

    ``first_compiled`` is the time from the function to a first compiled matrix: the caches are
    full afterwards, so it cannot be had again.
    """

    derivative: Derivative
    func: Func
    x: Tensor
    plain: pb.Plan
    chosen: pb.Plan
    evaluations: dict[str, Matrix | str]
    first_compiled: Cell

    def planning(self, lift: bool | str) -> Timed:
        return timed(partial(self.derivative.plan, self.func, self.x, lift=lift))

    def first(self) -> Timed:
        """From the function to its first matrix, without a compiler."""
        return timed(partial(first, self.derivative, self.func, self.x))

    def warm(self, name: str) -> Timed | str:
        run = self.evaluations[name]
        return run if isinstance(run, str) else timed(partial(without_graph, run, self.x))


def prepare(problem: Problem) -> Ours:
    func, x = build(problem)
    derivative = DERIVATIVES[problem.matrix]
    plain = derivative.plan(func, x, lift=False)
    chosen = derivative.plan(func, x)
    lifted: Matrix | str = "the plan is plain"
    if chosen.lifted:
        lifted = derivative.matrix(func, plan=chosen)
    first_compiled, compiled = _compile(derivative, func, x)
    evaluations = {
        PLAIN: derivative.matrix(func, plan=plain),
        LIFTED: lifted,
        COMPILED: compiled,
    }
    fastest = next(e for e in reversed(evaluations.values()) if not isinstance(e, str))
    evaluations[IN_PLACE] = partial(fastest, out=without_graph(fastest, x))
    rows, columns = plain.pattern.shape
    small = rows * columns <= NO_PLAN_ENTRIES
    evaluations[NO_PLAN] = _dense(derivative, func, (rows, columns)) if small else "large"
    for run in evaluations.values():
        for _ in range(SETTLED if callable(run) else 0):
            without_graph(run, x)
    return Ours(derivative, func, x, plain, chosen, evaluations, first_compiled)


def _dense(derivative: Derivative, func: Func, shape: tuple[int, int]) -> Matrix:
    matrix = derivative.matrix(func)
    return lambda x: matrix(x).reshape(shape)


def _compile(derivative: Derivative, func: Func, x: Tensor) -> tuple[Cell, Matrix | str]:
    start = time.perf_counter()
    try:
        matrix = derivative.matrix(func, plan=derivative.plan(func, x), compile=True)
        without_graph(matrix, x)
    except Exception as error:  # a compiler may refuse a problem in any way
        return reason(error), reason(error)
    seconds = time.perf_counter() - start
    if "compil" not in matrix.engine:
        why = f"not compiled: {matrix.notes[-1] if matrix.notes else matrix.engine}"
        return why, why
    return single(COMPILED, seconds), matrix


def first(derivative: Derivative, func: Func, x: Tensor) -> Tensor:
    return without_graph(derivative.matrix(func, plan=derivative.plan(func, x)), x)


def without_graph(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return run(x)
