"""The complex Jacobian of a holomorphic function, read out of its real one.

The real matrix has two rows and two columns (re, im) for every complex element. Where the function
is holomorphic each such block is ``[[a, -b], [b, a]]`` for the complex entry ``a + bi`` (the
Cauchy-Riemann equations), which is checked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _checks
from .leaf import Leaf
from .pattern import SparsityPattern, index_dtype
from .plan import Plan


class ComplexView:
    """A plan's matrix seen as a complex one of half the rows and columns."""

    def __init__(self, caller: str, plan: Plan) -> None:
        _checks.all_complex(caller, plan.inputs, plan.outputs)
        self._caller, self._real = caller, plan
        self._on: dict[torch.device, Tensor] = {}

    @cached_property
    def pattern(self) -> SparsityPattern:
        m, n = self._real.pattern.shape
        if self._real.pattern.is_full:
            return SparsityPattern.full((m // 2, n // 2))
        keys = np.unique(self._blocks)
        kind = index_dtype(max(keys.size, n))
        rows, cols = np.divmod(keys, n // 2)
        indptr = np.zeros(m // 2 + 1, dtype=kind)
        np.cumsum(np.bincount(rows, minlength=m // 2), out=indptr[1:])
        return SparsityPattern((m // 2, n // 2), indptr, cols.astype(kind))

    @property
    def plan(self) -> Plan:
        """The plan for laying the complex values out."""
        real = self._real
        return replace(
            real,
            pattern=self.pattern,
            inputs=as_reals(real.inputs),
            outputs=as_reals(real.outputs),
        )

    @property
    def _places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        pattern = self._real.pattern
        rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
        return rows, pattern.indices.astype(np.int64)

    @property
    def _blocks(self) -> npt.NDArray[np.int64]:
        rows, cols = self._places
        return (rows // 2) * (self._real.pattern.shape[1] // 2) + cols // 2

    @cached_property
    def _corners(self) -> npt.NDArray[np.int64]:
        """Shape (4, nnz): where each block's re-re, im-re, re-im, im-im entries are; else nnz."""
        pattern = self.pattern
        keys = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr)) * pattern.shape[1]
        which = np.searchsorted(keys + pattern.indices, self._blocks)
        rows, cols = self._places
        corners = np.full((4, pattern.nnz), self._real.pattern.nnz, dtype=np.int64)
        corners[rows % 2 + 2 * (cols % 2), which] = np.arange(rows.size)
        return corners

    def values(self, real: Tensor) -> Tensor:
        """Complex values of shape (nnz,). Refuses blocks that are not of a holomorphic function."""
        if real.device not in self._on:
            self._on[real.device] = torch.from_numpy(self._corners).to(real.device)
        padded = torch.cat([real, real.new_zeros(1)])
        found, wrong = _joined(padded[self._on[real.device]])
        if wrong is not None:
            raise _checks.not_holomorphic(self._caller, self._entry(wrong))
        return found

    def _entry(self, number: int) -> tuple[int, int]:
        pattern = self.pattern
        row = int(np.searchsorted(pattern.indptr, number, side="right")) - 1
        return row, int(pattern.indices[number])


def as_reals(leaves: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
    """Leaves of a real dtype, whose elements count once and add no last axis."""
    return tuple(leaf._replace(dtype=leaf.real_dtype) for leaf in leaves)


def complex_matrix(
    caller: str, whole: Tensor, inputs: tuple[Leaf, ...], outputs: tuple[Leaf, ...]
) -> Tensor:
    """The complex (m, n) matrix of a dense real one of shape (2m, 2n)."""
    _checks.all_complex(caller, inputs, outputs)
    m, n = whole.shape[0] // 2, whole.shape[1] // 2
    corners = whole.reshape(m, 2, n, 2).permute(3, 1, 0, 2).reshape(4, m * n)
    found, wrong = _joined(corners)
    if wrong is not None:
        raise _checks.not_holomorphic(caller, divmod(wrong, n))
    return found.reshape(m, n)


def _joined(corners: Tensor) -> tuple[Tensor, int | None]:
    """Complex entries of their four real ones, and the first that is not of that form."""
    re_re, im_re, re_im, im_im = corners
    apart = torch.maximum((re_re - im_im).abs(), (im_re + re_im).abs()).detach()
    sizes = torch.nan_to_num(corners.detach().abs(), nan=0.0, posinf=0.0)
    loose = 1e-8 if corners.dtype == torch.float64 else 1e-3
    noise = 1e3 * torch.finfo(corners.dtype).eps * (sizes.max() if corners.numel() else 0)
    wrong = ((apart > loose * sizes.amax(0)) & (apart > noise)).nonzero()
    return torch.complex(re_re, im_re), int(wrong[0]) if len(wrong) else None


def complex_view(caller: str, plan: Plan, kept: dict[Any, ComplexView]) -> ComplexView:
    """The view of ``plan``, made once."""
    if id(plan) not in kept:
        kept.clear()
        kept[id(plan)] = ComplexView(caller, plan)
    return kept[id(plan)]
