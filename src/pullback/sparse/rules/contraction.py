"""Products summed over shared dims: an entry of a product reads a row and a column."""

from __future__ import annotations

import numpy as np

from ..dependence import Dependence, grouped, union
from .axes import affordable, alone, along, merged, mixed, reshaped, transposed
from .base import Declined, Result, Step, rule
from .structure import Mask, nonzeros


def product(
    left: Dependence | None,
    right: Dependence | None,
    left_mask: Mask | None,
    right_mask: Mask | None,
    shape: tuple[int, ...],
) -> Dependence:
    """What ``left @ right`` of ``shape`` (.., m, n) depends on; a mask is False at sure zeros."""
    parts = []
    if right is not None:
        parts.append(_contracted(right, None if left is not None else left_mask, shape))
    if left is not None:
        flipped = None if right is not None or right_mask is None else right_mask.swapaxes(-1, -2)
        turned = (*shape[:-2], shape[-1], shape[-2])
        parts.append(transposed(_contracted(transposed(left), flipped, turned)))
    return union(parts, shape)


def _contracted(dep: Dependence, mask: Mask | None, shape: tuple[int, ...]) -> Dependence:
    """``factor @ dep``: entry (i, j) depends on column j, where row i of the factor may be."""
    if mask is None or mask.all():
        return mixed(dep, [-2], shape)
    *batch, rows, columns = shape
    inner = dep.shape[-2]
    if mask.ndim > 2 and (mask == mask[:1]).all():
        mask = mask[0]
    repeats = int(np.prod(batch)) if mask.ndim == 2 else 1
    if not affordable(dep, int(mask.sum()) * columns * repeats):
        return mixed(dep, [-2], shape)
    if mask.ndim == 2:
        i, k = np.nonzero(mask)
        return along(dep, len(dep.shape) - 2, i, k, rows).broadcast(shape)
    count = int(np.prod(batch))
    whole = reshaped(dep.broadcast((*batch, inner, columns)), (count, inner, columns))
    b, i, k = np.nonzero(np.broadcast_to(mask, (*batch, rows, inner)).reshape(count, rows, inner))
    picked = whole.with_ids(whole.grid[b, k])
    labels = (b * rows + i)[:, None] * columns + np.arange(columns)
    return grouped([(picked, labels)], shape)


def _as_vector(dep: Dependence | None, row: bool) -> Dependence | None:
    return None if dep is None else reshaped(dep, (1, -1) if row else (-1, 1))


@rule("mm", "self | mat2")
def _mm(step: Step) -> Result:
    return _product_of(step, "self", "mat2", step.out.shape)


@rule("bmm", "self | mat2")
def _bmm(step: Step) -> Result:
    return _product_of(step, "self", "mat2", step.out.shape)


def _product_of(step: Step, left: str, right: str, shape: tuple[int, ...]) -> Dependence:
    return product(
        step.dep(left), step.dep(right), nonzeros(step, left), nonzeros(step, right), shape
    )


def _sum_of(step: Step, *parts: Dependence | None) -> Dependence:
    found = [part for part in parts if part is not None]
    return union(found, step.out.shape)


@rule("addmm", "self mat1 | self mat2")
def _addmm(step: Step) -> Result:
    inputs = step.dep("mat1"), step.dep("mat2")
    made = None if inputs == (None, None) else _product_of(step, "mat1", "mat2", step.out.shape)
    return _sum_of(step, step.dep("self"), made)


@rule("baddbmm addbmm", "self batch1 | self batch2")
def _baddbmm(step: Step) -> Result:
    made = None
    if step.dep("batch1") is not None or step.dep("batch2") is not None:
        batch, rows, _ = step.meta("batch1").shape
        shape = (batch, rows, step.meta("batch2").shape[-1])
        made = _product_of(step, "batch1", "batch2", shape)
        if step.name == "addbmm":
            made = reshaped(merged(made, [0]), shape[1:])
    return _sum_of(step, step.dep("self"), made)


@rule("mv", "self | vec")
def _mv(step: Step) -> Result:
    return _matrix_times_vector(step, "self")


@rule("addmv", "self mat | self vec")
def _addmv(step: Step) -> Result:
    made = None
    if step.dep("mat") is not None or step.dep("vec") is not None:
        made = _matrix_times_vector(step, "mat")
    return _sum_of(step, step.dep("self"), made)


def _matrix_times_vector(step: Step, matrix: str) -> Dependence:
    mask = nonzeros(step, "vec")
    shape = (step.meta(matrix).shape[0], 1)
    column = None if mask is None else mask[:, None]
    made = product(
        step.dep(matrix),
        _as_vector(step.dep("vec"), row=False),
        nonzeros(step, matrix),
        column,
        shape,
    )
    return reshaped(made, shape[:1])


@rule("dot", "self | tensor")
def _dot(step: Step) -> Result:
    return _inner(step, "self", "tensor")


@rule("vdot", "self | other")
def _vdot(step: Step) -> Result:
    return _inner(step, "self", "other")


def _inner(step: Step, left: str, right: str) -> Dependence:
    masks = [nonzeros(step, left), nonzeros(step, right)]
    row = None if masks[0] is None else masks[0][None, :]
    column = None if masks[1] is None else masks[1][:, None]
    made = product(
        _as_vector(step.dep(left), row=True),
        _as_vector(step.dep(right), row=False),
        row,
        column,
        (1, 1),
    )
    return reshaped(made, ())


@rule("addr", "self vec1 | self vec2")
def _addr(step: Step) -> Result:
    return _sum_of(step, step.dep("self"), *_outer(step, "vec1", "vec2"))


def _outer(step: Step, left: str, right: str) -> list[Dependence]:
    parts = []
    for name, other, row in ((left, right, False), (right, left, True)):
        dep, mask = _as_vector(step.dep(name), row), nonzeros(step, other)
        if dep is not None:
            dep = dep.broadcast(step.out.shape)
            if mask is not None and step.dep(other) is None:
                across = mask[:, None] if row else mask[None, :]
                dep = dep.where(np.broadcast_to(across, dep.shape))
            parts.append(dep)
    return parts


@rule("_trilinear", "i1 | i2 | i3")
def _trilinear(step: Step) -> Result:
    rank = len(step.meta("i1").shape) + len(step["expand1"])
    summed = sorted(d % rank for d in step["sumdim"])
    sizes = [1] * rank
    parts = []
    for k in (1, 2, 3):
        added = {d % rank for d in step[f"expand{k}"]}
        own = iter(step.meta(f"i{k}").shape)
        shape = [1 if d in added else next(own) for d in range(rank)]
        sizes = [b if a == 1 else a for a, b in zip(sizes, shape, strict=True)]
        dep = step.dep(f"i{k}")
        if dep is not None:
            parts.append(merged(reshaped(dep, shape), summed))
    whole = tuple(1 if d in summed else size for d, size in enumerate(sizes))
    return reshaped(union(parts, whole), step.out.shape)


@rule("linalg_cross", "self | other")
def _cross(step: Step) -> Result:
    """Component i of a cross product reads the other two of each factor."""
    shape = step.out.shape
    dim = step["dim"] % len(shape)
    parts = [dep.broadcast(shape) for dep in (step.dep("self"), step.dep("other")) if dep]
    turned = [part.with_ids(np.roll(part.grid, k, dim)) for part in parts for k in (1, 2)]
    return union(turned, shape)


@rule("_cdist_backward", "grad")
def _cdist_backward(step: Step) -> Result:
    """The gradient at a point reads the cotangents of its distances to all others."""
    dep = alone(step, "grad")
    shape = step.out.shape
    if len(shape) != len(dep.shape) or shape[-2] != dep.shape[-2]:
        raise Declined("its batch dims are laid out in a way this rule does not know")
    return mixed(dep, [-1], shape)


@rule("_pdist_backward", "grad")
def _pdist_backward(step: Step) -> Result:
    dep = alone(step, "grad")
    points, width = step.out.shape
    first, second = np.triu_indices(points, 1)
    both = dep.with_ids(np.concatenate([dep.ids, dep.ids]))
    found = grouped([(both, np.concatenate([first, second]))], (points,))
    return reshaped(found, (points, 1)).broadcast((points, width))
