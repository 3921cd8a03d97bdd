"""Timing of several candidates side by side, and the table that shows it.

The candidates take turns in one process, so that a slow spell of the machine falls on all of them;
what is compared is the median over rounds.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds of one candidate: median, and lower and upper quartile."""

    name: str
    median: float
    lower: float
    upper: float
    rounds: int
    calls: int
    note: str = ""


Cell = Timing | str
"""A timing, or why there is none."""


@dataclass(frozen=True)
class Row:
    """One problem: every candidate in the order of the table's columns."""

    problem: str
    timings: tuple[Cell, ...]


@dataclass(frozen=True)
class Ratio:
    """How many times longer the fastest of ``slower`` takes than the fastest of ``faster``."""

    heading: str
    slower: tuple[str, ...]
    faster: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of timings, and ratios of columns: of every other to the first where none are given.

    ``spread`` shows the quartiles beside each median, ``means`` the geometric means of the ratios
    in a last line; ``compare=False`` leaves all ratios out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    ratios: tuple[Ratio, ...] = ()
    spread: bool = True
    means: bool = False
    compare: bool = True

    @property
    def compared(self) -> tuple[Ratio, ...]:
        if not self.compare:
            return ()
        first, *others = self.columns
        each = tuple(Ratio(f"× {name}", (name,), (first,)) for name in others)
        return self.ratios or each

    def ratio(self, ratio: Ratio, row: Row) -> float | None:
        slower, faster = self._fastest(ratio.slower, row), self._fastest(ratio.faster, row)
        return slower / faster if slower and faster else None

    def mean(self, ratio: Ratio) -> tuple[float, int] | None:
        """The geometric mean over the rows that have this ratio, and how many these are."""
        found = [value for row in self.rows if (value := self.ratio(ratio, row))]
        return (statistics.geometric_mean(found), len(found)) if found else None

    def _fastest(self, columns: tuple[str, ...], row: Row) -> float | None:
        cells = dict(zip(self.columns, row.timings, strict=True))
        return min((c.median for n in columns if isinstance(c := cells[n], Timing)), default=None)


Candidate = Callable[[], object]


def compare(problem: str, candidates: Mapping[str, Candidate], *, quick: bool = False) -> Row:
    """Time ``candidates`` in interleaved rounds. One that raises is shown with its reason."""
    seconds = 0.05 if quick else 0.25
    rounds = 5 if quick else 15
    calls: dict[str, int] = {}
    refused: dict[str, str] = {}
    for name, candidate in candidates.items():
        try:
            calls[name] = _calls_in(candidate, seconds / rounds)
        except Exception as error:  # another program may refuse a problem in any way
            refused[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    samples: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, count in calls.items():
                samples[name].append(_seconds_per_call(candidates[name], count))
    finally:
        gc.enable()
    return Row(
        problem,
        tuple(
            refused[name] if name in refused else timing_of(name, samples[name], calls[name])
            for name in candidates
        ),
    )


def _calls_in(candidate: Candidate, seconds: float) -> int:
    """How many calls fill ``seconds``; the trial calls are the warm-up."""
    for _ in range(3):
        candidate()
    once = min(_seconds_per_call(candidate, 1) for _ in range(3))
    return max(1, int(seconds / max(once, 1e-9)))


def _seconds_per_call(candidate: Candidate, calls: int) -> float:
    _synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        candidate()
    _synchronize()
    return (time.perf_counter() - start) / calls


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timing_of(name: str, samples: list[float], calls: int) -> Timing:
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(name, median, lower, upper, len(samples), calls)
