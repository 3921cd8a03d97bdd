"""The values of a plan as a matrix: torch's layouts, SciPy's, or jacrev's dense shape."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .._trees import Structure, Tree
from .arguments import Arguments
from .leaf import Leaf
from .pattern import SparsityPattern, index_dtype
from .plan import Plan

LAYOUTS: tuple[Any, ...] = (torch.strided, torch.sparse_csr, torch.sparse_coo, "scipy")


def matrix(plan: Plan, values: Any, layout: Any, arguments: Arguments, out: Structure) -> Any:
    """The (m, n) matrix of a sparse layout, or the nested dense tensors of ``torch.strided``."""
    pattern = plan.pattern
    if layout is torch.strided:
        whole = values if isinstance(values, list) else dense(pattern, values)
        return blocks(whole, plan.outputs, plan.inputs, arguments, out)
    if layout == "scipy":
        import scipy.sparse

        data = values.detach().cpu().numpy()
        parts = (data, pattern.indices.copy(), pattern.indptr.copy())
        return scipy.sparse.csr_array(parts, shape=pattern.shape)
    if layout is torch.sparse_csr:
        return Csr(plan, values.device)(values)
    crow, col = _indices(plan, values.device)
    rows = torch.repeat_interleave(
        torch.arange(pattern.shape[0], device=values.device), crow.diff().long()
    )
    return torch.sparse_coo_tensor(
        torch.stack([rows, col.long()]),
        values,
        pattern.shape,
        is_coalesced=True,
        check_invariants=False,
    )


class Csr:
    """Makes CSR matrices of values, with all that is the same for every call at hand."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._shape, self._dtype = plan.pattern.shape, plan.dtype
        self._last: tuple[weakref.ref[Tensor], int] | None = None

    @cached_property
    def _indices(self) -> tuple[Tensor, Tensor]:
        _quiet_beta_notice()
        return _indices(self._plan, self._device)

    def __call__(self, values: Tensor) -> Tensor:
        # Told the dtype, torch does not look for it, which takes as long as all the rest.
        return torch.sparse_csr_tensor(
            *self._indices, values, self._shape, dtype=values.dtype, check_invariants=False
        )

    def values_of(self, matrix: object, apart: Sequence[Tensor]) -> Tensor | None:
        """The values of a matrix made here, to be written to, if they share no memory with the
        tensors ``apart``; None where it is another matrix, or has a graph."""
        if type(matrix) is not Tensor or matrix.layout is not torch.sparse_csr:
            return None
        values = matrix.values()
        place = values.untyped_storage().data_ptr()
        last = self._last
        if last is None or last[0]() is not matrix or last[1] != place:
            if not self._is_one_of_mine(matrix) or not values.is_contiguous():
                return None
            self._last = weakref.ref(matrix), place
        if (
            matrix.requires_grad
            or matrix.is_inference()
            or any(t.untyped_storage().data_ptr() == place for t in apart)
        ):
            return None
        return values

    def _is_one_of_mine(self, matrix: Tensor) -> bool:
        known = matrix.shape == self._shape and matrix.dtype is self._dtype
        if not known or matrix.device != self._device:
            return False
        crow, col = self._indices
        places = matrix.crow_indices().data_ptr(), matrix.col_indices().data_ptr()
        return places == (crow.data_ptr(), col.data_ptr())


def dense(pattern: SparsityPattern, values: Tensor) -> Tensor:
    """The matrix with all its zeros, shape (m, n). Differentiable in the values."""
    m, n = pattern.shape
    if pattern.is_full:
        return values.reshape(m, n)
    kind = index_dtype(m * n)
    rows = np.repeat(np.arange(m, dtype=kind), np.diff(pattern.indptr))
    places = torch.from_numpy(rows * kind(n) + pattern.indices).to(values.device)
    return values.new_zeros(m * n).index_put((places.long(),), values).reshape(m, n)


def blocks(
    whole: Tensor | list[Tensor],
    outputs: tuple[Leaf, ...],
    inputs: tuple[Leaf, ...],
    arguments: Arguments,
    out: Structure,
) -> Tree:
    """The matrix cut into jacrev's structure: per output, per selected argument, per leaf. It may
    have been cut into the columns of every leaf already.

    A complex leaf contributes a last axis (re, im) to the shape.
    """
    if isinstance(whole, Tensor):
        whole = list(whole.split([i.numel for i in inputs], dim=1))
    rows = [columns.split([o.numel for o in outputs], dim=0) for columns in whole]
    found = []
    for k, o in enumerate(outputs):
        pieces = [row[k] for row in rows]
        shaped = [
            piece.reshape(_shape(o) + _shape(i)) for i, piece in zip(inputs, pieces, strict=True)
        ]
        found.append(arguments.in_selected(shaped))
    return out.rebuild(found)


def _shape(leaf: Leaf) -> tuple[int, ...]:
    return (*leaf.shape, 2) if leaf.dtype.is_complex else leaf.shape


def refill(target: Any, fresh: Any, caller: str) -> Any:
    """Write the values of ``fresh`` into ``target``, a matrix of an earlier call."""
    if isinstance(target, Tensor) and isinstance(fresh, Tensor):
        same = target.layout == fresh.layout and target.shape == fresh.shape
        if same and target.layout is not torch.strided:
            same = all(map(_equal, _places(target), _places(fresh)))
        if not (same and target.dtype == fresh.dtype and target.device == fresh.device):
            raise _checks.out_does_not_fit(caller, target, fresh)
        with torch.no_grad():
            if target.layout is torch.strided:
                target.copy_(fresh)
            elif target.layout is torch.sparse_csr:
                target.values().copy_(fresh.values())
            else:
                target._values().copy_(fresh._values())
        return target
    if getattr(target, "format", None) != "csr" or not hasattr(fresh, "indptr"):
        raise _checks.out_does_not_fit(caller, target, fresh)
    indices = ("indices", "indptr")
    placed = all(np.array_equal(getattr(target, k), getattr(fresh, k)) for k in indices)
    if target.shape != fresh.shape or target.data.dtype != fresh.data.dtype or not placed:
        raise _checks.out_does_not_fit(caller, target, fresh)
    target.data[:] = fresh.data
    return target


def _places(matrix: Tensor) -> tuple[Tensor, ...]:
    if matrix.layout is torch.sparse_csr:
        return matrix.crow_indices(), matrix.col_indices()
    return (matrix._indices(),)


def _equal(left: Tensor, right: Tensor) -> bool:
    return left is right or torch.equal(left, right)


def _indices(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    pattern = plan.pattern
    return plan.kept("crow", device, lambda: pattern.indptr), plan.kept(
        "col", device, lambda: pattern.indices
    )


@cache
def _quiet_beta_notice() -> None:
    """torch warns once per process that CSR is in beta: take that warning, so that no user's
    program that turns warnings into errors fails here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)
