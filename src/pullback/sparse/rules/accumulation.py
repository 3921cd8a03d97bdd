"""Writes at places that an index tensor names, added up or not.

Where two writes that are not added meet, either may win: the place depends on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..dependence import Dependence, grouped, union
from .base import Declined, Result, Step, blockwise, numbers, rule
from .indexing import Indexed, at_least_1d, corner, is_followed, masked_places, reshaped
from .movement import is_dense
from .reduction import merged, mixed_along

Places = npt.NDArray[np.int64]


def written(
    base: Dependence | None,
    source: Dependence | None,
    places: Places,
    shape: tuple[int, ...],
    like: Dependence,
    *,
    added: bool,
) -> Dependence:
    """``source`` written to (or added at) numbered ``places`` of a tensor that was ``base``."""
    parts: list[tuple[Dependence, Places]] = []
    if base is not None:
        own = numbers(shape).reshape(-1)
        if not added:
            own = own.copy()
            own[places.reshape(-1)] = -1
        parts.append((base.broadcast(shape), own))
    if source is not None:
        parts.append((source.broadcast(places.shape), places))
    if not parts:
        return like.with_ids(np.zeros(shape, dtype=like.ids.dtype))
    return grouped(parts, shape)


def _all_of(parts: Sequence[Dependence | None], shape: tuple[int, ...], step: Step) -> Dependence:
    """Element by element, what any of the parts that there are depends on."""
    return union([step.nothing(shape), *(p for p in parts if p is not None)], shape)


def _grid(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(numbers(shape))


@rule("scatter scatter_add scatter_reduce", "self src")
def _scatter(step: Step) -> Result:
    reduce = step.get("reduce")
    added = step.name == "scatter_add" or reduce in ("sum", "mean", "add")
    if reduce is not None and not added:
        raise Declined(f"scatter with reduce={reduce!r} is not linear")
    base, source = step.dep("self"), step.dep("src")
    shape = step.out.shape or (1,)
    dim = step["dim"] % len(shape)
    reach = step.meta("index").shape or (1,)
    base = None if base is None else at_least_1d(base)
    if source is not None:
        source = corner(at_least_1d(source), reach)
    index = step.data("index")
    if index is not None:
        places = _grid(shape).gather(dim, index.cpu().reshape(reach)).numpy()
        dropped = not added or step.get("include_self") is False
        found = written(base, source, places, shape, step.inputs[0], added=not dropped)
    else:
        spread = None if source is None else _anywhere_along(source.broadcast(reach), dim, shape)
        found = _all_of([base, spread], shape, step)
    return reshaped(found, step.out.shape)


def _anywhere_along(source: Dependence, dim: int, shape: tuple[int, ...]) -> Dependence:
    """Written anywhere along ``dim`` of a tensor of ``shape`` that may be larger elsewhere too."""
    mixed = mixed_along(source, dim, shape[dim])
    ids = np.zeros(shape, dtype=mixed.ids.dtype)
    ids[tuple(slice(0, size) for size in mixed.shape)] = mixed.grid
    return mixed.with_ids(ids)


@rule("index_add index_copy", "self source")
def _index_add(step: Step) -> Result:
    base, source = step.dep("self"), step.dep("source")
    shape = step.out.shape or (1,)
    dim = step["dim"] % len(shape)
    base = None if base is None else at_least_1d(base)
    index = step.data("index")
    if index is not None:
        places = _grid(shape).index_select(dim, index.cpu().reshape(-1)).numpy()
        source = None if source is None else reshaped(source, places.shape)
        added = step.name == "index_add"
        found = written(base, source, places, shape, step.inputs[0], added=added)
    else:
        if source is not None:
            count = step.meta("index").numel
            lines = tuple(count if d == dim else size for d, size in enumerate(shape))
            source = mixed_along(reshaped(source, lines), dim, shape[dim])
        found = _all_of([base, source], shape, step)
    return reshaped(found, step.out.shape)


@rule("index_fill", "self value")
def _index_fill(step: Step) -> Result:
    base, value = step.dep("self"), step.dep("value")
    shape = step.out.shape or (1,)
    dim = step["dim"] % len(shape)
    base = None if base is None else at_least_1d(base)
    index = step.data("index")
    if index is not None:
        places = _grid(shape).index_select(dim, index.cpu().reshape(-1)).numpy()
        found = written(base, value, places, shape, step.inputs[0], added=False)
    else:
        value = None if value is None else value.broadcast_all(shape)
        found = _all_of([base, value], shape, step)
    return reshaped(found, step.out.shape)


@rule("index_put _index_put_impl _unsafe_index_put", "self values")
def _index_put(step: Step) -> Result:
    if not is_followed(step, "indices"):
        return _put_anywhere(step)
    places = _grid(step.out.shape)[_indices(step)].numpy()
    added = bool(step.get("accumulate"))
    base, values = step.dep("self"), step.dep("values")
    return written(base, values, places, step.out.shape, step.inputs[0], added=added)


def _indices(step: Step) -> tuple[Any, ...]:
    given = [None if entry is None else step.data(entry) for entry in step["indices"]]
    masks = [i.bool() if i is not None and i.dtype == torch.uint8 else i for i in given]
    return tuple(slice(None) if i is None else i.cpu() for i in masks)


def _put_anywhere(step: Step) -> Dependence:
    """Values written anywhere along the indexed dims, over a base that may stay as it was."""
    shape = step.out.shape
    base, values = step.dep("self"), step.dep("values")
    if values is None:
        return _all_of([base], shape, step)
    taken = Indexed.of(step, len(shape), step["indices"])
    sizes = [1] * taken.rank
    for dim, place in zip(taken.kept, taken.places, strict=True):
        sizes[place] = shape[dim]
    lead = len(values.shape) - taken.rank
    if lead > 0 and any(size != 1 for size in values.shape[:lead]):
        raise Declined("its values have more dims than its indices say")
    values = reshaped(values, values.shape[max(lead, 0) :])
    full = values.broadcast(np.broadcast_shapes(values.shape, tuple(sizes)))
    spread = blockwise(step, [(full, taken.places)], step.out, taken.kept)
    return _all_of([base, spread], shape, step)


@rule("_unsafe_masked_index_put_accumulate", "self values")
def _masked_put(step: Step) -> Result:
    places = masked_places(step, step.out.shape)
    if places is None:
        return _put_anywhere(step)
    base, values = step.dep("self"), step.dep("values")
    return written(base, values, places, step.out.shape, step.inputs[0], added=True)


@rule("put", "self source")
def _put(step: Step) -> Result:
    base, source = step.dep("self"), step.dep("source")
    shape = step.out.shape
    index = step.data("index")
    if index is None:
        everywhere = None
        if source is not None:
            everywhere = merged(source, range(len(source.shape))).broadcast_all(shape)
        return _all_of([base, everywhere], shape, step)
    places = index.cpu().reshape(-1).numpy() % max(step.out.numel, 1)
    source = None if source is None else reshaped(source, places.shape)
    return written(base, source, places, shape, step.inputs[0], added=bool(step["accumulate"]))


@rule("masked_scatter", "self source")
def _masked_scatter(step: Step) -> Result:
    base, source = step.dep("self"), step.dep("source")
    shape = step.out.shape
    mask = step.nonzero("mask")
    if mask is None:
        anywhere = None
        if source is not None:
            anywhere = merged(source, range(len(source.shape))).broadcast_all(shape)
        return _all_of([base, anywhere], shape, step)
    places = np.flatnonzero(np.broadcast_to(mask, shape))
    if source is not None:
        source = source.with_ids(source.ids[: places.size])
    return written(base, source, places, shape, step.inputs[0], added=False)


@rule("unfold_backward", "grad_in")
def _unfold_backward(step: Step) -> Result:
    _, dep = step.only("grad_in")
    shape = tuple(step["input_sizes"])
    places = _grid(shape).unfold(step["dim"], step["size"], step["step"]).numpy()
    return grouped([(dep, places)], shape)


@rule("as_strided_scatter", "self src")
def _as_strided_scatter(step: Step) -> Result:
    meta = step.meta("self")
    if not is_dense(meta):
        raise Declined("it writes past a tensor's own elements")
    laid_out = torch.empty_strided(meta.shape, meta.stride, dtype=torch.int64)
    laid_out.copy_(_grid(meta.shape))
    offset = step.get("storage_offset") or 0
    try:
        places = laid_out.as_strided(tuple(step["size"]), tuple(step["stride"]), offset).numpy()
    except RuntimeError:
        raise Declined("it writes past a tensor's own elements") from None
    base, source = step.dep("self"), step.dep("src")
    return written(base, source, places, meta.shape, step.inputs[0], added=False)
