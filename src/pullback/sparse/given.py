"""A matrix that some other program made, against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .trial import rounding_of
from .witnesses import Problem, Reference, element

_PRODUCTS = 4


def check_matrix(problem: Problem, matrix: Any) -> None:
    """Raise ArgumentError where ``matrix`` is not the derivative at the point of ``problem``."""
    reference = problem.reference()
    dense = _dense(problem.caller, matrix, reference.shape).to(problem.point)
    if not dense.numel():
        return
    entry = _wrong_entry(reference, dense, 10 * rounding_of(dense.dtype))
    if entry is None:
        return
    i, j = entry
    unit = dense.new_zeros(len(dense))
    unit[i] = 1
    names = element(reference.returned, i), element(problem.inputs, j)
    truth, found = float(reference.row(unit)[j]), float(dense[i, j])
    raise _checks.matrix_is_wrong(problem.caller, entry, names, truth, found)


def _wrong_entry(reference: Reference, dense: Tensor, loose: float) -> tuple[int, int] | None:
    if reference.matrix is not None:
        truth = reference.matrix.to(dense)
        place = _worst(truth, dense, truth.abs(), loose)
        return None if place is None else divmod(place, dense.shape[1])
    generator = torch.Generator().manual_seed(2)
    for _ in range(_PRODUCTS):
        v = torch.randn(len(dense), generator=generator, dtype=torch.float64).to(dense)
        column = _worst(reference.row(v), v @ dense, v.abs() @ dense.abs(), loose)
        if column is not None:
            return _row_of(reference, dense, v, column, loose), column
    return None


def _worst(truth: Tensor, found: Tensor, size: Tensor, loose: float) -> int | None:
    size = (size + truth.abs()).nan_to_num(0.0, 0.0, 0.0)
    gaps = (truth - found).abs() / (loose * (size + 1e-3 * size.amax()) + 1e-30)
    gaps = torch.where(truth.isnan() & found.isnan() | (truth == found), 0.0, gaps)
    place = int(gaps.nan_to_num(torch.inf).argmax())
    return place if not float(gaps.reshape(-1)[place]) <= 1 else None


def _row_of(reference: Reference, dense: Tensor, v: Tensor, column: int, loose: float) -> int:
    low, high = 0, len(v)
    while high - low > 1:
        middle = (low + high) // 2
        part = torch.zeros_like(v)
        part[low:middle] = v[low:middle]
        truth, found = reference.row(part)[column], part @ dense[:, column]
        size = part.abs() @ dense[:, column].abs()
        wrong = _worst(truth[None], found[None], size[None], loose) is not None
        low, high = (low, middle) if wrong else (middle, high)
    return low


def _dense(caller: str, matrix: Any, shape: tuple[int, int]) -> Tensor:
    if hasattr(matrix, "toarray"):
        matrix = matrix.toarray()
    if isinstance(matrix, (np.ndarray, list)):
        matrix = torch.as_tensor(np.asarray(matrix))
    if not isinstance(matrix, Tensor):
        raise _checks.matrix_does_not_fit(caller, _checks.article(matrix), shape)
    dense = matrix.detach()
    dense = dense if dense.layout is torch.strided else dense.to_dense()
    if dense.is_complex() or dense.numel() != shape[0] * shape[1]:
        what = "complex" if dense.is_complex() else f"of shape {tuple(dense.shape)}"
        raise _checks.matrix_does_not_fit(caller, what, shape)
    return dense.reshape(shape)
