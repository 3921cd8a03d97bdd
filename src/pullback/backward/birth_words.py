"""What is said of a birth in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.autograd.graph import Node

from .. import _torch
from ..draw.numbers import count, number
from .birth import place_of, value_text
from .birthlog import Sighting
from .origins import call_of
from .sighting import Facts
from .verdict import Evidence
from .zeros import ZeroSource


def text_of(
    code: str, facts: Facts, seen: Sighting, zero: ZeroSource | None, hooks: Sequence[str]
) -> str:
    """Two or three sentences: what came, what the node made of it, where a 0 came from."""
    if code == "hook":
        return _of_hook(facts, seen, hooks)
    if code == "overflow":
        return _of_overflow(facts, seen)
    if code in _OF_OTHERS:
        also = f" Hooks on it ran as well: {', '.join(hooks)}." if hooks else ""
        return f"{_sent(facts)} {_OF_OTHERS[code]}{also}"
    return " ".join(part for part in (_sent(facts), _reason(code, facts), _source(zero)) if part)


_OF_OTHERS = {
    "custom_function": (
        "Its backward is the user's own Python, and what it received was finite: torch knows no "
        "more of it."
    ),
    "compiled_region": (
        "It stands for everything that torch.compile made one function of; inside, nothing can be "
        "seen."
    ),
    "unknown": "What it received was finite; run alone it does not show why.",
}


def _sent(facts: Facts) -> str:
    what = value_text(facts.bad.value)
    where = _place(facts)
    other = f" of contribution {facts.position}" if facts.count > 1 else ""
    return f"{facts.name} received finite numbers and sent {what}{where}{other}."


def _place(facts: Facts) -> str:
    return f" at {list(facts.bad.element)}" if facts.bad.element else ""


def _at(facts: Facts) -> str:
    shown = {k: v for k, v in facts.operands.items() if not isinstance(v, tuple)}
    told = ", ".join(f"{name} = {value_text(value)}" for name, value in shown.items())
    return f" (at {told})" if told else ""


def _reason(code: str, facts: Facts) -> str:
    slope = "" if facts.derivative is None else value_text(facts.derivative)
    given = "" if facts.upstream is None else value_text(facts.upstream)
    if code == "zero_times_infinity":
        if not slope:
            return "Its upstream there is exactly 0, and its local derivative is not finite."
        return (
            f"Its upstream there is exactly 0, and its local derivative{_at(facts)} is {slope}: "
            f"0 * {slope} is nan."
        )
    if code == "infinite_derivative":
        if not slope:
            return "Its local derivative is infinite, whatever arrives."
        return f"Its local derivative there{_at(facts)} is {slope}, and the upstream {given}."
    if code == "zero_over_zero" and _without_finite_entry(facts):
        return "Every entry of the slice that it reduces is -inf, and inf - inf has no value."
    if code == "zero_over_zero":
        return (
            f"Its local derivative there{_at(facts)} has no value: the formula comes to 0 / 0, or "
            f"0 * inf, whatever arrives."
        )
    if code == "outside_domain":
        return f"Its local derivative there{_at(facts)} is not defined for real numbers."
    saved = f" It saved `{facts.nan_saved}` with nan in it." if facts.nan_saved else ""
    return f"What it saved in the forward pass{_at(facts)} is not finite already.{saved}"


def _without_finite_entry(facts: Facts) -> bool:
    slices = [v for v in facts.operands.values() if isinstance(v, tuple) and v]
    return any(all(entry == -math.inf for entry in values) for values in slices)


def _of_overflow(facts: Facts, seen: Sighting) -> str:
    dtype = str(facts.dtype).removeprefix("torch.")
    largest = number(torch.finfo(facts.dtype).max)
    beyond = f"beyond the largest number of {dtype}, {largest}"
    if seen.received is None:
        many = len(seen.senders.get(seen.slot, ()))
        return (
            f"{count(many)} finite contributions meet at {facts.name}, and their sum"
            f"{_place(facts)} is {beyond}."
        )
    if facts.regular_and_infinite:
        return f"{_sent(facts)} Its local derivative there{_at(facts)} exists, and is {beyond}."
    if facts.inner is None:
        return f"{_sent(facts)} It sums finite products, and the sum is {beyond}."
    given = "" if facts.upstream is None else f" The upstream there is {value_text(facts.upstream)}"
    if not given:
        return f"{_sent(facts)} It is {beyond}."
    if facts.derivative is None:
        return f"{_sent(facts)}{given}: {beyond}."
    slope = value_text(facts.derivative)
    return f"{_sent(facts)}{given}, the local derivative {slope}: their product is {beyond}."


def _of_hook(facts: Facts, seen: Sighting, hooks: Sequence[str]) -> str:
    value = f"{value_text(facts.bad.value)}{_place(facts)}"
    who = ", ".join(hooks) or "one that cannot be named"
    if seen.received is None:
        return (
            f"What was sent to {facts.name} is finite, and what it was given holds {value}: only "
            f"hooks run in between ({who})."
        )
    if seen.received is not None and facts.alone_is_finite is None:
        return f"A backward hook of a module made {value} of finite numbers ({who})."
    return (
        f"{facts.name} was left with {value}, though the node alone sends finite numbers for what "
        f"it received: a hook on it made that ({who})."
    )


def _source(zero: ZeroSource | None) -> str:
    if zero is None:
        return ""
    at = place_of(zero.call)
    place = f" ({at})" if at else ""
    if not zero.why:
        return f"The 0 was sent by {zero.node}{place}."
    return (
        f"The 0 comes from {zero.node}{place}, {zero.why}: a mask on the result does not protect "
        f"the derivative of what it masks."
    )


def evidence_of(facts: Facts, zero: ZeroSource | None, hooks: Sequence[str]) -> Evidence:
    """Name and value of what the sentences rest on; only what is known."""
    size = 1
    for extent in facts.shape:
        size *= extent
    found = [("node", facts.name)]
    if facts.call is not None:
        found.append(("from", place_of(facts.call)))
    if facts.formula:
        found.append(("formula", facts.formula))
    found.append(("contribution", f"{facts.position} of {facts.count}"))
    found.append(("not finite", f"{count(facts.bad.count)} of {count(size)} entries"))
    if facts.upstream is not None:
        found.append(("upstream there", value_text(facts.upstream)))
    found += [(f"{name} there", value_text(value)) for name, value in facts.operands.items()]
    if facts.derivative is not None:
        found.append(("local derivative there", value_text(facts.derivative)))
    if zero is not None:
        found.append(("the 0 is from", " ".join((zero.node, place_of(zero.call))).strip()))
    if hooks:
        found.append(("hooks", ", ".join(hooks)))
    return tuple(found)


def label(node: Node) -> str:
    """A node that is named beside the first birth."""
    at = place_of(call_of(node))
    name = _torch.node_name(node)
    return f"{name} at {at}" if at else name
