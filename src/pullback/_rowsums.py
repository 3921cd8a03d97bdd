"""J 1, the row sums of a Jacobian, from tensors that already have a graph.

By double VJP where the backward pass can be differentiated: v -> v . J 1 is linear, so its own
gradient is J 1. That is believed only if it gives the totals that were computed directly, for the
user's cotangents and for one with random weights everywhere; otherwise J goes by row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import Leaves
from ._engines import batched_gradients, chunks, gradients
from ._trees import from_vector, to_vector

Cotangents = Sequence[tuple[Tensor, ...]]
_HALVES = (torch.float16, torch.bfloat16)


class Weighing(NamedTuple):
    """What is weighed: outputs, inputs, and how products may be batched."""

    out: Leaves
    inputs: list[Tensor]
    chunk_size: int | None
    order: Sequence[str] | None = None


def products_of(
    job: Weighing, cotangents: Cotangents
) -> tuple[list[list[Tensor]], str, tuple[str, ...]]:
    """The gradients at each input for each cotangent, the engine, and why not a faster one."""
    stacked = [torch.stack([v[k] for v in cotangents]) for k in range(len(job.out.tensors))]
    batch = batched_gradients(job.out.tensors, job.inputs, stacked, job.chunk_size, order=job.order)
    dense = [_dense(g.detach()) for g in batch.gradients]
    return [[g[k] for g in dense] for k in range(len(cotangents))], batch.engine, batch.reasons


def _dense(tensor: Tensor) -> Tensor:
    return tensor.to_dense() if tensor.layout is not torch.strided else tensor


def total(found: Sequence[Tensor]) -> float:
    return sum(float(gradient.double().sum()) for gradient in found)


def rounding_of(tensors: Sequence[Tensor]) -> float:
    """The unit of rounding of the coarsest dtype."""
    return max(torch.finfo(tensor.dtype).eps for tensor in tensors)


def row_sums_of(
    job: Weighing, cotangents: Cotangents, found: list[list[Tensor]]
) -> tuple[Tensor, str, tuple[str, ...]]:
    """J 1 in float64, one entry per output element; the way taken; what is to be said of it.

    ``found`` are the gradients for ``cotangents``, the last of which has weight everywhere.
    """
    reason = ""
    tensors = [*job.out.tensors, *job.inputs]
    if any(tensor.dtype in _HALVES for tensor in tensors):
        reason = "its sums would round in half precision"
    else:
        try:
            sums = _by_double_vjp(job)
            if _agree(job, sums, cotangents, found):
                return sums, "J 1 by double VJP", ()
            reason = "it does not give the totals that were computed directly"
        except (
            Exception
        ) as error:  # a backward that cannot be differentiated refuses in its own way
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
    sums = _row_by_row(job)
    notes = [f"J 1 was computed row by row and not by double VJP: {reason}"]
    if not _agree(job, sums, cotangents, found):
        notes.append(
            "The totals differ from v . (J 1): this backward pass is not a fixed linear map of its "
            "cotangent (a hook or a custom backward that clips, normalizes or draws), so gradients "
            "for one cotangent say nothing about another."
        )
    return sums, "J 1 row by row", tuple(notes)


def _by_double_vjp(job: Weighing) -> Tensor:
    with torch.enable_grad():
        weights = [torch.zeros_like(t, requires_grad=True) for t in job.out.tensors]
        found = gradients(job.out.tensors, job.inputs, weights, create_graph=True)
        reached = [g for g in found if g is not None and g.requires_grad]
        sums: Sequence[Tensor | None] = [None] * len(weights)
        if reached:
            sums = gradients(reached, weights, [torch.ones_like(_dense(g)) for g in reached])
    return to_vector(
        [
            (torch.zeros_like(w) if s is None else s).detach().double().cpu()
            for s, w in zip(sums, weights, strict=True)
        ]
    )


def _row_by_row(job: Weighing) -> Tensor:
    outputs = job.out.tensors
    count = sum(t.numel() for t in outputs)
    each = sum(t.numel() * t.element_size() for t in [*outputs, *job.inputs])
    pieces = [torch.zeros(0, dtype=torch.float64, device="cpu")]
    for start, stop in chunks(count, job.chunk_size, each):
        rows = torch.zeros(stop - start, count, dtype=torch.float64, device="cpu")
        rows[torch.arange(stop - start), torch.arange(start, stop)] = 1
        batch = [
            piece.to(t.device, t.dtype)
            for piece, t in zip(from_vector(rows, outputs), outputs, strict=True)
        ]
        found = batched_gradients(
            outputs, job.inputs, batch, job.chunk_size, order=job.order
        ).gradients
        sums = [_dense(g).double().reshape(len(rows), -1).sum(dim=1).cpu() for g in found]
        pieces.append(torch.stack(sums).sum(dim=0))
    return torch.cat(pieces)


def _agree(job: Weighing, sums: Tensor, cotangents: Cotangents, found: list[list[Tensor]]) -> bool:
    """Whether v . (J 1) is the total for every cotangent, to rounding.

    Entries of v . J may cancel to almost nothing (softmax), so rounding is measured against what a
    unit of weight brings about in general: the gradient of the last, dense, cotangent.
    """
    loose = 32 if any(t.dtype in _HALVES for t in [*job.out.tensors, *job.inputs]) else 256
    unit = rounding_of([*job.out.tensors, *job.inputs])
    per_weight = _size(found[-1]) / max(_size(cotangents[-1]), 1e-300)
    for values, gradient in zip(cotangents, found, strict=True):
        expected = float(to_vector([v.double().cpu() for v in values]) @ sums)
        direct = total(gradient)
        scale = _size(gradient) + per_weight * _size(values)
        near = abs(expected - direct) <= loose * unit * scale + 1e-300
        if math.isfinite(direct) and not near:  # an expected nan or inf is not near either
            return False
    return True


def _size(tensors: Sequence[Tensor]) -> float:
    return sum(float(tensor.double().abs().sum()) for tensor in tensors)
