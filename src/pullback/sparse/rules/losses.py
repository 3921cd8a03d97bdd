"""Gradients of losses, of embeddings and of other operators that work on whole items of a batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import fx

from ..dependence import Dependence, grouped
from .base import Declined, Result, Step, numbers, rule
from .reduction import merged, mixed_along


def _over_classes(step: Step, dim: int) -> Dependence:
    """One number for each item (or for all items): every class of the item depends on it."""
    _, dep = step.only("grad_output")
    shape = step.out.shape
    if len(dep.shape) == len(shape) - 1:
        return dep.with_ids(np.expand_dims(dep.grid, dim)).broadcast(shape)
    if dep.numel == 1:
        return dep.broadcast_all(shape)
    raise Declined("its cotangent has neither an entry for each item nor one for all")


@rule("multi_margin_loss_backward multilabel_margin_loss_backward", "grad_output")
def _margins(step: Step) -> Result:
    return _over_classes(step, 1 if len(step.out.shape) > 1 else 0)


@rule("nll_loss_backward nll_loss2d_backward", "grad_output")
def _nll(step: Step) -> Result:
    shape = step.out.shape
    dim = 1 if len(shape) > 1 else 0
    found = _over_classes(step, dim)
    target = step.data("target")
    if target is None:
        return found
    classes = np.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
    labels = target.cpu().numpy().reshape([s for d, s in enumerate(shape) if d != dim])
    labels = np.where(labels == step["ignore_index"], -1, labels)
    return found.where(classes == np.expand_dims(labels, dim))


@rule("_ctc_loss_backward", "grad")
def _ctc(step: Step) -> Result:
    _, dep = step.only("grad")
    shape = step.out.shape
    if len(shape) != 3 or dep.shape != shape[1:2]:
        raise Declined("its cotangent has no entry for each item")
    return dep.with_ids(dep.grid[None, :, None]).broadcast(shape)


@rule("glu_backward", "grad_output")
def _glu(step: Step) -> Result:
    _, dep = step.only("grad_output")
    return dep.with_ids(np.concatenate([dep.grid, dep.grid], axis=step["dim"]))


@rule("_segment_reduce_backward", "grad")
def _segments(step: Step) -> Result:
    _, dep = step.only("grad")
    axis = step["axis"] % len(step.out.shape)
    length = step.out.shape[axis]
    edges = _edges(step)
    if edges is None or edges.shape != (*dep.shape[:axis], dep.shape[axis] + 1):
        return mixed_along(dep, axis, length)
    places = np.arange(length)
    owner = [
        np.searchsorted(line, places, side="right") - 1
        for line in edges.reshape(-1, edges.shape[-1])
    ]
    segments = dep.shape[axis]
    rows = np.array(owner, dtype=np.int64).reshape(-1, length)
    lines = dep.ids.reshape(rows.shape[0], segments, -1)
    ids = np.take_along_axis(lines, rows.clip(0, segments - 1)[..., None], axis=1)
    ids = np.where(((rows >= 0) & (rows < segments))[..., None], ids, ids.dtype.type(0))
    return dep.with_ids(ids.reshape(step.out.shape))


def _edges(step: Step) -> npt.NDArray[np.int64] | None:
    """Where each segment begins, and the last one ends, along the last dim."""
    if isinstance(step.get("offsets"), fx.Node):
        offsets = step.data("offsets")
        return None if offsets is None else offsets.cpu().numpy()
    lengths = step.data("lengths")
    if lengths is None:
        return None
    ends = lengths.cpu().numpy().cumsum(axis=-1)
    return np.concatenate([np.zeros_like(ends[..., :1]), ends], axis=-1)


@rule("embedding_dense_backward", "grad_output")
def _embedding(step: Step) -> Result:
    _, dep = step.only("grad_output")
    rows, width = step.out.shape
    found = dep.with_ids(dep.ids.reshape(-1, width))
    indices = step.data("indices")
    if indices is None:
        table = mixed_along(found, 0, rows)
    else:
        places = numbers((rows, width))[indices.cpu().reshape(-1).numpy()]
        table = grouped([(found, places)], (rows, width))
    return _without(table, step["padding_idx"])


def _without(table: Dependence, row: int) -> Dependence:
    """The row of the padding gets no gradient. No row is -1."""
    return table.where(np.arange(table.shape[0])[:, None] != row)


@rule("_embedding_bag_backward _embedding_bag_dense_backward", "grad")
def _embedding_bag(step: Step) -> Result:
    _, dep = step.only("grad")
    shape = step.out.shape
    indices, bags = step.data("indices"), _bags(step, dep.shape[0])
    if indices is None or bags is None:
        table = mixed_along(dep, 0, shape[0])
    else:
        places = numbers(shape)[indices.cpu().numpy()]
        table = grouped([(dep.with_ids(dep.grid[bags]), places)], shape)
    return _without(table, step.get("padding_idx", -1))


@rule("_embedding_bag_per_sample_weights_backward", "grad")
def _bag_weights(step: Step) -> Result:
    _, dep = step.only("grad")
    bags = _bags(step, dep.shape[0])
    if bags is None:
        return merged(dep, range(len(dep.shape))).broadcast_all(step.out.shape)
    rows = merged(dep, [1])
    return rows.with_ids(rows.ids[bags].reshape(step.out.shape))


def _bags(step: Step, count: int) -> npt.NDArray[np.int64] | None:
    """The bag of each index, where the bags are fixed."""
    offsets = step.data("offsets")
    if offsets is None:
        return None
    places = np.arange(step.meta("indices").numel)
    bags = np.searchsorted(offsets.cpu().numpy(), places, side="right") - 1
    return bags if ((bags >= 0) & (bags < count)).all() else None
