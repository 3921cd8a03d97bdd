"""The orders of ``pullback step``: a line in, a text out."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from .._checks import commands as checks
from ..backward.stepper import Stepper
from ..backward.steps import cotangent_text
from ..draw.numbers import count

HELP = """\
n [K]                      run the next node, or K of them
b [K]                      undo the last step or edit, or K of them
u nonfinite                run until something infinite or nan is received or sent
u norm 10                  run until a step makes the norm 10 times as large (0.1: as small)
u op Exp                   run until such a node is next
u line 12, u line m.py:12  run until a node made at that line is next
up [NODE [SLOT]]           what a node received, or has arrived there; the next node if left out
c                          the contributions to the next node
e [slot K] *2              scale what the next node receives (zero: all of it to 0)
e [slot K] 1 0 0.5         put these numbers in its place, in C order; one number for all
s                          where the pass stands
f                          run what is left, and show the deposits
h                          this list
q                          leave"""
_NUMBER = re.compile(r"[\s,\[\]()]+")


def obey(stepper: Stepper, line: str) -> str:
    """Carry out one order; what to print.

    Raises:
        PullbackError: the order cannot be understood or carried out; the pass stands as before.
    """
    word, *rest = line.split()
    order = _ORDERS.get(word.lower())
    if order is None:
        raise checks.no_such_order(word)
    return order(stepper, rest)


def _next(stepper: Stepper, words: list[str]) -> str:
    told: list[str] = []
    for _ in range(_times("n, or n 3", words)):
        if told and stepper.done:
            break
        told.append(str(stepper.next()))
    return "\n".join([*told, _at(stepper)])


def _back(stepper: Stepper, words: list[str]) -> str:
    for _ in range(_times("b, or b 3", words)):
        stepper.back()
    return _at(stepper)


def _until(stepper: Stepper, words: list[str]) -> str:
    form = checks.order_form("u nonfinite, u norm 10, u op Exp, u line 12, or u line model.py:12")
    before = stepper.last
    match words:
        case ["nonfinite"]:
            found = stepper.until(nonfinite=True)
        case ["norm", text]:
            found = stepper.until(norm_ratio=_float(text, "u norm 10"))
        case ["op", name]:
            found = stepper.until(op=name)
        case ["line", place]:
            found = stepper.until(line=place)
        case _:
            raise form
    told = [] if stepper.last in (None, before) else [str(stepper.last)]
    if not found:
        told.append("It was not met." if stepper.done else "No such node is left.")
    return "\n".join([*told, _at(stepper)])


def _upstream(stepper: Stepper, words: list[str]) -> str:
    form = "up, up 3, or up 3 0: the number of a node, and of its slot"
    if len(words) > 2:
        raise checks.order_form(form)
    numbers = [_int(word, form) for word in words]
    node = numbers[0] if numbers else None
    value = stepper.upstream(node, numbers[1] if len(numbers) > 1 else 0)
    place = stepper.node if node is None else stepper.nodes[node]
    assert place is not None
    verb = "received" if stepper.node is None or place.index < stepper.node.index else "receives"
    told = f"{place.label} {verb} {cotangent_text(value)}"
    return told if value is None else f"{told}\n{value}"


def _contributions(stepper: Stepper, _: list[str]) -> str:
    if stepper.node is None:
        return _at(stepper)
    lines = [f"to {stepper.node.label}:"]
    for c in stepper.contributions:
        where = f" in slot {c.slot}" if stepper.node.slots > 1 else ""
        source = f"the cotangent of output {c.position}" if c.source is None else c.source.label
        lines.append(f"  {cotangent_text(c.tensor)} from {source}{where}")
    return "\n".join(lines)


def _edit(stepper: Stepper, words: list[str]) -> str:
    form = "e *2, e zero, e 1 0 0.5, or e slot 1 *2"
    slot = 0
    if words[:1] == ["slot"] and len(words) > 1:
        slot, words = _int(words[1], form), words[2:]
    if not words:
        raise checks.order_form(form)
    stepper.edit(_change(words, form), slot)
    assert stepper.node is not None
    return f"{stepper.node.label} receives {cotangent_text(stepper.upstream(slot=slot))} (edited)"


def _change(words: list[str], form: str) -> Callable[[Tensor], Tensor]:
    text = " ".join(words)
    if text == "zero":
        return torch.zeros_like
    if text.startswith("*"):
        factor = _scalar(text[1:].strip(), form)
        return lambda arrived: (arrived * factor).to(arrived.dtype)
    numbers = [_scalar(part, form) for part in _NUMBER.split(text) if part]
    if not numbers:
        raise checks.order_form(form)

    def replaced(arrived: Tensor) -> Tensor:
        if len(numbers) not in (1, arrived.numel()):
            raise checks.count_of_numbers(len(numbers), arrived.numel())
        if not arrived.is_complex() and any(isinstance(n, complex) for n in numbers):
            raise checks.order_form(form)
        flat = torch.tensor(numbers, dtype=arrived.dtype, device=arrived.device)
        return flat.expand(arrived.numel()).reshape(arrived.shape)

    return replaced


def _finish(stepper: Stepper, _: list[str]) -> str:
    deposits = stepper.finish()
    lines = [f"{key}: {cotangent_text(value)}\n{value}" for key, value in deposits.items()]
    return "\n".join(
        [
            *lines,
            f"{count(len(deposits))} deposit{'s' * (len(deposits) != 1)}; no .grad was touched.",
        ]
    )


def _at(stepper: Stepper) -> str:
    return "the pass is over" if stepper.node is None else f"next: {stepper.node.label}"


def _times(form: str, words: list[str]) -> int:
    return 1 if not words else max(1, _int(words[0], form))


def _int(text: str, form: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise checks.order_form(form) from None


def _float(text: str, form: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise checks.order_form(form) from None


def _scalar(text: str, form: str) -> float | complex:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return complex(text)
    except ValueError:
        raise checks.order_form(form) from None


_ORDERS: dict[str, Callable[[Stepper, list[str]], str]] = {
    "n": _next,
    "b": _back,
    "u": _until,
    "up": _upstream,
    "c": _contributions,
    "e": _edit,
    "s": lambda stepper, _: str(stepper),
    "f": _finish,
    "h": lambda *_: HELP,
}
