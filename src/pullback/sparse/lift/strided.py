"""Values as a few strided writes: an assembly that a compiler can see through.

Where row after row repeats (``runs``), one entry of each row is a strided part of the values, and a
sum of strided parts of the products. Told so, the compiler that makes the products writes the
values at once, and no products are ever stored. Runs that repeat in their turn, as the lines of a
grid do, are one write of two dims.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..pattern import SparsityPattern
from .runs import Repeats, repeats
from .spec import Lift

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]

# Each write is a loop of its own in the generated code, and each of its terms a part of the loop.
_WRITES_AT_MOST = 64
_TERMS_AT_MOST = 512
# An entry of more terms than this is a sum over strided parts, of which there may be so many.
_LONG = 12
_PARTS_AT_MOST = 16
_TAKEN_IN_TURN = (1, 2, 3, 4)


class Walk(NamedTuple):
    """The places ``base + sum(strides[d] * k[d])`` in one segment of products, counted from its
    beginning."""

    segment: int
    base: int
    strides: tuple[int, ...]


class Term(NamedTuple):
    """``weight`` times the element of the first products, times that of the second; an element that
    is always 1 is None."""

    weight: float
    first: Walk | None
    second: Walk | None


class Write(NamedTuple):
    """``values[start + sum(steps[d] * k[d])]`` for ``k[d] < shape[d]``: a constant and terms.

    With ``summed``, ``start`` is one entry, and term ``t`` the sum of ``summed[t]`` elements.
    """

    start: int
    steps: tuple[int, ...]
    shape: tuple[int, ...]
    constant: float
    terms: tuple[Term, ...]
    summed: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Scattered:
    """The entries that no write covers, each with ``depth`` terms: of shape (depth, entries) are
    the places in the products and the weights, which are 0 where an entry has fewer."""

    entries: Ints
    first: Ints
    second: Ints
    weights: Floats
    constants: Floats


@dataclass(frozen=True, eq=False)
class Script:
    """All entries, each in one of the two. ``cuts`` say where the segments of the products of
    each factor begin, and where the last one ends; behind it lies a 1."""

    size: int
    writes: tuple[Write, ...]
    scattered: Scattered
    cuts: tuple[tuple[int, ...], ...]


class _TooMany(Exception):  # noqa: N818 - it says no more than: not this way
    pass


class _Run(NamedTuple):
    """``rows`` rows of a run, slot by slot. What makes two of them alike is ``form``; ``bases`` are
    the numbers that go on from one to the next."""

    form: tuple[Any, ...]
    bases: Ints


def script_of(lift: Lift, whole: SparsityPattern, cuts: Sequence[Sequence[int]]) -> Script | None:
    """How the values of a lift are a few strided writes; None where they are not.

    ``whole`` is the pattern of the values, ``cuts`` are the segments of each factor's products.
    """
    if lift.pairs is not None:
        pairs = lift.pairs
        added = np.zeros(pairs.starts.size - 1)
        sources = [pairs.first, pairs.second]
        starts, weight = pairs.starts, pairs.weights
    elif len(lift.factors) == 1 and lift.factors[0].solving is None:
        terms = lift.factors[0].terms
        added = np.zeros(terms.starts.size - 1) if terms.template is None else terms.template
        sources, starts, weight = [terms.sources], terms.starts, terms.weight
    else:
        return None
    if whole.is_full:
        return None
    starts = starts.astype(np.int64)
    found = repeats(whole.indptr, starts, sources[0], sources[-1], weight, added)
    if found is None:
        return None
    try:
        return _Maker(found, starts, sources, weight, added, cuts).script()
    except _TooMany:
        return None


class _Maker:
    def __init__(
        self, found: Repeats, starts: Ints, sources: Sequence[Ints], weight: Floats, added: Floats,
        cuts: Sequence[Sequence[int]],
    ) -> None:  # fmt: skip
        self._found, self._starts, self._sources = found, starts, sources
        self._weight, self._added = weight, added
        self._cuts = [[*c] for c in cuts]
        self._terms = 0

    def script(self) -> Script:
        cuts, first, length, kept = self._found
        runs = [self._run(int(r), int(n)) for r, n in zip(first[kept], length[kept], strict=True)]
        writes = [w for group in _groups(runs) for w in self._written(group)]
        alone = np.repeat(~kept, cuts[first + length] - cuts[first])
        entries = np.flatnonzero(alone)
        counts = self._starts[entries + 1] - self._starts[entries]
        long = entries[counts > _LONG]
        if len(writes) + len(long) > _WRITES_AT_MOST:
            raise _TooMany
        writes += [self._summed(int(e)) for e in long]
        if sum(len(w.terms) for w in writes) > _TERMS_AT_MOST:
            raise _TooMany
        return Script(
            self._added.size,
            tuple(writes),
            self._scattered(entries[counts <= _LONG]),
            tuple(map(tuple, self._cuts)),
        )

    def _run(self, row: int, rows: int) -> _Run:
        cuts, starts = self._found.cuts, self._starts
        here, following = (slice(cuts[k], cuts[k + 1]) for k in (row, row + 1))
        mine = slice(starts[here.start], starts[here.stop])
        after = slice(starts[following.start], starts[following.stop])
        self._terms += mine.stop - mine.start
        if self._terms > 16 * _TERMS_AT_MOST:
            raise _TooMany
        read = [s[mine].astype(np.int64) for s in self._sources]
        strides = [s[after].astype(np.int64) - r for s, r in zip(self._sources, read, strict=True)]
        counts = np.diff(starts[here.start : here.stop + 1])
        form = (
            rows, tuple(counts.tolist()), tuple(self._added[here].tolist()),
            tuple(self._weight[mine].tolist()), *(tuple(s.tolist()) for s in strides),
        )  # fmt: skip
        return _Run(form, np.concatenate([[here.start], *read]))

    def _written(self, group: Sequence[_Run]) -> Iterator[Write]:
        rows, counts, added, weights, *strides = group[0].form
        jumps = group[1].bases - group[0].bases if len(group) > 1 else None
        start, *bases = group[0].bases.tolist()
        width, size = len(counts), len(weights)
        lines = (len(group),) if jumps is not None else ()
        far: Any = [()] * (1 + len(bases)) if jumps is None else [(j,) for j in jumps.tolist()]
        ends = np.cumsum((0, *counts))
        shape = (*lines, rows)
        for slot in range(width):
            terms = []
            for k in range(ends[slot], ends[slot + 1]):
                walks = [
                    self._walk(f, bases[f * size + k], (*far[1 + f * size + k], s[k]), shape)
                    for f, s in enumerate(strides)
                ]
                terms.append(Term(weights[k], walks[0], walks[1] if len(walks) > 1 else None))
            yield Write(start + slot, (*far[0], width), shape, added[slot], tuple(terms))

    def _walk(
        self, factor: int, base: int, strides: tuple[int, ...], shape: tuple[int, ...]
    ) -> Walk | None:
        cuts = self._cuts[factor]
        reach = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
        low, high = (base + sum(edge(0, r) for r in reach) for edge in (min, max))
        if base == cuts[-1] and low == high:
            return None
        segment = bisect_right(cuts, low) - 1
        if segment + 1 >= len(cuts) or high >= cuts[segment + 1]:
            raise _TooMany
        walk = Walk(segment, base - cuts[segment], strides)
        if len(shape) > 1 and not _is_a_grid(walk, shape, cuts[segment + 1] - cuts[segment]):
            raise _TooMany
        return walk

    def _summed(self, entry: int) -> Write:
        """One entry that is a long sum, as a few sums over strided parts."""
        mine = slice(self._starts[entry], self._starts[entry + 1])
        weight, read = self._weight[mine], [s[mine].astype(np.int64) for s in self._sources]
        best = min((_parts(weight, read, p) for p in _TAKEN_IN_TURN), key=len)
        if len(best) > _PARTS_AT_MOST:
            raise _TooMany
        terms, lengths = [], []
        for at in best:
            step = [int(s[at[1]] - s[at[0]]) if len(at) > 1 else 0 for s in read]
            walks = [
                self._walk(f, int(s[at[0]]), (d,), (len(at),))
                for f, (s, d) in enumerate(zip(read, step, strict=True))
            ]
            terms.append(Term(float(weight[at[0]]), walks[0], walks[1] if len(walks) > 1 else None))
            lengths.append(len(at))
        return Write(entry, (), (), float(self._added[entry]), tuple(terms), tuple(lengths))

    def _scattered(self, entries: Ints) -> Scattered:
        starts = self._starts[entries]
        counts = self._starts[entries + 1] - starts
        depth = int(counts.max(initial=0))
        nth = np.arange(depth)[:, None]
        there = nth < counts
        term = np.where(there, starts + nth, 0)
        read = [
            np.where(there, s[term] if s.size else 0, 0).astype(np.int64) for s in self._sources
        ]
        weights = np.where(there, self._weight[term] if self._weight.size else 0.0, 0.0)
        return Scattered(entries, read[0], read[-1], weights, self._added[entries])


def _groups(runs: Sequence[_Run]) -> Iterator[Sequence[_Run]]:
    """Runs of one form whose bases go on evenly, as long as they do."""
    at = 0
    while at < len(runs):
        stop = at + 1
        while stop < len(runs) and _follows(runs, at, stop):
            stop += 1
        if stop - at < 3:  # two are always even
            stop = at + 1
        yield runs[at:stop]
        at = stop


def _follows(runs: Sequence[_Run], at: int, stop: int) -> bool:
    if runs[stop].form != runs[at].form:
        return False
    jump = runs[at + 1].bases - runs[at].bases
    return bool((runs[stop].bases - runs[stop - 1].bases == jump).all())


def _is_a_grid(walk: Walk, shape: tuple[int, ...], size: int) -> bool:
    """Whether two strides walk over rows and columns of the segment, cut into equal lines."""
    jump, stride = walk.strides
    if jump < 1 or stride < 0 or size % jump:
        return jump == 0 and stride >= 0
    return bool(walk.base % jump + stride * (shape[1] - 1) < jump)


def _parts(weight: Floats, read: Sequence[Ints], period: int) -> list[Ints]:
    """The terms, every ``period``-th together, cut into parts of one weight and even strides."""
    found: list[Ints] = []
    for r in range(min(period, weight.size)):
        at = np.arange(r, weight.size, period)
        even = np.ones(max(at.size - 1, 0), dtype=bool)
        even &= weight[at[1:]] == weight[at[:-1]]
        bends = np.zeros(max(at.size - 2, 0), dtype=bool)
        for s in read:
            steps = np.diff(s[at])
            bends |= steps[1:] != steps[:-1]
        first = 0
        while first < at.size and len(found) <= _PARTS_AT_MOST:
            last = first + 1
            if last < at.size and even[first]:
                breaks = np.flatnonzero(bends[first:] | ~even[first + 1 :])
                last = first + 2 + (int(breaks[0]) if breaks.size else at.size - first - 2)
            found.append(at[first:last])
            first = last
    return found
