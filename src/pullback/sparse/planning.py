"""``plan_jacobian``: study a function, choose its products, write the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from .. import _checks, _torch
from .._engines import BYTES_AT_ONCE
from .._named import names_of, wrt_of
from .._trees import map_leaves
from .arguments import Arguments, arguments_for
from .backward_graph import content_digest
from .choice import Choice, choose, symmetric_choices
from .coloring.api import as_pattern
from .coloring.graph import is_symmetric
from .gradient import Gradient, kind_of
from .lifting import Lifting, fewest_products, lift_of, plain_cost
from .pattern import SparsityPattern
from .plan import Plan
from .state.facts import quoted
from .study import Study, study, tensor_named

# Bytes of a chunk of dense products.
_CACHED = 2**24
# So full a Jacobian with respect to shared tensors is taken for full.
_NEARLY = 0.9
# Entries that are solved for round more than those that are read: they must save as much.
_SOLVED = 1.5
# Two colors are the least of a star coloring that has anything off the diagonal to read.
_fewest_by_symmetry = 2
MODES = ("auto", "fwd", "rev", "mixed", "dense")


@_torch.runs_unwatched
def plan_jacobian(
    func: Callable[..., Any],
    *sample_args: Any,
    argnums: int | tuple[int, ...] = 0,
    mode: str = "auto",
    lift: bool | str = "auto",
    pattern: SparsityPattern | Any = None,
    has_aux: bool = False,
    freeze: Sequence[str] = (),
    wrt: Any = None,
) -> Plan:
    """Find out how the Jacobian of ``func`` can be computed with few products.

    The Jacobian is the (m, n) matrix of what the backward pass of ``func`` does: a row per output
    element and a column per element of the arguments that ``argnums`` selects, in pytree order,
    each in C order. A complex element takes two rows or columns, (re, im). The plan holds at every
    point of the same shapes and dtypes: of the sample, only these count, and integer or boolean
    tensors that place elements (indices, masks), whose content is checked again at every call.

    ``func`` runs a few times, and leaves no trace in parameters, buffers, ``.grad`` or generators.

    Args:
        func: called as ``func(*sample_args)``; returns a tensor or a pytree of tensors.
        sample_args: arguments of the shapes, dtypes and devices to plan for.
        argnums: the position of the argument to differentiate, or a tuple of positions.
        mode: "rev" takes VJPs alone, "fwd" JVPs alone, "mixed" both, "dense" one product per row
            or column; "auto" what is estimated to cost least.
        lift: whether to take fixed linear maps (index movement, sums, scaling by constants, fixed
            kernels and matrices) out of the differentiated part; "auto" takes what is estimated to
            cost less, and ``plan.reason`` says what; True takes the fewest products. Where there is
            nothing to take out then, or no captured graph, ``plan.notes`` says so.
        pattern: the structure, where it is known: a ``SparsityPattern``, a SciPy sparse matrix or
            a boolean array. It is taken as true; ``pb.verify`` checks it.
        has_aux: ``func`` returns ``(output, aux)``, of which only the output is differentiated.
        freeze: names of tensors that ``func`` closes over whose zeros may be read as zeros of the
            matrix. Their content is then checked at every call.
        wrt: for a module, whose tensors the columns are: "parameters" for all that require grad, a
            name such as "layer.weight" (of a frozen parameter or a buffer, too), a pattern such as
            "layers.*.weight" for the parameters that match, or a list of these. None and "inputs"
            mean the arguments that ``argnums`` selects.

    Raises:
        ArgumentError: ``argnums``, ``mode``, ``freeze`` or ``wrt`` names nothing; a selected
            argument is no floating point tensor; ``pattern`` has another shape.
        UnsupportedError: the backward is not linear in its cotangent; ``mode`` needs products J t
            and there are none.

    >>> import torch, pullback as pb
    >>> plan = pb.plan_jacobian(lambda x: (x[1:] - x[:-1]) ** 2, torch.rand(50))
    >>> plan.pattern.shape, plan.pattern.nnz, plan.num_products
    ((49, 50), 98, 1)

    Method: the pattern by propagation of dependence sets through the traced backward (A. Griewank
    and A. Walther, *Evaluating Derivatives*, 2nd ed., section 7.1), the products by coloring (A.
    Gebremedhin, F. Manne and A. Pothen, "What color is your Jacobian?", SIAM Review 47, 2005).
    """
    _checks.one_of("plan_jacobian", "mode", mode, MODES)
    named = wrt_of("plan_jacobian", func, wrt, argnums)
    if named is not None:
        func, sample_args = named.called, named.arguments(sample_args)
    return planned(
        "plan_jacobian", func, sample_args, argnums, mode, lift, pattern, has_aux, freeze
    )


def planned(
    caller: str,
    func: Callable[..., Any],
    sample_args: Sequence[Any],
    argnums: int | tuple[int, ...],
    mode: str,
    lift: bool | str,
    pattern: SparsityPattern | Any,
    has_aux: bool,
    freeze: Sequence[str],
) -> Plan:
    """The plan of ``func`` at ``sample_args``, whoever asks for it."""
    _checks.lift_option(caller, lift)
    with torch.inference_mode(False):
        plain = map_leaves(_torch.plain_copy, tuple(sample_args))
    arguments = arguments_for(caller, plain, argnums, func)
    given = None if pattern is None else as_pattern(caller, pattern)
    sample = arguments.sample
    with torch.inference_mode(False), _torch.outside_transforms():
        found = study(caller, func, sample, has_aux=has_aux, frozen=freeze, detecting=given is None)
        return plan_of(caller, found, sample, mode, given, lift)


def plan_of(
    caller: str,
    found: Study,
    arguments: Arguments,
    mode: str = "auto",
    given: SparsityPattern | None = None,
    lift: bool | str = "auto",
) -> Plan:
    """The plan that a study supports."""
    shape = (sum(o.numel for o in found.outputs), sum(i.numel for i in found.inputs))
    if given is not None:
        _checks.pattern_shape(caller, given.shape, shape)
    plan = Plan(
        pattern=given if given is not None else found.pattern,
        colored=None,
        mode="rev",
        reason="",
        notes=tuple(found.notes),
        inputs=found.inputs,
        outputs=found.outputs,
        argnums=arguments.places,
        chunk_size=1,
        bytes_per_product=found.bytes_per_product,
        key=found.key if given is None else "",
        facts=found.facts if given is None else {},
        user_pattern=given is not None,
        of_one_point=found.captured is None,
        kind=kind_of(found.func),
        wrt=names_of(found.func, [i.name for i in found.inputs]),
    )
    try:
        if given is None and mode == lift == "auto" and _is_nearly_full(plan):
            return _filled(plan)
        if lift is False:
            return _colored(caller, plan, found, mode)
        return _lifted_or_not(caller, plan, found, arguments, mode, certain=lift is True)
    finally:
        if found.captured is not None:
            found.captured.graph.moves.clear()


def _is_nearly_full(plan: Plan) -> bool:
    """Whether samples share so many columns that the few zeros are not worth their places."""
    m, n = plan.pattern.shape
    shared = plan.wrt != () and plan.kind == "jacobian" and 0 < m <= n
    return shared and plan.pattern.nnz >= _NEARLY * m * n


def _filled(plan: Plan) -> Plan:
    """The plan of the whole matrix: its values lie in order, and need no places."""
    m, n = plan.pattern.shape
    full = SparsityPattern.full((m, n))
    full._story = plan.pattern._story
    choice = choose(full, "dense", forward=plan.no_forward)
    rest = m * n - plan.pattern.nnz
    zeros = f", and the other {rest:,} are stored as zeros" * (rest > 0)
    return replace(
        plan,
        pattern=full,
        colored=choice.coloring,
        mode="dense",
        reason=f"{plan.pattern.nnz / (m * n):.0%} of the {m} × {n} entries may be nonzero{zeros}: "
        f"{m} VJPs, one per row, or one for each output of a sample where samples are apart",
        chunk_size=max(1, _CACHED // plan.bytes_per_product),
        facts={},
    )


def dense_plan(caller: str, found: Study, arguments: Arguments) -> Plan:
    """One product for every row or column, whatever the pattern, in chunks that stay in caches."""
    shape = (sum(o.numel for o in found.outputs), sum(i.numel for i in found.inputs))
    plan = plan_of(caller, found, arguments, "dense", SparsityPattern.full(shape), lift=False)
    return replace(plan, chunk_size=max(1, _CACHED // plan.bytes_per_product))


def fitting(caller: str, plan: Plan, found: Study, arguments: Arguments) -> Plan:
    """``plan``, if it fits what was found, or another one where it was made for a single point.

    Raises ArgumentError where it does not fit.
    """
    _checks.plan_leaves(caller, "output", plan.outputs, found.outputs)
    for name, digest in plan.facts.items():
        known = {*arguments.other_names, *found.reading.tensors}
        if name not in known:
            raise _checks.fact_is_gone(caller, name)
        tensor = tensor_named(name, arguments, found.reading)
        if content_digest(tensor) != digest:
            raise _checks.fact_changed(caller, f"{quoted(name)} has another content")
    if plan.key and plan.key == found.key and not plan.user_pattern:
        return plan
    mirrors = plan.colored is not None and plan.colored.is_symmetric
    if mirrors and found.captured is not None and found.asymmetry:
        raise _checks.plan_needs_symmetry(caller, found.asymmetry)
    if not plan.user_pattern and found.detection is not None and found.captured is not None:
        missing = plan.pattern.missing(found.pattern)
        if missing is not None and plan.of_one_point:
            return plan_of(caller, found, arguments)
        if missing is not None:
            raise _checks.plan_misses(caller, missing)
    return plan


def _lifted_or_not(
    caller: str, plan: Plan, found: Study, arguments: Arguments, mode: str, *, certain: bool
) -> Plan:
    """The plan along a lift, unless coloring the whole Jacobian is estimated to cost less."""
    pattern = plan.pattern
    lifting: Lifting | str = "the pattern was given"
    if not plan.user_pattern:
        lifting = lift_of(found, arguments, pattern, mode, fewest=certain)
    if isinstance(lifting, str):
        plain = _colored(caller, plan, found, mode)
        plain.notes += (f"lift=True was asked for, and nothing is lifted: {lifting}",) * certain
        return plain
    fewest = _fewest_by_symmetry if isinstance(found.func, Gradient) else fewest_products(pattern)
    others = f"at least {fewest} product{'s' * (fewest != 1)}"
    plain = plan
    if not certain and lifting.cost > plain_cost(found, pattern, fewest):
        plain = _colored(caller, plan, found, mode)
        more = lifting.cost / plain_cost(found, pattern, plain.coloring)
        if more > 1:
            less = f"lifting it ({lifting.products}) is estimated to take {more:.2g} times as long"
            return replace(plain, reason=f"{plain.reason}; {less}")
        others = f"{plain.num_products} product{'s' * (plain.num_products != 1)}"
    lift = lifting.spec()
    if isinstance(lift, str):
        plain = plain if plain is not plan else _colored(caller, plan, found, mode)
        plain.notes += (f"nothing is lifted: {lift}",)
        return plain
    return replace(
        plan,
        mode=lift.mode,
        reason=f"{lifting.products}; {others} without lifting; {lift.assembly}",
        chunk_size=max(1, BYTES_AT_ONCE // plan.bytes_per_product),
        lifted_products=lift.num_products,
        lift=lift,
    )


def _by_symmetry(caller: str, plan: Plan, found: Study, mode: str) -> Choice | None:
    """The cheapest way that reads entries from their mirrors, or that of ``mode``; None where there
    is to be none."""
    wanted = mode in ("star", "acyclic")
    if not wanted and (mode != "auto" or not isinstance(found.func, Gradient)):
        return None
    if reason := found.asymmetry:
        if wanted:
            raise _checks.not_symmetric(caller, mode, reason)
        plan.notes += (f"no entry is read from its mirror, for H may not be symmetric: {reason}",)
        return None
    if not wanted and not is_symmetric(plan.pattern):
        return None

    def price(choice: Choice) -> float:
        coloring = choice.coloring
        solved = _SOLVED if coloring.kind == "acyclic" else 1.0
        return solved * plain_cost(found, plan.pattern, coloring)

    return min(symmetric_choices(plan.pattern, mode), key=price)


def _colored(caller: str, plan: Plan, found: Study, mode: str) -> Plan:
    """The plan with products of the whole Jacobian."""
    refusal = ""
    choice = _by_symmetry(caller, plan, found, mode) or choose(plan.pattern, mode)
    if choice.coloring.split.columns and (refusal := found.forward_refusal):
        if mode in ("fwd", "mixed"):
            raise _checks.no_forward_products(caller, mode, refusal)
        choice = choose(plan.pattern, mode, forward=refusal)
    each = plan.bytes_per_product
    if choice.coloring.split.columns:
        each += each // 2  # the transposed graph keeps more of what it meets
    return replace(
        plan,
        colored=choice.coloring,
        mode=choice.mode,
        reason=choice.reason,
        chunk_size=max(1, BYTES_AT_ONCE // each),
        bytes_per_product=each,
        no_forward=refusal,
    )
