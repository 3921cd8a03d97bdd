"""A pass asked for its answers to a basis of cotangents, and the answers put to the proof.

They are believed only if they add up to what the record saw, and to what one more pass with a
cotangent of many magnitudes gives: a backward that is not linear, or a tensor that has changed
since, shows there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bounds import Bounds
from .events import Cotangent, PassData
from .looks import run_looks
from .outcome import Job
from .quantities import Place, Quantities, entries_of, places, quantities_of, size_of
from .record import BackwardRecord
from .responses import Responses, Rows, SparseRow, Vector, rows_of, sparse_row
from .structure import Known, jacobian_values

# Cotangents of a basis times the nodes that each of them passes, some 50 us each, and times the
# entries, some 5 ns each: a page is written within a few seconds.
_VISITS = 20_000
_ENTRIES = 1 << 29
_ELEMENTS = 4096
_ROWS = 64
ENTRY_BYTES = 12


class GoneError(Exception):
    """The graph cannot be asked; the text says why."""


class _TooLarge(Exception):  # noqa: N818
    """More bytes than the page may hold."""


class _Basis(NamedTuple):
    """``vectors`` is None for the unit vectors."""

    kind: Literal["elements", "chosen"]
    names: tuple[str, ...]
    vectors: Sequence[Vector] | None
    size: int


def answers(job: Job, record: BackwardRecord, budget: int, known: Known | None) -> Responses:
    """As much as ``budget`` bytes hold: every quantity for every output element, or the deposits
    alone, or every quantity for a few cotangents."""
    elements = sum(tensor.numel() for tensor in job.out.tensors)
    if elements <= _ELEMENTS and _affordable(record, elements):
        try:
            return _by_looks(job, record, _Basis("elements", (), None, elements), budget)
        except _TooLarge:
            pass
    if known is not None and known.plan.pattern.nnz * ENTRY_BYTES <= budget:
        of = _deposits_alone(job, record, known)
        reason = "what passes between would not fit, so the page follows v at the leaves only"
        return Responses("elements", of=of, reason=reason)
    few = _chosen(job, record)
    try:
        found = _by_looks(job, record, few, budget)
    except _TooLarge:
        raise GoneError(f"the answers would take more than {budget:,} bytes") from None
    reason = f"{elements:,} output elements are too many for one cotangent each"
    return Responses(found.kind, found.names, found.vectors, found.of, reason=reason)


def _affordable(record: BackwardRecord, looks: int) -> bool:
    entries = quantities_of(record).entries
    return looks * max(1, len(record.nodes)) <= _VISITS and looks * entries <= _ENTRIES


def flat(cotangent: Cotangent) -> Vector:
    assert cotangent.values is not None
    return array(cotangent.values)


def array(tensor: Tensor) -> Vector:
    values: Vector = entries_of(tensor).double().numpy()
    return values


def same_course(record: BackwardRecord, seen: BackwardRecord) -> bool:
    """Whether two passes ran the same nodes in the same order and sent along the same edges."""
    return [n.name for n in record.nodes] == [n.name for n in seen.nodes] and [
        place for place, _ in places(record) if place.kind != "deposit"
    ] == [place for place, _ in places(seen) if place.kind != "deposit"]


def passed(record: BackwardRecord, known: Quantities, seen: BackwardRecord) -> dict[int, Vector]:
    """The quantities of ``seen``, a look at the graph of ``record``, by their numbers in
    ``known``, which are those of ``record``.

    Raises:
        GoneError: the look took another course.
    """
    if not same_course(record, seen):
        raise GoneError("the graph is another one than was recorded")
    now = dict(places(seen))
    return {number: flat(now[place]) for number, place in enumerate(known.first)}


def _by_looks(job: Job, record: BackwardRecord, basis: _Basis, budget: int) -> Responses:
    known = quantities_of(record)
    parts: dict[int, list[SparseRow]] = {
        # A page shows the moduli of what is complex, and they do not add up.
        number: []
        for number, item in enumerate(known.items)
        if "complex" not in item.dtype
    }
    held = looks = 0

    def take(seen: BackwardRecord) -> None:
        nonlocal held, looks
        looks += 1
        now = passed(record, known, seen)
        for number, rows in parts.items():
            found = now[number]
            if not np.isfinite(found).all():
                raise GoneError("a local derivative is not finite here, and 0 times it is not 0")
            rows.append(sparse_row(found))
            held += ENTRY_BYTES * len(rows[-1].indices)
        if held > budget and looks <= basis.size:
            raise _TooLarge

    weights = _trial_weights(basis.size)
    run_looks(job, _cotangents(job, basis, weights), take)
    widths = [size_of(item) for item in known.items]
    trial = {number: rows.pop().dense(widths[number]) for number, rows in parts.items()}
    of = {
        number: rows_of(rows, _stored(known.items[number]), widths[number])
        for number, rows in parts.items()
    }
    bounds = Bounds(record, known)
    _add_up(of, weights, trial, bounds)
    _gives_back(known, of, _recorded_weights(record, basis), bounds)
    vectors = None
    if basis.vectors is not None:
        width = sum(tensor.numel() for tensor in job.out.tensors)
        vectors = rows_of([sparse_row(v) for v in basis.vectors], np.float64, width)
    return Responses(basis.kind, basis.names, vectors, of)


def _trial_weights(size: int) -> Vector:
    """Of both signs and many magnitudes: clipping and clamping are not linear there."""
    numbers = np.random.default_rng(0)
    weights: Vector = numbers.choice((-1.0, 1.0), size) * 10 ** numbers.uniform(-2, 2, size)
    return weights


def _cotangents(job: Job, basis: _Basis, trial: Vector) -> Iterator[tuple[Tensor, ...]]:
    """Those of the basis, and their combination with the weights ``trial``."""
    sizes = [tensor.numel() for tensor in job.out.tensors]
    width = sum(sizes)
    for k in range(basis.size + 1):
        if basis.vectors is not None:
            pick = np.eye(1, basis.size, k)[0] if k < basis.size else trial
            entries = pick @ np.stack(basis.vectors)
        else:
            entries = np.eye(1, width, k)[0] if k < basis.size else trial
        parts = torch.from_numpy(entries).split(sizes)
        yield tuple(
            part.reshape(like.shape).to(like)
            for part, like in zip(parts, job.out.tensors, strict=True)
        )


def _chosen(job: Job, record: BackwardRecord) -> _Basis:
    """The recorded cotangent, row by row where the outputs have few rows."""
    recorded = _recorded(record)
    rows = [len(t) if t.ndim > 1 else 1 for t in job.out.tensors]
    if sum(rows) > _ROWS or not _affordable(record, sum(rows)):
        rows = [1 for _ in rows]
    names: list[str] = []
    vectors: list[Vector] = []
    start = 0
    for name, tensor, count in zip(job.out.names, job.out.tensors, rows, strict=True):
        each = tensor.numel() // max(count, 1)
        for k in range(count):
            vector = np.zeros_like(recorded)
            part = slice(start, start + each)
            vector[part] = recorded[part] if recorded[part].any() else 1
            names.append(f"{name}[{k}]" if count > 1 else name)
            vectors.append(vector)
            start += each
    return _Basis("chosen", tuple(names), vectors, len(vectors))


def _recorded(record: PassData) -> Vector:
    values = [output.cotangent.values for output in record.outputs]
    if any(value is None for value in values):
        raise GoneError("the cotangent was too large to be kept: record with keep='tensors'")
    return np.concatenate([array(value) for value in values if value is not None])


def _recorded_weights(record: PassData, basis: _Basis) -> Vector:
    recorded = _recorded(record)
    if basis.vectors is None:
        return recorded
    return np.array([float(recorded[vector != 0].any()) for vector in basis.vectors])


def _gives_back(known: Quantities, of: dict[int, Rows], weights: Vector, bounds: Bounds) -> None:
    """The answers, so weighed, must add up to what was recorded."""
    values = [item.values for item in known.items]
    kept = {number: array(tensor) for number, tensor in enumerate(values) if tensor is not None}
    _add_up(of, weights, kept, bounds)


def _add_up(
    of: dict[int, Rows], weights: Vector, expected: dict[int, Vector], bounds: Bounds
) -> None:
    for number in of.keys() & expected.keys():
        rows = of[number]
        size = rows.combined(weights, magnitude=True).max(initial=0.0)
        gap = np.abs(rows.combined(weights) - expected[number]).max(initial=0.0)
        if not gap <= bounds.of(number, size, expected):
            raise GoneError(
                "the answers to single cotangents do not add up to the pass: the backward is not "
                "linear in its cotangent, or a tensor has changed since it was recorded"
            )


def _stored(cotangent: Cotangent) -> type[np.floating]:
    return np.float64 if cotangent.dtype == "float64" else np.float32


def _deposits_alone(job: Job, record: BackwardRecord, known: Known) -> dict[int, Rows]:
    """The deposits for every output element: the columns of the Jacobian, leaf by leaf."""
    values = jacobian_values(known)
    if not np.isfinite(values).all():
        raise GoneError("a local derivative is not finite here, and 0 times it is not 0")
    quantities = quantities_of(record)
    pattern = known.plan.pattern
    rows, columns = pattern.rows.numpy(), pattern.cols.numpy()
    keys = [leaf.key for leaf in record.leaves]
    of: dict[int, Rows] = {}
    first = 0
    for target in (t for t in job.targets.items if t.port is not None):
        size = target.tensor.numel()
        place = Place("deposit", keys.index(target.key), 0)
        inside = (columns >= first) & (columns < first + size)
        if place in quantities.number_at:
            number = quantities.number_at[place]
            counts = np.bincount(rows[inside], minlength=pattern.shape[0])
            starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            stored = values[inside].astype(_stored(quantities.items[number]))
            of[number] = Rows(starts, (columns[inside] - first).astype(np.int32), stored, size)
        first += size
    bounds = Bounds(record, quantities)
    _gives_back(quantities, of, _recorded(record), bounds)
    weights = _trial_weights(pattern.shape[0])
    trial: dict[int, Vector] = {}

    def take(seen: BackwardRecord) -> None:
        trial.update(passed(record, quantities, seen))

    run_looks(job, _cotangents(job, _Basis("elements", (), None, 0), weights), take)
    _add_up(of, weights, trial, bounds)
    return of
