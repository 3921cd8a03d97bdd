"""Solvers of SciPy with planned Jacobians, beside finite differences: time to a solution."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, newton_krylov
from scipy.optimize._numdiff import approx_derivative, group_columns
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import pad

from pullback.interop.scipy import ode, residual

from .options import Options
from .problems import in_torch
from .problems.catalogue import FULL, QUICK, chosen, with_files
from .timing import Cell, Ratio, Row, Table, compare, timing_of

Array = NDArray[np.float64]
OURS, PLANNED = "pullback", "planned before"
GIVEN, PLAIN, KRYLOV = "differences, pattern given", "differences", "newton_krylov"
COLUMNS = (OURS, PLANNED, GIVEN, PLAIN, KRYLOV)
RATIOS = (
    Ratio("pattern given / pullback", (GIVEN,), (OURS,)),
    Ratio("pattern given / planned", (GIVEN,), (PLANNED,)),
    Ratio("differences / pullback", (PLAIN,), (OURS,)),
    Ratio("newton_krylov / pullback", (KRYLOV,), (OURS,)),
)
JACOBIANS = ("pullback", GIVEN, PLAIN)
# Seconds after which a solver is stopped, and unknowns up to which differences are not told.
_PATIENCE = 60.0
_UNTOLD = 3_000


@dataclass
class Solved:
    """A solution, how often the function ran for it, and how many Jacobians it took."""

    x: Array
    evaluations: int
    jacobians: int


@dataclass(frozen=True)
class Problem:
    """``candidates`` solve it to the same tolerance; ``left`` says why others do not.

    ``fun`` and ``jac`` at ``start`` are what all of them take.
    """

    name: str
    start: Array
    fun: Callable[[Array], Array]
    jac: Callable[[Array], Any]
    pattern: Any
    candidates: Mapping[str, Callable[[], Solved]]
    left: Mapping[str, str] = field(default_factory=dict)


class Counted:
    def __init__(self, fun: Callable[..., Array]) -> None:
        self._fun, self.calls = fun, 0
        self._until = time.perf_counter() + _PATIENCE

    def __call__(self, *args: Any) -> Array:
        self.calls += 1
        if time.perf_counter() > self._until:
            raise TimeoutError
        return self._fun(*args)


def brusselator(n: int) -> Problem:
    """The stiff test problem in two dimensions, on the unit torus, heated from 1.1 on."""
    at = torch.arange(n, dtype=torch.float64) / n
    x, y = at[:, None].expand(n, n), at[None, :].expand(n, n)
    hot = 5.0 * ((x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.01)
    start = torch.stack([22 * (y * (1 - y)) ** 1.5, 27 * (x * (1 - x)) ** 1.5])

    def rate(t: Tensor, state: Tensor) -> Tensor:
        u, v = state
        beside = state.roll(1, 1) + state.roll(-1, 1) + state.roll(1, 2) + state.roll(-1, 2)
        reaction = torch.stack([1 + u**2 * v - 4.4 * u + hot * (t >= 1.1), 3.4 * u - u**2 * v])
        return reaction + 10 * n**2 * (beside - 4 * state)

    known = ode(rate, start)

    def solved(system: Any, **how: Any) -> Solved:
        fun = Counted(system.fun)
        found = solve_ivp(
            fun, (0.0, 11.5), start.reshape(-1).numpy(), method="BDF", rtol=1e-5, atol=1e-8, **how
        )
        return Solved(found.y[:, -1], fun.calls, found.njev)

    def planning() -> Solved:
        system = ode(rate, start)
        return solved(system, jac=system.jac)

    return Problem(
        f"Brusselator {n}×{n}, BDF",
        start.reshape(-1).numpy(),
        lambda y: known.fun(0.0, y),
        lambda y: known.jac(0.0, y),
        known.jac_sparsity,
        {
            OURS: planning,
            PLANNED: lambda: solved(known, jac=known.jac),
            GIVEN: lambda: solved(known, jac_sparsity=known.jac_sparsity),
            PLAIN: lambda: solved(known),
        },
        {KRYLOV: "steps in time"},
    )


def bundle(options: Options) -> Problem:
    small = chosen(QUICK if options.quick else FULL, ["bundle small", "bundle ba1"])
    problem = (with_files(small, options.bundle) if options.bundle else small)[0]
    func, start = in_torch.build(problem)
    known, x0 = residual(func, start), start.numpy()

    def solved(system: Any, **how: Any) -> Solved:
        fun = Counted(system.fun)
        found = least_squares(
            fun, x0, method="trf", tr_solver="lsmr", x_scale="jac", max_nfev=8, **how
        )
        return Solved(fun(found.x), fun.calls, found.njev)

    def planning() -> Solved:
        system = residual(func, start)
        return solved(system, jac=system.jac)

    return Problem(
        f"{problem.name}, least_squares, 8 steps",
        x0,
        known.fun,
        known.jac,
        known.jac_sparsity,
        {
            OURS: planning,
            PLANNED: lambda: solved(known, jac=known.jac),
            GIVEN: lambda: solved(known, jac_sparsity=known.jac_sparsity),
        },
        {PLAIN: f"{start.numel():,} calls each", KRYLOV: "no root"},
    )


def bratu(n: int) -> Problem:
    """Newton's method for a heated plate with a factorization of J; newton_krylov without J."""
    start = torch.zeros(n, n, dtype=torch.float64)
    heat = 6.0 / (n + 1) ** 2

    def balance(u: Tensor) -> Tensor:
        around = pad(u, (1, 1, 1, 1))
        beside = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
        return (beside - 4 * u + heat * u.exp()) * (n + 1) ** 2

    known, x0 = residual(balance, start), start.reshape(-1).numpy()

    def newton(fun: Counted, jac: Callable[[Array, Array], Any]) -> Solved:
        x, steps = x0.copy(), 0
        while np.abs(f := fun(x)).max() > 1e-6:
            x = x - splu(jac(x, f).tocsc(), permc_spec="MMD_AT_PLUS_A").solve(f)
            steps += 1
        return Solved(x, fun.calls, steps)

    def planning() -> Solved:
        system = residual(balance, start)
        return newton(Counted(system.fun), lambda x, _: system.jac(x))

    def differences() -> Solved:
        fun, groups = Counted(known.fun), group_columns(known.jac_sparsity)
        structure = known.jac_sparsity, groups
        return newton(
            fun, lambda x, f: approx_derivative(fun, x, "2-point", f0=f, sparsity=structure)
        )

    def krylov() -> Solved:
        fun = Counted(known.fun)
        return Solved(newton_krylov(fun, x0, f_tol=1e-6, inner_maxiter=100), fun.calls, 0)

    return Problem(
        f"Bratu {n}×{n}, Newton",
        x0,
        known.fun,
        known.jac,
        known.jac_sparsity,
        {
            OURS: planning,
            PLANNED: lambda: newton(Counted(known.fun), lambda x, _: known.jac(x)),
            GIVEN: differences,
            KRYLOV: krylov,
        },
        {PLAIN: f"{start.numel():,} calls each"},
    )


def _measured(problem: Problem, rounds: int) -> tuple[Row, Row]:
    """The times, taken in turns, and what was solved; a wrong answer stands in place of a time."""
    found: dict[str, Solved] = {}
    samples: dict[str, list[float]] = {name: [] for name in problem.candidates}
    left = dict(problem.left)
    for _ in range(rounds):
        for name, solve in problem.candidates.items():
            if name in left:
                continue
            start = time.perf_counter()
            try:
                found[name] = solve()
            except TimeoutError:
                left[name] = f"none in {_PATIENCE:.0f} s"
            samples[name].append(time.perf_counter() - start)
    truth = found[OURS].x
    times: list[Cell] = []
    counts: list[Cell] = [f"{problem.start.size:,}", f"{found[OURS].jacobians}"]
    apart = 0.0
    for name in COLUMNS:
        if name not in found:
            times.append(left[name])
            counts.append("–")
            continue
        off = float(np.abs(found[name].x - truth).max() / max(1.0, np.abs(truth).max()))
        apart = max(apart, off)
        right = off < 1e-3
        times.append(timing_of(name, samples[name], 1) if right else f"off by {off:.1g}")
        counts.append(f"{found[name].evaluations:,}")
    counts.append(f"{apart:.1g}")
    return Row(problem.name, tuple(times)), Row(problem.name, tuple(counts))


def _one_jacobian(problem: Problem, quick: bool) -> Row:
    x, fun = problem.start, problem.fun
    groups = group_columns(problem.pattern)
    candidates: dict[str, Callable[[], object]] = {
        "pullback": lambda: problem.jac(x),
        GIVEN: lambda: approx_derivative(fun, x, "2-point", sparsity=(problem.pattern, groups)),
        PLAIN: lambda: approx_derivative(fun, x, "2-point"),
    }
    if x.size > _UNTOLD:
        del candidates[PLAIN]
    row = compare(problem.name.partition(",")[0], candidates, quick=quick)
    left = (f"{x.size:,} calls",) * (len(JACOBIANS) - len(candidates))
    return Row(row.problem, row.timings + left)


def run(options: Options) -> list[Table]:
    quick = options.quick
    problems = [brusselator(8 if quick else 32), bundle(options), bratu(24 if quick else 316)]
    measured = [_measured(problem, 2 if quick else 3) for problem in problems]
    times, counts = zip(*measured, strict=True)
    return [
        Table(
            "Time to a solution",
            COLUMNS,
            tuple(times),
            "One function for all candidates. `pullback` plans anew at every run, in a process "
            "that has planned before; `planned before` does not count it. The pattern that finite "
            "differences are given is that of the plan, and finding it is not counted.",
            RATIOS,
        ),
        Table(
            "One Jacobian",
            JACOBIANS,
            tuple(_one_jacobian(problem, quick) for problem in problems),
            "At the start, on arrays: SciPy's sparse matrix, dense where differences are not told.",
        ),
        Table(
            "Evaluations of the function",
            ("unknowns", "Jacobians", *COLUMNS, "largest difference"),
            tuple(counts),
            "Jacobians are those of pullback, beside the evaluations. The difference is that of "
            "the solutions (of the residuals for least squares), relative to the largest element.",
            compare=False,
        ),
    ]
