"""Is a backward the adjoint of its forward's derivative? ``<J u, v> = <u, J' v>``, by argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._differences import Slope, bound_text
from ..draw.numbers import number, shape
from .audit_call import Argument, Call
from .audit_forward import Forward
from .audit_mistakes import mistake_in, turns
from .audit_state import Cotangents, normal_like, rounding
from .verdict import Evidence, Verdict

_ROUNDS = 3


@dataclass(frozen=True)
class Entry:
    """One entry of J: which output and input entry, by differences, how far these may be off, and
    by backward."""

    output: str
    input: str
    differences: float
    error: float
    backward: float | None


def adjoint(
    forward: Forward, v: Cotangents, made: torch.Generator, linear: bool
) -> Iterator[Verdict]:
    """Findings about the gradient of every argument; notes go to the call."""
    call = forward.call
    for argument in call.arguments:
        if argument.needs_gradient and argument.value.numel():
            yield from _of_argument(forward, argument, v, made, linear)


def _of_argument(
    forward: Forward, argument: Argument, v: Cotangents, made: torch.Generator, linear: bool
) -> Iterator[Verdict]:
    call = forward.call
    u = normal_like(forward.arguments[argument.place], made)
    slope = forward.slope(argument.place, u)
    smooth = _without_rough(forward, v, slope)
    grad = call.pull(smooth)[argument.place]
    if grad is not None and slope.is_flat() and _passes_on(forward, smooth, grad):
        yield _straight_through(call, argument)
        return
    if any(bool(rough.any()) for rough in slope.rough):
        kinks = sum(int(rough.sum()) for rough in slope.rough)
        call.notes.append(
            f"forward has no derivative in `{argument.name}` at {kinks} of its output entries, "
            "which were left out"
        )
    if not disagrees(slope, smooth, u, grad):
        flat = all(not bool(value.any()) for value in slope.values)
        if grad is not None and flat and not bool(grad.any()):
            yield _zeros(call, argument)
        return
    entry = _counterexample(forward, argument, smooth, u)
    if grad is None:
        yield _none(call, argument, entry)
    elif entry is not None:
        yield _wrong(call, argument, entry, mistake_in(forward, argument, smooth))
    elif linear:
        mistake = mistake_in(forward, argument, smooth)
        yield _wrong_somewhere(call, argument, slope, smooth, u, grad, mistake)


def inner(a: Tensor, b: Tensor) -> float:
    """The real inner product, in which torch's gradients of complex tensors are adjoints, too."""
    return float((a.conj() * b.to(a.dtype)).real.sum())


def disagrees(slope: Slope, v: Cotangents, u: Tensor, grad: Tensor | None) -> bool:
    """Whether the two sides differ by more than the differences and rounding can explain."""
    used = [t for t in v if t is not None]
    left = sum(inner(value, w) for value, w in zip(slope.values, used, strict=True))
    doubt = sum(inner(error, w.abs()) for error, w in zip(slope.errors, used, strict=True))
    mass = sum(inner(value.abs(), w.abs()) for value, w in zip(slope.values, used, strict=True))
    right = 0.0 if grad is None else inner(u, grad)
    dtype = used[0].dtype if grad is None else grad.dtype
    mass += 0.0 if grad is None else inner(u.abs(), grad.abs())
    return not abs(left - right) <= 10 * doubt + 4 * rounding(dtype) * mass


def _without_rough(forward: Forward, v: Cotangents, slope: Slope) -> Cotangents:
    """``v`` with zeros where forward has no derivative along the direction of ``slope``."""
    found = list(v)
    for place, rough in zip(forward.places, slope.rough, strict=True):
        given = v[place]
        assert given is not None
        found[place] = given.masked_fill(rough, 0)
    return tuple(found)


def _passes_on(forward: Forward, v: Cotangents, grad: Tensor) -> bool:
    """Whether backward hands ``v`` on, entry by entry, or lets some entries pass and no others."""
    given = v[forward.places[0]] if len(forward.places) == 1 else None
    if given is None or given.shape != grad.shape or not bool(grad.any()):
        return False
    return bool(((grad == given) | (grad == 0)).all())


def _counterexample(forward: Forward, argument: Argument, v: Cotangents, u: Tensor) -> Entry | None:
    """One entry of J on which the two disagree, by halving ``v``, then ``u``."""
    row = _halved_v(forward, argument, v, u)
    if row is None:
        return None
    output, v = row
    place = argument.place
    grad = forward.call.pull(v)[place]
    candidates = torch.arange(u.numel(), device=u.device)
    while len(candidates) > 1:
        halves = candidates.tensor_split(2)
        failing = next((h for h in halves if _at(forward, argument, v, u, h, grad)), None)
        if failing is None:
            return None
        candidates = failing
    found = (
        _entry(forward, argument, output, v_turn, v, int(candidates), u_turn, u)
        for u_turn in turns(u)
        for v_turn in turns(next(t for t in v if t is not None and bool(t.any())))
    )
    return next((entry for entry in found if entry is not None), None)


def _entry(
    forward: Forward,
    argument: Argument,
    output: str,
    v_turn: complex,
    v: Cotangents,
    place: int,
    u_turn: complex,
    u: Tensor,
) -> Entry | None:
    """The entry, if the two disagree there; of a complex one its real or its imaginary part."""
    unit = torch.zeros_like(u)
    unit.view(-1)[place] = 1
    unit = unit * u_turn
    turned = tuple(None if t is None else t * v_turn if bool(t.any()) else t for t in v)
    grad = forward.call.pull(turned)[argument.place]
    slope = forward.slope(argument.place, unit)
    if not disagrees(slope, turned, unit, grad) or any(bool(rough.any()) for rough in slope.rough):
        return None
    used = [t for t in turned if t is not None]
    pairs = list(zip(slope.values, slope.errors, used, strict=True))
    by_differences = sum(inner(value, w) for value, _, w in pairs)
    error = sum(inner(doubt, w.abs()) for _, doubt, w in pairs)
    by_backward = None if grad is None else inner(unit, grad)
    output += _part(v_turn, any(t.is_complex() for t in used if bool(t.any())))
    name = f"{argument.name}{_index(place, u.shape)}{_part(u_turn, u.is_complex())}"
    return Entry(output, name, by_differences, error, by_backward)


def _part(turn: complex, is_complex: bool) -> str:
    if not is_complex:
        return ""
    return ".real" if turn == 1 else ".imag"


def _at(
    forward: Forward,
    argument: Argument,
    v: Cotangents,
    u: Tensor,
    chosen: Tensor,
    grad: Tensor | None,
) -> bool:
    """Whether the two sides disagree where ``u`` is kept at the ``chosen`` entries alone."""
    part = torch.zeros_like(u)
    part.view(-1)[chosen] = u.reshape(-1)[chosen]
    return disagrees(forward.slope(argument.place, part), v, part, grad)


def _halved_v(
    forward: Forward, argument: Argument, v: Cotangents, u: Tensor
) -> tuple[str, Cotangents] | None:
    """A cotangent of one entry that disagrees along ``u``, and the name of that entry."""
    slope = forward.slope(argument.place, u)
    entries = [
        (place, k)
        for place in forward.places
        for k in (v[place].reshape(-1).nonzero().reshape(-1).tolist())  # type: ignore[union-attr]
    ]
    while len(entries) > 1:
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            part = _only(v, half)
            if disagrees(slope, part, u, forward.call.pull(part)[argument.place]):
                entries = half
                break
        else:
            return None
    if not entries:
        return None
    ((place, k),) = entries
    unit = tuple(None if t is None else torch.zeros_like(t) for t in v)
    target = unit[place]
    assert target is not None
    target.view(-1)[k] = 1
    name = "output" if len(forward.places) == 1 else f"output {place}"
    return f"{name}{_index(k, target.shape)}", unit


def _only(v: Cotangents, entries: Sequence[tuple[int, int]]) -> Cotangents:
    found = tuple(None if t is None else torch.zeros_like(t, memory_format=torch.contiguous_format)
                  for t in v)  # fmt: skip
    for place, k in entries:
        target, source = found[place], v[place]
        assert target is not None
        assert source is not None
        target.view(-1)[k] = source.reshape(-1)[k]
    return found


def _index(place: int, sizes: Sequence[int]) -> str:
    found: list[str] = []
    for size in reversed(sizes):
        place, k = divmod(place, size)
        found.insert(0, str(k))
    return f"[{', '.join(found)}]" if found else ""


def _facts(entry: Entry) -> Evidence:
    return (
        ("entry", f"d {entry.output} / d {entry.input}"),
        ("by differences of forward", number(entry.differences)),
        ("these may be off by", bound_text(entry.error)),
        ("by backward", "None" if entry.backward is None else number(entry.backward)),
    )


def _wrong(call: Call, argument: Argument, entry: Entry, mistake: str) -> Verdict:
    backward = entry.backward or 0.0
    sure = abs(entry.differences) > entry.error
    ratio = backward / entry.differences if sure else float("nan")
    factor = f" ({number(ratio)} times as much)" if ratio == ratio and ratio else ""
    likely = f" {mistake}." if mistake else ""
    return Verdict(
        "wrong_gradient",
        f"{call.name}.backward is not the adjoint of its forward in `{argument.name}`: d "
        f"{entry.output} / d {entry.input} is {number(entry.differences)}, and backward takes it "
        f"for {number(backward)}{factor}.{likely} Every gradient behind it is wrong, unless "
        f"another one is meant (a reversal, a surrogate).",
        (*_facts(entry), ("apart by", number(abs(backward - entry.differences)))),
        f"Return J' v, and ask again:\n    pb.audit_function({call.name}, ...)",
    )


def _wrong_somewhere(
    call: Call,
    argument: Argument,
    slope: Slope,
    v: Cotangents,
    u: Tensor,
    grad: Tensor | None,
    mistake: str,
) -> Verdict:
    used = [t for t in v if t is not None]
    left = sum(inner(value, w) for value, w in zip(slope.values, used, strict=True))
    right = 0.0 if grad is None else inner(u, grad)
    likely = f" {mistake}." if mistake else ""
    return Verdict(
        "wrong_gradient",
        f"{call.name}.backward is not the adjoint of its forward in `{argument.name}`: for random "
        f"u and v, <J u, v> and <u, J' v> differ. No single entry shows it.{likely}",
        (
            ("<J u, v> by differences of forward", number(left)),
            ("<u, J' v> by backward", number(right)),
        ),
        f"Return J' v, and ask again:\n    pb.audit_function({call.name}, ...)",
    )


def _none(call: Call, argument: Argument, entry: Entry | None) -> Verdict:
    return Verdict(
        "none_gradient",
        f"{call.name}.backward returns None for `{argument.name}`, which needs a gradient "
        "and which its output depends on. Nothing arrives there: if it is a leaf, its .grad "
        "stays as it was.",
        () if entry is None else _facts(entry),
        f"Return a tensor of shape {shape(_sizes(argument))} for it. If it is meant to be a "
        f"constant, say so at the call:\n    {argument.name}.detach()",
    )


def _zeros(call: Call, argument: Argument) -> Verdict:
    return Verdict(
        "zeros_gradient",
        f"{call.name}.backward fills a tensor with zeros for `{argument.name}`, which its "
        "output does not depend on. None says the same and costs nothing, here and at everything "
        "behind it.",
        (("returned", f"zeros of shape {shape(_sizes(argument))}"),),
        "Return None in its place.",
    )


def _straight_through(call: Call, argument: Argument) -> Verdict:
    return Verdict(
        "straight_through",
        f"{call.name}.backward is not the derivative of its forward: forward is a step function "
        f"of `{argument.name}`, of derivative 0, and backward hands its cotangent on. That is a "
        "choice, a straight-through estimator, and what comes out behind it is no gradient of "
        "the loss.",
        (("by differences of forward", "0"), ("by backward", "the cotangent, or part of it")),
        "Nothing, if it was meant.",
    )


def _sizes(argument: Argument) -> tuple[int, ...]:
    assert argument.expected is not None
    return argument.expected.shape
