"""Values that repeat from row to row: runs of rows whose every entry sums alike, one place on.

The assembly of a stencil reads, for entry after entry, where its terms stand; in a run all of that
follows from the first row and a stride for each term, and loops over rows are left, which a
processor takes several at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from .kernels import add_up_at

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]

# Rows that are worth a run of their own, and the share of all entries that must be in runs.
_ROWS_AT_LEAST = 16
_SHARE = 0.9
# Rows that may repeat together, as the components of a vector do at every place.
_PERIODS = (1, 2, 3, 4)
# Rows taken at once: their sums stay in a processor's first cache.
_BLOCK = 512
# Rows of more entries are taken entry by entry.
_LONG = 256
# A piece of a run is at most so many entries long, for threads to share.
_PIECE = 2**15


class Rest(NamedTuple):
    entry: Ints
    starts: Ints
    sources: Ints
    weight: Floats
    constant: Floats


@dataclass(eq=False)
class Runs:
    """Run ``k`` writes ``rows[k]`` rows of entries from ``entry[k]`` on. Its slots, one for each
    entry of a row, are ``slots[k]:slots[k + 1]``; slot ``s`` adds to ``constant[s]`` the terms
    ``terms[s]:terms[s + 1]``: ``weight[t] * f[base[t] + stride[t] * row]``.

    ``rest`` are the entries that no run writes, each with as many terms as it has.
    """

    entry: Ints
    rows: Ints
    slots: Ints
    terms: Ints
    base: Ints
    stride: Ints
    weight: Floats
    constant: Floats
    rest: Rest

    def fill(self, first: int, last: int, f: Any, out: Any) -> None:
        """Write the entries of some runs; the first one brings the rest along."""
        if first == 0:
            rest = self.rest
            out[rest.entry] = rest.constant
            add_up_at(rest.entry, rest.starts, rest.sources, None, rest.weight, f, out)
        add_runs(
            first, last, self.entry, self.rows, self.slots, self.terms, self.base, self.stride,
            self.weight, self.constant, f, out,
        )  # fmt: skip


class Repeats(NamedTuple):
    """Row ``r`` has the entries ``cuts[r]:cuts[r + 1]``. Rows ``first[k]`` to ``first[k] +
    length[k]`` repeat, each a stride on; where few do, they are not ``kept``."""

    cuts: Ints
    first: Ints
    length: Ints
    kept: npt.NDArray[np.bool_]


def repeats(
    ptr: Ints, starts: Ints, sources: Ints, seconds: Ints, weight: Floats, added: Floats
) -> Repeats | None:
    """The rows that repeat in ``values[e] = added[e] + sum(weight[k] * f[sources[k]] *
    g[seconds[k]])`` over the terms ``starts[e] <= k < starts[e + 1]``, with the rows that ``ptr``
    cuts entries into; None where too few entries are in rows that do."""
    total = starts.size - 1
    for period in _PERIODS:
        cuts = _cuts(ptr[::period], total)
        first, length = np.empty(cuts.size, np.int64), np.empty(cuts.size, np.int64)
        count = _find(cuts, starts, sources, seconds, weight, added, first, length)
        first, length = first[:count], length[:count]
        kept = length >= _ROWS_AT_LEAST
        written = (cuts[first + length] - cuts[first])[kept].sum()
        if written >= _SHARE * total:
            return Repeats(cuts, first, length, kept)
    return None


def runs_of(
    ptr: Ints, starts: Ints, sources: Ints, weight: Floats, added: Floats, dtype: Any
) -> Runs | None:
    """The runs of ``values[e] = added[e] + sum(weight[k] * f[sources[k]])``, with the rows that
    ``ptr`` cuts entries into; None where too few entries are in runs."""
    starts = starts.astype(np.int64, copy=False)
    found = repeats(ptr, starts, sources, sources, weight, added)
    if found is None:
        return None
    return _described(*found, starts, sources, weight, added, dtype)


def _cuts(ptr: Ints, total: int) -> Ints:
    """Where rows begin, and the end. In a long row, every entry counts as one."""
    ends = np.append(ptr, total).astype(np.int64)
    long = np.flatnonzero(np.diff(ends) > _LONG)
    return np.unique(np.concatenate([ends, *(np.arange(ends[k], ends[k + 1]) for k in long)]))


def _described(
    cuts: Ints, first: Ints, length: Ints, kept: Any, starts: Ints, sources: Ints, weight: Floats,
    added: Floats, dtype: Any,
) -> Runs:  # fmt: skip
    pieces = [
        (int(r), int(r) + at, min(step, int(n) - at))
        for r, n in zip(first[kept], length[kept], strict=True)
        for step in [max(_ROWS_AT_LEAST, _PIECE // max(int(cuts[r + 1] - cuts[r]), 1))]
        for at in range(0, int(n), step)
    ]
    entry = [cuts[row] for _, row, _ in pieces]
    slots, terms, base, stride, factor, constant = [0], [0], [], [], [], []
    for run, row, _ in pieces:
        here, following = (slice(cuts[k], cuts[k + 1]) for k in (run, run + 1))
        slots.append(slots[-1] + here.stop - here.start)
        terms += list(terms[-1] + starts[here.start + 1 : here.stop + 1] - starts[here.start])
        mine = slice(starts[here.start], starts[here.stop])
        step = sources[starts[following.start] : starts[following.stop]] - sources[mine]
        base.append(sources[mine] + step * (row - run))
        stride.append(step)
        factor.append(weight[mine])
        constant.append(added[here])
    short = np.repeat(~kept, cuts[first + length] - cuts[first])
    return Runs(
        np.array(entry, np.int64), np.array([n for _, _, n in pieces], np.int64),
        np.array(slots, np.int64), np.array(terms, np.int64), _joined(base, np.int64),
        _joined(stride, np.int64), _joined(factor, dtype), _joined(constant, dtype),
        _rest(np.flatnonzero(short), starts, sources, weight, added, dtype),
    )  # fmt: skip


def _rest(
    entry: Ints, starts: Ints, sources: Ints, weight: Floats, added: Floats, dtype: Any
) -> Rest:
    counts = starts[entry + 1] - starts[entry]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    terms = np.arange(ends[-1]) + np.repeat(starts[entry] - ends[:-1], counts)
    return Rest(
        entry.astype(np.uint32), ends.astype(np.uint32), sources[terms].astype(np.uint32),
        _joined([weight[terms]], dtype), _joined([added[entry]], dtype),
    )  # fmt: skip


def _joined(parts: Sequence[Any], dtype: Any) -> Any:
    return np.ascontiguousarray(np.concatenate(parts), dtype=dtype)


@numba.njit(cache=True, nogil=True)
def _find(
    cuts: Any, starts: Any, sources: Any, seconds: Any, weight: Any, added: Any, first: Any,
    length: Any,
) -> int:  # fmt: skip
    """Cut the rows into runs, as long as they go, from the first one on."""
    count, r, rows = 0, 0, len(cuts) - 1
    while r < rows:
        n = 1
        while r + n < rows and _goes_on(r, n, cuts, starts, sources, seconds, weight, added):
            n += 1
        first[count], length[count] = r, n
        count += 1
        r += n
    return count


@numba.njit(cache=True, nogil=True)
def _goes_on(
    r: int, n: int, cuts: Any, starts: Any, sources: Any, seconds: Any, weight: Any, added: Any
) -> bool:
    """Whether row ``r + n`` is row ``r``, ``n`` strides on."""
    a, b = cuts[r], cuts[r + n]
    size = cuts[r + 1] - a
    if cuts[r + n + 1] - b != size:
        return False
    for e in range(size):
        s, t = starts[a + e], starts[b + e]
        if starts[a + e + 1] - s != starts[b + e + 1] - t or added[a + e] != added[b + e]:
            return False
        second = starts[cuts[r + 1] + e]
        for k in range(starts[a + e + 1] - s):
            if weight[s + k] != weight[t + k]:
                return False
            if sources[t + k] - sources[s + k] != n * (sources[second + k] - sources[s + k]):
                return False
            if seconds[t + k] - seconds[s + k] != n * (seconds[second + k] - seconds[s + k]):
                return False
    return True


@numba.njit(cache=True, nogil=True)
def add_runs(
    first: int, last: int, entry: Any, rows: Any, slots: Any, terms: Any, base: Any, stride: Any,
    weight: Any, constant: Any, f: Any, out: Any,
) -> None:  # fmt: skip
    sums = np.empty(_BLOCK)  # in double precision: a long sum in float32 would lose digits
    for k in range(first, last):
        width = slots[k + 1] - slots[k]
        for r in range(0, rows[k], _BLOCK):
            size = min(_BLOCK, rows[k] - r)
            for s in range(slots[k], slots[k + 1]):
                start = entry[k] + r * width + s - slots[k]
                written = out[start : start + (size - 1) * width + 1 : width]
                t, end = terms[s], terms[s + 1]
                here = sums[:size]
                here[:] = constant[s]
                while t + 1 < end and stride[t] == 1 and stride[t + 1] == 1:
                    w, v = weight[t], weight[t + 1]
                    one = f[base[t] + r : base[t] + r + size]
                    other = f[base[t + 1] + r : base[t + 1] + r + size]
                    if t + 2 == end:
                        for i in range(size):
                            written[i] = here[i] + (w * one[i] + v * other[i])
                    else:
                        for i in range(size):
                            here[i] += w * one[i] + v * other[i]
                    t += 2
                if t + 1 == end and stride[t] == 1:
                    w, one = weight[t], f[base[t] + r : base[t] + r + size]
                    for i in range(size):
                        written[i] = here[i] + w * one[i]
                    continue
                if t == end and t > terms[s]:
                    continue
                for q in range(t, end):
                    w, at = weight[q], base[q] + stride[q] * r
                    for i in range(size):
                        here[i] += w * f[at + stride[q] * i]
                for i in range(size):
                    written[i] = here[i]
