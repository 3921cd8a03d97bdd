"""``verify``: a plan against autograd itself, and autograd against other ways, by products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import _checks, _torch
from .._differences import bound_text
from .._named import wrt_of
from .arguments import Arguments, arguments_for
from .blame import Findings
from .crosscheck import cross_check
from .given import check_matrix
from .gradient import Gradient, written
from .plan import Plan
from .products import Function
from .session import Session
from .state import State
from .study import no_trace
from .trial import perturbed, weights
from .witnesses import DIFFERENCES, Problem

PRODUCTS = 4
POINTS = 2


@dataclass(frozen=True)
class Verified:
    """What ``pb.verify`` has compared, and found to agree.

    - ``compared``: the ways to the derivative: "the plan", "the matrix", "reverse mode", "forward
      mode", "reverse over reverse", "forward over reverse", "reverse over forward", "finite
      differences";
    - ``notes``: what could not be compared, and why;
    - ``resolution``: how finely finite differences tell, relative to the largest entry of a
      product; nan where they were not asked.
    """

    compared: tuple[str, ...]
    notes: tuple[str, ...] = ()
    resolution: float = math.nan

    def __repr__(self) -> str:
        ways = self.compared
        both = f"{', '.join(ways[:-1])} and {ways[-1]}" if len(ways) > 1 else ways[0]
        fine = "" if math.isnan(self.resolution) else f" (these to {bound_text(self.resolution)})"
        return "\n".join([f"verified: {both} agree{fine}", *(f"  note: {n}" for n in self.notes)])


@_torch.runs_unwatched
def verify(
    func: Callable[..., Any],
    *args: Any,
    plan: Plan | None = None,
    has_aux: bool = False,
    order: int | None = None,
    argnums: int | tuple[int, ...] | None = None,
    cotangents: Any = None,
    matrix: Any = None,
    wrt: Any = None,
) -> Verified:
    """Check a derivative of ``func``, at ``args`` and near by: that along a plan, or torch's own.

    With a plan of a Jacobian, the matrix that it gives is multiplied by random vectors, and so is
    the Jacobian, by plain autograd: one VJP of ``func`` itself per vector, without tracing,
    coloring or batching. An entry that the pattern lacks shows up in almost every such product;
    one that is zero at both points that are tried does not.

    With a plan of a Hessian, or without a plan, the ways to the derivative are compared with each
    other, too. For a first derivative these are VJPs, forward mode and finite differences of
    ``func``; for a second one reverse over reverse, forward over reverse, reverse over forward and
    finite differences of the gradient. They share no code, so that a wrong formula in torch, or in
    a custom Function, shows in one of them. What torch refuses is left out, and noted.

    Finite differences come with a bound of their error, in double precision where ``func`` takes
    it. Where ``func`` has a kink, or detaches a tensor on purpose, they prove nothing, and that is
    noted.

    Args:
        func: as for ``pb.plan_jacobian`` or ``pb.plan_hessian``.
        args: where to look. Points at which entries vanish show little.
        plan: of ``func``. None checks the derivative itself.
        has_aux: ``func`` returns ``(output, aux)``.
        order: 1 or 2: which derivative, where no plan says it. None is 1.
        argnums: as for ``pb.jacobian``; None is 0, or what the plan was made with.
        cotangents: as for ``pb.plan_hessian``: for the Hessian of v · func.
        matrix: the derivative at ``args`` as some other program has it: dense or sparse, of shape
            (m, n) or of jacrev's shape. It is compared with autograd.
        wrt: for a module, whose tensors to differentiate with respect to, as for ``pb.jacobian``;
            a plan knows its own.

    Returns:
        A `Verified`: what was compared, how finely, and what was not.

    Raises:
        ArgumentError: the plan, or the matrix, is wrong. The message names an entry that the
            pattern lacks, or that the values have wrong, with both values.
        GradientAssertionError: two ways to the derivative differ. The message names an entry, what
            each way says of it, and which of them finite differences support.
        UnsupportedError: torch cannot differentiate the function so often, or nothing could be
            compared.

    >>> import torch, pullback as pb
    >>> f = lambda x: x * x.roll(1)
    >>> plan = pb.plan_jacobian(f, torch.rand(4))
    >>> pb.verify(f, torch.rand(4), plan=plan)
    verified: the plan and reverse mode agree
    >>> short = pb.plan_jacobian(f, torch.rand(4), pattern=torch.eye(4, dtype=torch.bool))
    >>> pb.verify(f, torch.rand(4), plan=short)
    Traceback (most recent call last):
        ...
    pullback._errors.ArgumentError: verify: ...
    >>> pb.verify(lambda x: x.prod(), torch.rand(4) + 1, order=2)
    verified: reverse over reverse, forward over reverse, reverse over forward and finite...

    Method: comparison on random vectors (R. Freivalds, "Probabilistic machines can use less
    running time", 1977); differences extrapolated to step 0 (L. F. Richardson, "The deferred
    approach to the limit", 1927).
    """
    caller = "verify"
    if plan is not None and not isinstance(plan, Plan):
        raise _checks.not_a_plan(caller, plan)
    if order is not None:
        _checks.verify_order(caller, order, plan.kind if plan is not None else None)
    names = wrt if plan is None else list(plan.wrt) or None
    named = wrt_of(caller, func, names, 0 if argnums is None else argnums)
    if named is not None:
        func, args, argnums = named.called, named.arguments(args), None
    second = (plan is not None and plan.kind == "hessian") or (plan is None and order == 2)
    if plan is not None:
        if argnums is not None:
            places = _checks.argnums_for(caller, argnums, len(args))
            _checks.plan_argnums(caller, plan.argnums, places)
        argnums = plan.argnums
    weighed = cotangents is not None
    if weighed and not second:
        raise _checks.cotangents_without_hessian(caller)
    chosen = 0 if argnums is None else argnums
    if second:
        func = Gradient(caller, func, chosen, has_aux=has_aux, weighed=weighed)
        chosen = func.argnums
    arguments = arguments_for(caller, (*args, cotangents) if weighed else args, chosen, func)
    try:
        return _verified(caller, func, arguments, has_aux, plan, matrix)
    except RuntimeError as error:
        if refusal := _checks.no_second_derivative(caller, error):
            raise refusal from error
        raise


def _verified(
    caller: str,
    func: Callable[..., Any],
    arguments: Arguments,
    has_aux: bool,
    plan: Plan | None,
    matrix: Any,
) -> Verified:
    compared = []
    if plan is not None:
        compared.append("the plan")
        _checks.plan_leaves(caller, "input", plan.inputs, arguments.inputs)
        generator = torch.Generator().manual_seed(0)
        for k in range(POINTS):
            here = arguments if k == 0 else arguments.with_primals(
                [perturbed(t) for t in arguments.primals]
            )  # fmt: skip
            _verify_at(caller, func, here, plan, has_aux, generator)
    problem = Problem(caller, func, arguments, has_aux)
    if matrix is not None:
        compared.append("the matrix")
        check_matrix(problem, matrix)
    if plan is not None and plan.kind == "jacobian":
        return Verified((*compared, "reverse mode"))
    findings = Findings()
    with no_trace(State.of(written(func), extra=arguments.objects), func):
        cross_check(problem, findings)
    compared += findings.compared
    if len(compared) < 2:
        raise _checks.nothing_to_compare(caller, findings.notes)
    fine = findings.resolved if DIFFERENCES in compared else math.nan
    return Verified(tuple(compared), tuple(findings.notes), fine)


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
        raise _checks.plan_is_wrong_in_column(caller, column, plan.kind)
    there = bool((row_of[here] == low).any())
    raise _checks.plan_is_wrong(
        caller, (low, column), here_truth, float(mine[low]), there, plan.kind
    )


def _apart(truth: float, found: float, size: float) -> bool:
    if math.isnan(truth) or math.isnan(found):
        return math.isnan(truth) != math.isnan(found)
    return truth != found and not abs(truth - found) <= 1e-6 * (abs(truth) + abs(found) + size)
