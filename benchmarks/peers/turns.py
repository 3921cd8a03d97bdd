"""Turns of candidates that time themselves, in this process or in another."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

from ..timing import Cell, Timing

Timed = Callable[[int], float]
"""Runs that many calls and returns the seconds of one."""


def timed(candidate: Callable[[], object]) -> Timed:
    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            candidate()
        return (time.perf_counter() - start) / calls

    return run


def reason(error: Exception) -> str:
    """What an error says, short enough for a cell of a table."""
    told = f"{type(error).__name__}: {error}".removeprefix("PeerError: ")
    return shorten(told, 90, placeholder=" …")


@dataclass(frozen=True)
class Limits:
    """Seconds: above ``slow`` a first call is all; ``budget`` is for the rounds of a candidate,
    ``filled`` what the calls of one round take together. ``rounds`` at most, and 3 at least."""

    slow: float
    budget: float
    filled: float
    rounds: int


WARM = Limits(slow=2.0, budget=2.0, filled=0.02, rounds=15)
COLD = Limits(slow=1.0, budget=1.5, filled=0.0, rounds=5)
QUICK = Limits(slow=0.3, budget=0.2, filled=0.005, rounds=5)


def take_turns(candidates: Mapping[str, Timed | str], limits: Limits) -> dict[str, Cell]:
    """Time ``candidates`` in interleaved rounds. One that is a text is shown as it is, one that
    raises with its reason, and one whose first call takes seconds is not called again."""
    cells: dict[str, Cell] = {}
    each: dict[str, float] = {}
    for name, candidate in candidates.items():
        if isinstance(candidate, str):
            cells[name] = candidate
            continue
        try:
            first = candidate(1)
            if first > limits.slow:
                cells[name] = single(name, first)
            else:
                each[name] = min(first, candidate(1))
        except Exception as error:  # another program may refuse a problem in any way
            cells[name] = reason(error)
    running = {name: run for name, run in candidates.items() if name in each and callable(run)}
    for name, samples in _rounds(running, each, limits).items():
        lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
        cells[name] = Timing(name, median, lower, upper, len(samples), _calls(each[name], limits))
    return {name: cells[name] for name in candidates}


def single(name: str, seconds: float, note: str = "") -> Timing:
    """A candidate that was called once."""
    return Timing(name, seconds, seconds, seconds, 1, 1, note)


def once(name: str, candidate: Timed) -> Cell:
    """The one call of a candidate that cannot be had twice, such as a first compilation."""
    try:
        return single(name, candidate(1))
    except Exception as error:  # as above
        return reason(error)


def total(name: str, parts: Sequence[Cell]) -> Cell:
    """Steps that were timed one by one, as one; without a part there is no whole."""
    for part in parts:
        if isinstance(part, str):
            return part
    whole = [part for part in parts if isinstance(part, Timing)]
    median, lower, upper = (
        sum(getattr(part, what) for part in whole) for what in ("median", "lower", "upper")
    )
    return Timing(name, median, lower, upper, min(part.rounds for part in whole), 1)


def _calls(seconds: float, limits: Limits) -> int:
    return max(1, int(limits.filled / max(seconds, 1e-9)))


def _rounds(
    running: Mapping[str, Timed], each: Mapping[str, float], limits: Limits
) -> dict[str, list[float]]:
    """The garbage collector stays on, as a program has it: planning makes many objects, and what
    that costs is part of it. Candidates with fewer turns have them spread over all rounds."""
    most = limits.rounds
    samples: dict[str, list[float]] = {name: [] for name in running}
    gc.collect()
    for k in range(most):
        for name, candidate in running.items():
            turns = max(3, min(most, int(limits.budget / max(each[name], 1e-9))))
            if (k + 1) * turns // most > k * turns // most:
                samples[name].append(candidate(_calls(each[name], limits)))
    return samples
