"""The pattern of a pullback graph: what each gradient element may depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from .. import _checks
from .._errors import PullbackError
from .dependence import Dependence, common_table, everything, grouped, identity, nothing
from .graph import Meta, PullbackGraph, packet_name
from .pattern import SparsityPattern
from .rules import RULES, Step
from .rules.base import Declined

RULE_FAILED = "its rule failed"


@dataclass
class Detection:
    """``pattern`` has a row per output element and a column per primal element.

    ``relied`` names the inputs whose content the pattern was read from, ``pessimistic`` the calls
    without a rule, with where they stand.
    """

    pattern: SparsityPattern
    relied: set[str] = field(default_factory=set)
    pessimistic: dict[str, str] = field(default_factory=dict)
    widened: bool = False


class TooManyEntriesError(Exception):
    """The pattern has more entries than its caller can use."""


def detect(caller: str, graph: PullbackGraph, at_most: int | None = None) -> Detection:
    """Push what each tensor depends on through the linear nodes, one rule per call.

    A pattern of more than ``at_most`` entries is not written out: TooManyEntriesError.
    """
    known = dict(starts(graph))
    relied: set[str] = set()
    pessimistic: dict[str, str] = {}
    calls = [node for node in graph.linear if node.op == "call_function"]
    push(caller, graph, calls, known, {*known, *graph.gradients}, relied, pessimistic)
    width = sum(i.meta.numel for i in graph.cotangents)
    parts = []
    for primal, gradient in zip(graph.primals, graph.gradients, strict=True):
        found = known.get(gradient) if gradient is not None else None
        parts.append(found if found is not None else empty(primal.shape, width))
    if at_most is not None and sum(part.entries for part in parts) > at_most:
        raise TooManyEntriesError
    pattern, widened = stacked(parts, width)
    return Detection(pattern, relied, pessimistic, widened)


def push(
    caller: str,
    graph: PullbackGraph,
    calls: Sequence[fx.Node],
    known: dict[fx.Node, Any],
    kept: set[fx.Node | None],
    relied: set[str],
    pessimistic: dict[str, str],
) -> None:
    """Through ``calls``, in order. What is not ``kept`` goes with the last call that reads it: all
    dependences of a large graph together would take far more memory than its pattern."""
    last = {n: node for node in calls for n in node.all_input_nodes}
    for node in calls:
        known[node] = through(caller, Step(graph, node, known), relied, pessimistic)
        for n in node.all_input_nodes:
            if last[n] is node and n not in kept:
                known.pop(n, None)


def starts(graph: PullbackGraph) -> list[tuple[fx.Node, Any]]:
    """Every cotangent element depends on itself."""
    cotangents = graph.cotangents
    found = identity([i.meta.shape for i in cotangents])
    return [(i.node, dep) for i, dep in zip(cotangents, found, strict=True)]


def empty(shape: tuple[int, ...], width: int) -> Dependence:
    return nothing(shape, everything((), width))


def stacked(parts: Sequence[Dependence], width: int) -> tuple[SparsityPattern, bool]:
    """The Jacobian's pattern: the gradients' ones, one after the other, flipped."""
    ids, table, widened = common_table(parts)
    flat = np.concatenate([i.reshape(-1) for i in ids])
    return Dependence(flat.shape, flat, table, widened).to_flipped_pattern(), widened


def through(
    caller: str, step: Step, relied: set[str], pessimistic: dict[str, str]
) -> Dependence | list[Dependence | None]:
    """What one call's result depends on."""
    name = packet_name(step.node)
    rule = RULES.get(name)
    places = step.linear_arguments()
    if rule is not None and not any(places <= group for group in rule.linear):
        trusted = bool(step.graph.formula_of(step.node))
        if not trusted:
            raise _checks.nonlinear_backward(caller, name, step.graph.line_of(step.node))
    if rule is not None:
        try:
            found = rule.apply(step)
            relied |= step.relied
            return found
        except Declined as reason:
            pessimistic[name] = f"{reason}"
        except PullbackError:
            raise
        except Exception as error:  # a wrong pattern is worse than a dense one
            pessimistic[name] = f"{RULE_FAILED}: {_checks.first_line(error)}"
    else:
        pessimistic[name] = "it has no rule"
        _refuse_integers(caller, step)
    return dense(step)


def linear_by_rule(graph: PullbackGraph) -> bool:
    """Whether every linear node's call is linear in all of its linear arguments together."""
    for node in graph.linear:
        if node.op != "call_function":
            continue
        rule = RULES.get(packet_name(node))
        names = Step(graph, node, {}).names_of_linear_nodes()
        if rule is None or not any(names <= group for group in rule.linear):
            return False
    return True


def _refuse_integers(caller: str, step: Step) -> None:
    """An integer or a truth value made of a cotangent is not linear in it."""
    whole = [m for m in step.outs if m is not None and not _checks.can_carry_gradients(m.dtype)]
    if len(whole) == len(step.outs) and whole and not step.graph.formula_of(step.node):
        line = step.graph.line_of(step.node)
        raise _checks.nonlinear_backward(caller, packet_name(step.node), line)


def dense(step: Step) -> Dependence | list[Dependence | None]:
    """Every element of every result depends on everything that the call reads."""
    parts = [(dep, np.zeros(dep.shape, dtype=np.int64)) for dep in step.inputs]
    one = grouped(parts, (1,))

    def everywhere(meta: Any) -> Any:
        if isinstance(meta, Meta):
            return one.broadcast_all(meta.shape)
        return list(map(everywhere, meta)) if isinstance(meta, (tuple, list)) else None

    found: Dependence | list[Dependence | None] = everywhere(step.graph.metas[step.node])
    return found
