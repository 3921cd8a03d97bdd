"""``verify``: a plan against autograd itself, by random products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import _checks, _torch
from .._named import wrt_of
from .arguments import Arguments, arguments_for
from .plan import Plan
from .products import Function
from .session import Session
from .trial import perturbed, weights

PRODUCTS = 4
POINTS = 2


@_torch.runs_unwatched
def verify(func: Callable[..., Any], *args: Any, plan: Plan, has_aux: bool = False) -> None:
    """Check that the Jacobian along ``plan`` is that of ``func``, at ``args`` and near by.

    At each of two points, the matrix that the plan gives is multiplied by random vectors, and so
    is the Jacobian, by plain autograd: one VJP of ``func`` itself per vector, without tracing,
    coloring or batching. An entry that the pattern lacks shows up in almost every such product;
    one that is zero at both points does not.

    Raises:
        ArgumentError: the products differ. The message names an entry that the pattern lacks, or
            that the values have wrong, with both values.

    >>> import torch, pullback as pb
    >>> f = lambda x: x * x.roll(1)
    >>> plan = pb.plan_jacobian(f, torch.rand(4))
    >>> pb.verify(f, torch.rand(4), plan=plan)
    >>> short = pb.plan_jacobian(f, torch.rand(4), pattern=torch.eye(4, dtype=torch.bool))
    >>> pb.verify(f, torch.rand(4), plan=short)
    Traceback (most recent call last):
        ...
    pullback._errors.ArgumentError: verify: ...

    Method: comparison on random vectors (R. Freivalds, "Probabilistic machines can use less
    running time", 1977).
    """
    caller = "verify"
    if not isinstance(plan, Plan):
        raise _checks.not_a_plan(caller, plan)
    named = wrt_of(caller, func, list(plan.wrt) or None, 0)
    if named is not None:
        func, args = named.called, named.arguments(args)
    arguments = arguments_for(caller, args, plan.argnums, func)
    _checks.plan_leaves(caller, "input", plan.inputs, arguments.inputs)
    generator = torch.Generator().manual_seed(0)
    for k in range(POINTS):
        here = arguments if k == 0 else arguments.with_primals(
            [perturbed(t) for t in arguments.primals]
        )  # fmt: skip
        _verify_at(caller, func, here, plan, has_aux, generator)


def _verify_at(
    caller: str,
    func: Callable[..., Any],
    arguments: Arguments,
    plan: Plan,
    has_aux: bool,
    generator: torch.Generator,
) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        session = Session(caller, func, arguments, has_aux, _trusted(plan), trust_indices=False)
        outcome = session.evaluate(arguments, None)
        torch.set_rng_state(state)
        source = Function(caller, func, arguments, has_aux)
        values = outcome.values
        m = plan.pattern.shape[0]
        for _ in range(PRODUCTS):
            v = torch.randn(m, generator=generator, dtype=torch.float64).to(values)
            truth = source.rev(v[None])[0].to(values.dtype)
            found = _weighted(outcome.plan, values, v)
            wrong = _differs(found, truth, values, v, outcome.plan)
            if wrong is not None:
                _blame(caller, source, outcome.plan, values, wrong)


def _trusted(plan: Plan) -> Plan:
    """The plan as if its pattern were the caller's word: it is verified here, not at the door."""
    return replace(plan, user_pattern=True)


def _weighted(plan: Plan, values: Tensor, v: Tensor) -> Tensor:
    """v J for the matrix of these values."""
    pattern = plan.pattern
    if pattern.is_full:
        return v @ values.reshape(pattern.shape)
    out = values.new_zeros(pattern.shape[1])
    return out.index_add_(
        0, pattern.cols.to(values.device), values * v[pattern.rows.to(values.device)]
    )


def _differs(found: Tensor, truth: Tensor, values: Tensor, v: Tensor, plan: Plan) -> int | None:
    """A column in which the two products differ by more than rounding, or None."""
    size = _weighted(plan, values.abs(), v.abs()) + truth.abs()
    loose = 1e-7 if values.dtype == torch.float64 else 1e-3
    finite = size[size.isfinite()]
    floor = 1e-12 * finite.max() if finite.numel() else 0.0
    apart = ~((found - truth).abs() <= loose * size + floor)
    apart &= ~(found.isnan() & truth.isnan()) & (found != truth)
    places = apart.nonzero()
    return int(places[0]) if len(places) else None


def _blame(caller: str, source: Function, plan: Plan, values: Tensor, column: int) -> None:
    """Find the entry of ``column`` that is wrong, by bisection over the rows, and refuse."""
    m, _ = plan.pattern.shape
    row_of, col_of = plan.pattern.rows, plan.pattern.cols
    mine = values.new_zeros(m)
    here = (col_of == column).nonzero().squeeze(1)
    mine[row_of[here].to(values.device)] = values[here.to(values.device)]
    low, high = 0, m
    while high - low > 1:
        middle = (low + high) // 2
        v = torch.zeros_like(mine)
        v[low:middle] = weights([v[low:middle]])[0]
        truth = source.rev(v[None])[0].to(v.dtype)[column]
        if _apart(float(truth), float(v @ mine), float(v.abs() @ mine.abs())):
            high = middle
        else:
            low = middle
    v = torch.zeros_like(mine)
    v[low] = 1
    here_truth = float(source.rev(v[None])[0][column])
    if not _apart(here_truth, float(mine[low]), 0.0):
        raise _checks.plan_is_wrong_in_column(caller, column)
    there = bool((row_of[here] == low).any())
    raise _checks.plan_is_wrong(caller, (low, column), here_truth, float(mine[low]), there)


def _apart(truth: float, found: float, size: float) -> bool:
    if math.isnan(truth) or math.isnan(found):
        return math.isnan(truth) != math.isnan(found)
    return truth != found and not abs(truth - found) <= 1e-6 * (abs(truth) + abs(found) + size)
