"""Where a stepper stands, as text: what ran last, what runs next, what has arrived further on."""

from __future__ import annotations

from torch import Tensor

from ..draw import Outline, OutlineRow, Page, Sentence, to_text
from ..draw.numbers import count, number, shape
from .graph import Port
from .stats import stats_of
from .stepping import Stepping, Taken
from .steps import Place, Step, place_text

_COLUMNS = ("node", "cotangent", "norm", "from")
_BEFORE, _AFTER = 4, 6


def standing_text(state: Stepping, notes: tuple[str, ...]) -> str:
    outputs = zip(state.job.out.names, state.job.out.tensors, strict=True)
    names = ", ".join(f"{name} {shape(tuple(tensor.shape))}" for name, tensor in outputs)
    total = len(state.places)
    ran = f"{count(state.position)} of {count(total)} node{'s' * (total != 1)} ran."
    rows = (*_ran(state), *_to_run(state))
    return to_text(
        Page(
            f"stepping the backward of {names}",
            (Outline(_COLUMNS, rows), Sentence(ran), *map(Sentence, notes)),
        )
    )


def _ran(state: Stepping) -> list[OutlineRow]:
    known = {a.step.node.index: a.step for a in state.acts if isinstance(a, Taken)}
    if state.last is not None:
        known[state.last.node.index] = state.last
    first = max(0, state.position - _BEFORE)
    rows = [_left_out(first, "before")] if first else []
    for place in state.places[first : state.position]:
        step = known.get(place.index)
        cells = ("forgotten", "") if step is None else _flow(step)
        rows.append(_row(f"  {place.label}", *cells, place))
    return rows


def _to_run(state: Stepping) -> list[OutlineRow]:
    last = min(len(state.places), state.position + _AFTER)
    rows = []
    for place in state.places[state.position : last]:
        mark = "> " if place.index == state.position else "  "
        rows.append(_row(f"{mark}{place.label}", *_arrived(state, place), place))
    left = len(state.places) - last
    return [*rows, _left_out(left, "more")] if left else rows


def _row(label: str, cotangent: str, norm: str, place: Place) -> OutlineRow:
    return OutlineRow(0, (label, cotangent, norm, place_text(place.call)))


def _left_out(n: int, where: str) -> OutlineRow:
    return OutlineRow(0, (f"  ... {count(n)} {where}", "", "", ""))


def _flow(step: Step) -> tuple[str, str]:
    """What it received, and what it sent where that is one thing."""
    received = [t for t in step._upstream if t is not None]
    sent = [c._tensor for c in step.contributions if c._tensor is not None]
    shapes, norms = _shapes(received), _norm(received)
    if len(sent) != 1 or not received:
        return shapes, norms
    after = _shapes(sent), _norm(sent)
    return (
        shapes if after[0] == shapes else f"{shapes} -> {after[0]}",
        norms if after[1] == norms else f"{norms} -> {after[1]}",
    )


def _arrived(state: Stepping, place: Place) -> tuple[str, str]:
    """What has arrived so far, and of how many contributions where some are still to come."""
    sources = state.sources[place.index]
    come = sum(turn < state.position for turn in sources)
    if come == 0:
        return "", ""
    node = state.schedule.order[place.index]
    ports = (Port(node, slot) for slot in range(place.slots))
    values = [state.arrived[port] for port in ports if port in state.arrived]
    of = "" if come == len(sources) else f", {come} of {len(sources)}"
    return f"{_shapes(values)}{of}", _norm(values)


def _shapes(values: list[Tensor]) -> str:
    return ", ".join(shape(tuple(value.shape)) for value in values) or "nothing"


def _norm(values: list[Tensor]) -> str:
    if not values:
        return ""
    return number(sum(stats_of(value).norm ** 2 for value in values) ** 0.5)
