"""Where a stepper is told to stop: before a node, by its name or line, or after a step, by what it
received and sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from .. import _checks
from .steps import Place, Step


@dataclass(frozen=True)
class Stop:
    """``at`` are the turns of the nodes to stop before; ``after`` says whether a step was it."""

    at: frozenset[int]
    after: tuple[Callable[[Step], object], ...]

    @property
    def by_name(self) -> bool:
        """Only a node can end the run: where none is left, there is nowhere to go."""
        return not self.after


def stop_where(
    caller: str,
    places: Sequence[Place],
    predicate: Callable[[Step], object] | None,
    nonfinite: bool,
    norm_ratio: float | None,
    op: str | None,
    line: str | int | None,
) -> Stop:
    """The first of the given criteria that is met."""
    _checks.flag(caller, "nonfinite", nonfinite)
    after: list[Callable[[Step], object]] = []
    if predicate is not None:
        after.append(_checks.function_of_step(caller, predicate))
    if nonfinite:
        after.append(lambda step: step.nonfinite > 0)
    if norm_ratio is not None:
        after.append(_beyond(_checks.ratio(caller, norm_ratio)))
    at: set[int] = set()
    if op is not None:
        at |= _named(caller, places, op)
    if line is not None:
        at |= _made_at(caller, places, line)
    if not after and op is None and line is None:
        raise _checks.no_stop(caller)
    return Stop(frozenset(at), tuple(after))


def _beyond(limit: float) -> Callable[[Step], object]:
    if limit > 1:
        return lambda step: step.norm_ratio >= limit
    return lambda step: step.norm_ratio <= limit


def short_name(name: str) -> str:
    """The operation that a node is the backward of.

    >>> short_name("PowBackward0"), short_name("AccumulateGrad"), short_name("MyFunctionBackward")
    ('Pow', 'AccumulateGrad', 'MyFunction')
    """
    return re.sub(r"Backward\d*$", "", name)


def _named(caller: str, places: Sequence[Place], op: str) -> set[int]:
    wanted = op.lower() if isinstance(op, str) else op
    found = {p.index for p in places if wanted in (p.name.lower(), short_name(p.name).lower())}
    if not found:
        _checks.known_op(caller, op, list(dict.fromkeys(short_name(p.name) for p in places)))
    return found


def _made_at(caller: str, places: Sequence[Place], line: str | int) -> set[int]:
    found = {p.index for p in places if _is_at(p, line)}
    if not found:
        _checks.known_line(caller, line, list(dict.fromkeys(p.line for p in places if p.line)))
    return found


def _is_at(place: Place, line: str | int) -> bool:
    if place.call is None or isinstance(line, bool):
        return False
    file, _, number = str(line).rpartition(":")
    parts = PurePath(file).parts
    same_file = not parts or PurePath(place.call.file).parts[-len(parts) :] == parts
    return number == str(place.call.line) and same_file
