"""Do the ways to one derivative agree? Where not, which entry shows it, and which is right?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..draw.numbers import number
from .blame import COARSE, Entries, Findings
from .trial import perturbed
from .witnesses import DIFFERENCES, Differences, Problem, Seen, Witness, attempted, widened

_POINTS = 2
_CANDIDATES = 4


def cross_check(problem: Problem, findings: Findings) -> None:
    """Raise where two ways to the derivative differ, at the point or near by.

    Raises:
        GradientAssertionError: they differ; the message names an entry, and what each says of it.
    """
    wide = widened(problem)
    if wide is problem and problem.point.dtype != torch.float64:
        findings.note(
            f"compared in {str(problem.point.dtype).removeprefix('torch.')}: func does not take "
            f"double precision"
        )
    for k in range(_POINTS):
        here = wide if k == 0 else wide.at([perturbed(t) for t in wide.primals])
        _Check(here, findings).run()


class _Check(Entries):
    """One comparison, at one point."""

    def run(self) -> None:
        m, n = self.reference.shape
        self._note(self.name)
        if not m or not n:
            return
        self._find_ways()
        self._find_differences()
        for way in self.ways:
            self._compare(way)
        if self.differences is not None:
            self._compare_differences(self.differences)

    def _note(self, name: str) -> None:
        if name not in self.findings.compared:
            self.findings.compared.append(name)

    def _find_ways(self) -> None:
        self._find([self.problem.forward()])
        if self.problem.order > 1:
            self._find(self.problem.reverse_over_forward())

    def _find(self, candidates: Sequence[Witness]) -> None:
        """The first of these forms of one way that torch goes."""
        refusals = []
        for way in candidates:
            refusal = attempted(way, self._normal(self.problem.point))
            refusal = refusal or (self.reference.refusal if way.along is not None else "")
            if not refusal:
                self._note(way.name)
                self.ways.append(way)
                return
            refusals.append(refusal)
        self.findings.note(f"{candidates[0].name} was not compared: {refusals[0]}")

    def _find_differences(self) -> None:
        differences = Differences(self.problem)
        refusal = differences.refusal() or self.reference.refusal
        if refusal:
            self.findings.note(f"{differences.name} were not compared: {refusal}")
        else:
            self.differences = differences

    def _compare(self, way: Witness) -> None:
        if way.along is None:
            assert way.row is not None
            v = self._normal(self.problem.point)
            truth, found = self.reference.row(v), way.row(v)
            gaps = self._gaps(truth, found, truth.abs())
            for column in _worst(gaps):
                row = self._bisected(v, partial(self._gap_of_row, way, column))
                self._judge(way, (row, column))
            return
        for t in self._directions():
            truth, found = self.reference.along(t), way.along(t)
            gaps = self._gaps(truth, found, self.reference.size_along(t, truth))
            for row in _worst(gaps):
                column = self._bisected(t, partial(self._gap_of_column, way, row))
                self._judge(way, (row, column))

    def _gaps(self, truth: Tensor, found: Tensor, size: Tensor) -> Tensor:
        """By how much more than rounding they differ; what is not finite on one side, by much."""
        finite = truth.isfinite() & found.isfinite()
        size = (size + found.abs()).nan_to_num(0.0, 0.0, 0.0)
        allowed = self.loose * (size + 1e-2 * size.amax()) + 1e-30
        gaps = torch.where(finite, (truth - found).abs() / allowed, 0.0)
        return torch.where(truth.isfinite() == found.isfinite(), gaps, math.inf)

    def _gap_of_row(self, way: Witness, column: int, part: Tensor) -> float:
        assert way.row is not None
        truth, found = self.reference.row(part), way.row(part)
        return float(self._gaps(truth, found, truth.abs())[column])

    def _gap_of_column(self, way: Witness, row: int, part: Tensor) -> float:
        assert way.along is not None
        truth, found = self.reference.along(part), way.along(part)
        return float(self._gaps(truth, found, self.reference.size_along(part, truth))[row])

    def _bisected(self, vector: Tensor, gap: Callable[[Tensor], float]) -> int:
        """The element of ``vector`` that shows the difference, by halves."""
        low, high = 0, len(vector)
        while high - low > 1:
            middle = (low + high) // 2
            halves = []
            for first, last in ((low, middle), (middle, high)):
                part = torch.zeros_like(vector)
                part[first:last] = vector[first:last]
                halves.append(gap(part))
            low, high = (low, middle) if halves[0] >= halves[1] else (middle, high)
        return low

    def _judge(self, way: Witness, entry: tuple[int, int]) -> None:
        mine, its = self._said_by(self.reference, entry), self._said_by(way, entry)
        if not self._apart(mine, its):
            return  # rounding of a sum
        seen = self._seen(entry)
        if seen is None:
            if not (math.isfinite(mine) and math.isfinite(its)):
                return
        elif self._proves_nothing(seen, mine, its):
            self._note_kink()
            return
        if self._is_cut():
            return
        raise self._modes_disagree(way, entry, mine, its, seen)

    def _compare_differences(self, differences: Differences) -> None:
        for t in self._directions():
            seen, truth = differences.along(t), self.reference.along(t)
            gaps = self._gaps_seen(seen, truth, self.reference.size_along(t, truth))
            if bool(seen.rough.any()):
                self._note_kink()
            self._measure(seen)
            for row in [] if self.findings.cut else _worst(gaps):
                self._contradicted(differences, t, row)

    def _gaps_seen(self, seen: Seen, truth: Tensor, size: Tensor) -> Tensor:
        size = (size + seen.values.abs()).nan_to_num(0.0, 0.0, 0.0)
        allowed = 10 * seen.errors + self.loose * (size + 1e-2 * size.amax()) + 1e-300
        gaps = (seen.values - truth).abs() / allowed
        gaps = torch.where(truth.isfinite(), gaps, math.inf)
        return torch.where(seen.rough | ~seen.errors.isfinite(), 0.0, gaps)

    def _measure(self, seen: Seen) -> None:
        usable = ~seen.rough & seen.errors.isfinite()
        if not bool(usable.any()):
            return
        scale, error = float(seen.values[usable].abs().amax()), float(seen.errors[usable].amax())
        relative = error / scale if scale else 0.0
        if relative > COARSE:
            self.findings.note(
                f"finite differences were too coarse here: they may be off by {number(relative)} "
                f"of the largest entry"
            )
            return
        self._note(DIFFERENCES)
        self.findings.resolved = max(self.findings.resolved, relative)

    def _contradicted(self, differences: Differences, t: Tensor, row: int) -> None:
        def gap(part: Tensor) -> float:
            seen, truth = differences.along(part), self.reference.along(part)
            size = self.reference.size_along(part, truth)
            return float(self._gaps_seen(seen, truth, size)[row])

        entry = (row, self._bisected(t, gap))
        seen, mine = self._seen(entry), self._said_by(self.reference, entry)
        assert seen is not None
        if self._proves_nothing(seen, mine):
            self._note_kink()
            return
        if not self._apart(mine, *seen[:2]) or self._is_cut() or self._is_coarse():
            return
        if self._is_surrogate(differences):
            return
        raise self._differences_disagree(entry, mine, seen)


def _worst(gaps: Tensor) -> list[int]:
    """The places that differ most, a few of them."""
    if not gaps.numel():
        return []
    found = gaps.topk(min(_CANDIDATES, gaps.numel()))
    pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
    return [int(place) for gap, place in pairs if gap > 1]
