"""Compiled loops over sparse rows with weights."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Codes: TypeAlias = "Ints | None"


@njit(cache=True, nogil=True)
def row_sizes(ids: Ints, indptr: Ints) -> Ints:
    """Where each element's row starts once all rows stand one after the other."""
    out = np.zeros(ids.size + 1, dtype=np.int64)
    for e in range(ids.size):
        out[e + 1] = out[e] + indptr[ids[e] + 1] - indptr[ids[e]]
    return out


@njit(cache=True, nogil=True)
def spread_rows(
    ids: Ints, indptr: Ints, indices: Ints, weights: Floats, factors: Floats, scale: float,
    out: Ints, filled: Ints, weighed: Floats,
) -> None:  # fmt: skip
    """The rows ``ids``, times ``scale`` and a factor each (one for all, where it has one entry)."""
    single = factors.size == 1
    for e in range(ids.size):
        factor = scale * (factors[0] if single else factors[e])
        at = out[e]
        for k in range(indptr[ids[e]], indptr[ids[e] + 1]):
            filled[at] = indices[k]
            weighed[at] = factor * weights[k]
            at += 1


@njit(cache=True, nogil=True)
def added_rows(
    ids: Ints, indptr: Ints, indices: Ints, weights: Floats, scale: float,
    other: Ints, other_indptr: Ints, other_indices: Ints, other_weights: Floats,
    other_scale: float, out: Ints, filled: Ints, weighed: Floats,
) -> None:  # fmt: skip
    """Element by element the sum of two rows whose indices ascend. ``out`` starts all zero."""
    at = 0
    for e in range(ids.size):
        i, end = indptr[ids[e]], indptr[ids[e] + 1]
        j, stop = other_indptr[other[e]], other_indptr[other[e] + 1]
        while i < end or j < stop:
            if j >= stop or (i < end and indices[i] < other_indices[j]):
                filled[at] = indices[i]
                weighed[at] = scale * weights[i]
                i += 1
            elif i >= end or other_indices[j] < indices[i]:
                filled[at] = other_indices[j]
                weighed[at] = other_scale * other_weights[j]
                j += 1
            else:
                filled[at] = indices[i]
                weighed[at] = scale * weights[i] + other_scale * other_weights[j]
                i += 1
                j += 1
            at += 1
        out[e + 1] = at


@njit(cache=True, nogil=True)
def number_of_terms(into: Ints, out_of: Ints, ptr: Ints, indices: Ints) -> int:
    """The sum of ``into[i] * out_of[j]`` over the entries (i, j) of a CSR pattern."""
    total = 0
    for i in range(ptr.size - 1):
        here = 0
        for e in range(ptr[i], ptr[i + 1]):
            here += out_of[indices[e]]
        total += here * into[i]
    return total


@njit(cache=True, nogil=True)
def number_distinct(column: Ints, codes: Ints, table: Ints) -> int:
    """``table[codes[k]] == column[k]``: the different numbers in the order of first meeting.

    Returns how many there are, or -1 where ``table`` does not hold them.
    """
    size = 2 * 65_536
    slots = np.full(size, -1, np.int64)
    count, last = 0, -1
    for k in range(column.size):
        here = column[k]
        if last < 0 or table[last] != here:
            mixed = np.uint64(here) * np.uint64(0x9E3779B97F4A7C15)
            slot = np.int64((mixed >> np.uint64(32)) & np.uint64(size - 1))
            while slots[slot] >= 0 and table[slots[slot]] != here:
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                if count == table.size:
                    return -1
                slots[slot] = count
                table[count] = here
                count += 1
            last = slots[slot]
        codes[k] = last
    return count


@njit(cache=True, nogil=True)
def count_terms(
    left_ptr: Ints, left: Ints, mid_ptr: Ints, mid: Ints, right_ptr: Ints, right: Ints,
    ptr: Ints, cols: Ints, width: int, counts: Ints,
) -> None:  # fmt: skip
    """How many products ``left * mid * right`` fall on each entry of a CSR pattern."""
    place = np.full(width, -1, dtype=np.int64)
    for i in range(ptr.size - 1):
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = e
        for p in range(left_ptr[i], left_ptr[i + 1]):
            b = left[p]
            for q in range(mid_ptr[b], mid_ptr[b + 1]):
                a = mid[q]
                for r in range(right_ptr[a], right_ptr[a + 1]):
                    e = place[right[r]]
                    if e >= 0:
                        counts[e + 1] += 1
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = -1


@njit(cache=True, nogil=True)
def fill_terms(
    left_ptr: Ints, left: Ints, left_weights: Floats, mid_ptr: Ints, mid: Ints, source: Ints,
    right_ptr: Ints, right: Ints, right_weights: Floats, ptr: Ints, cols: Ints, width: int,
    starts: Ints, sources: Ints, weights: Floats,
) -> None:  # fmt: skip
    """The products of ``count_terms``: for every entry, what it reads and with which weight.

    ``starts`` holds where each entry's run begins, and is left holding where it ends.
    """
    place = np.full(width, -1, dtype=np.int64)
    for i in range(ptr.size - 1):
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = e
        for p in range(left_ptr[i], left_ptr[i + 1]):
            b = left[p]
            for q in range(mid_ptr[b], mid_ptr[b + 1]):
                a = mid[q]
                for r in range(right_ptr[a], right_ptr[a + 1]):
                    e = place[right[r]]
                    if e >= 0:
                        sources[starts[e]] = source[q]
                        weights[starts[e]] = left_weights[p] * right_weights[r]
                        starts[e] += 1
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = -1


@njit(cache=True, nogil=True)
def merge_equal_terms(ptr: Ints, sources: Ints, weights: Floats) -> int:
    """Add up, in place, the weights of terms of one entry that read the same; how many are left.

    Those that cancel exactly are dropped. ``ptr`` is rewritten.
    """
    at = 0
    begin = ptr[0]
    largest, longest = -1, 0
    for e in range(ptr.size - 1):
        longest = max(longest, ptr[e + 1] - ptr[e])
    if longest > 1:
        for k in range(ptr[-1]):
            largest = max(largest, sources[k])
    place = np.full(largest + 1, -1, dtype=np.int64)
    for e in range(ptr.size - 1):
        end = ptr[e + 1]
        first = at
        if longest <= 1:
            if begin < end and weights[begin] != 0:
                sources[at] = sources[begin]
                weights[at] = weights[begin]
                at += 1
            begin = end
            ptr[e + 1] = at
            continue
        for k in range(begin, end):
            j = place[sources[k]]
            if j >= 0:
                weights[j] += weights[k]
            else:
                place[sources[k]] = at
                sources[at] = sources[k]
                weights[at] = weights[k]
                at += 1
        kept = first
        for j in range(first, at):
            place[sources[j]] = -1
            if weights[j] != 0:
                sources[kept] = sources[j]
                weights[kept] = weights[j]
                kept += 1
        at = kept
        begin = end
        ptr[e + 1] = at
    return at


@njit(cache=True, nogil=True)
def dense_entries(
    indptr: Ints, indices: Ints, weights: Floats, ptr: Ints, cols: Ints, width: int, out: Floats
) -> int:
    """Add a CSR matrix to the values of a CSR pattern of the same rows; how many fall outside."""
    place = np.full(width, -1, dtype=np.int64)
    lost = 0
    for i in range(ptr.size - 1):
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = e
        for k in range(indptr[i], indptr[i + 1]):
            e = place[indices[k]]
            if e >= 0:
                out[e] += weights[k]
            elif weights[k] != 0:
                lost += 1
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = -1
    return lost


@njit(cache=True, nogil=True)
def multiply_rows(
    first: int, last: int, a_ptr: Ints, a: Ints, a_values: Floats, b_ptr: Ints, b: Ints,
    b_values: Floats, ptr: Ints, cols: Ints, width: int, out: Floats,
) -> None:  # fmt: skip
    """The values of some rows of a product of two CSR matrices, in a pattern that holds it all."""
    sums = np.zeros(width)
    for i in range(first, last):
        for p in range(a_ptr[i], a_ptr[i + 1]):
            factor = a_values[p]
            for q in range(b_ptr[a[p]], b_ptr[a[p] + 1]):
                sums[b[q]] += factor * b_values[q]
        for e in range(ptr[i], ptr[i + 1]):
            out[e] = sums[cols[e]]
            sums[cols[e]] = 0


# The loops below run at every call. Their index arrays are unsigned (a signed index may be counted
# from the end, and every read would have to ask), and they start at 0: callers cut the arrays.
# Weights are read by their codes; without codes, in order. Which of both is compiled, not asked.


@njit(cache=True, nogil=True)
def gather(sources: Ints, flat: Floats, out: Floats) -> None:
    for e in range(out.size):
        out[e] = flat[sources[e]]


@njit(cache=True, nogil=True)
def pick(
    sources: Ints, codes: Codes, weights: Floats, added: Floats, flat: Floats, out: Floats
) -> None:
    """One weighed entry of ``flat`` each; the code of an entry says which weight, and what is
    added."""
    for e in range(out.size):
        if codes is None:
            out[e] = added[e] + weights[e] * flat[sources[e]]
        else:
            code = codes[e]
            out[e] = added[code] + weights[code] * flat[sources[e]]


@njit(cache=True, nogil=True)
def pick_at(
    places: Ints, sources: Ints, codes: Codes, weights: Floats, added: Floats, flat: Floats,
    out: Floats,
) -> None:  # fmt: skip
    """``pick`` for some places of ``out``."""
    for r in range(places.size):
        if codes is None:
            out[places[r]] = added[r] + weights[r] * flat[sources[r]]
        else:
            code = codes[r]
            out[places[r]] = added[code] + weights[code] * flat[sources[r]]


@njit(cache=True, nogil=True)
def add_up(
    starts: Ints, sources: Ints, codes: Codes, weights: Floats, flat: Floats, out: Floats
) -> None:
    for e in range(out.size):
        total = 0.0  # in double precision: a long sum in float32 would lose digits
        for k in range(starts[e], starts[e + 1]):
            if codes is None:
                total += weights[k] * flat[sources[k]]
            else:
                total += weights[codes[k]] * flat[sources[k]]
        out[e] = total


@njit(cache=True, nogil=True)
def add_up_at(
    places: Ints, starts: Ints, sources: Ints, codes: Codes, weights: Floats, flat: Floats,
    out: Floats,
) -> None:  # fmt: skip
    """``add_up`` onto what stands at some places of ``out``."""
    for r in range(places.size):
        total = np.float64(out[places[r]])
        for k in range(starts[r], starts[r + 1]):
            if codes is None:
                total += weights[k] * flat[sources[k]]
            else:
                total += weights[codes[k]] * flat[sources[k]]
        out[places[r]] = total


@njit(cache=True, nogil=True)
def add_products(
    starts: Ints, first: Ints, second: Ints, codes: Codes, weights: Floats, left: Floats,
    right: Floats, out: Floats,
) -> None:  # fmt: skip
    """Runs of weighed products of an entry of ``left`` and one of ``right``."""
    for e in range(out.size):
        total = 0.0
        for k in range(starts[e], starts[e + 1]):
            if codes is None:
                total += weights[k] * left[first[k]] * right[second[k]]
            else:
                total += weights[codes[k]] * left[first[k]] * right[second[k]]
        out[e] = total


@njit(cache=True, nogil=True)
def count_pairs(
    a_ptr: Ints, a: Ints, a_starts: Ints, b_ptr: Ints, b: Ints, b_starts: Ints,
    ptr: Ints, cols: Ints, width: int, counts: Ints,
) -> None:  # fmt: skip
    """How many products of a term of the first factor and one of the second each entry adds up.

    The terms of the entries of each factor are given by where their runs start.
    """
    place = np.full(width, -1, dtype=np.int64)
    for i in range(ptr.size - 1):
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = e
        for p in range(a_ptr[i], a_ptr[i + 1]):
            terms = a_starts[p + 1] - a_starts[p]
            for q in range(b_ptr[a[p]], b_ptr[a[p] + 1]):
                e = place[b[q]]
                if e >= 0:
                    counts[e + 1] += terms * (b_starts[q + 1] - b_starts[q])
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = -1


@njit(cache=True, nogil=True)
def fill_pairs(
    a_ptr: Ints, a: Ints, a_starts: Ints, a_sources: Ints, a_weights: Floats, b_ptr: Ints,
    b: Ints, b_starts: Ints, b_sources: Ints, b_weights: Floats, ptr: Ints, cols: Ints,
    width: int, starts: Ints, first: Ints, second: Ints, weights: Floats,
) -> None:  # fmt: skip
    """The products of ``count_pairs``; ``starts`` is left holding where each run ends."""
    place = np.full(width, -1, dtype=np.int64)
    for i in range(ptr.size - 1):
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = e
        for p in range(a_ptr[i], a_ptr[i + 1]):
            for q in range(b_ptr[a[p]], b_ptr[a[p] + 1]):
                e = place[b[q]]
                if e < 0:
                    continue
                for k in range(a_starts[p], a_starts[p + 1]):
                    for m in range(b_starts[q], b_starts[q + 1]):
                        first[starts[e]] = a_sources[k]
                        second[starts[e]] = b_sources[m]
                        weights[starts[e]] = a_weights[k] * b_weights[m]
                        starts[e] += 1
        for e in range(ptr[i], ptr[i + 1]):
            place[cols[e]] = -1
