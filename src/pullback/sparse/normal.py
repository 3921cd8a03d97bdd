"""The matrix J' W J of least squares: its places planned once, its values multiplied at a call."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .assemble import multiply
from .coloring.graph import twins_of
from .pattern import SparsityPattern, index_dtype

_KERNEL_DTYPES = (torch.float32, torch.float64)


class SparseProduct:
    """``C = A B`` for matrices of two patterns, from the values of ``A`` and of ``B``."""

    def __init__(self, left: SparsityPattern, right: SparsityPattern) -> None:
        self._left, self._right = left, right
        found = left.to_scipy() @ right.to_scipy()
        found.sort_indices()
        self.pattern = SparsityPattern._of_stored(found)

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
        if left.device.type == "cpu" and left.dtype in _KERNEL_DTYPES and not wanted:
            ends = [_ends(p) for p in (self._left, self._right, self.pattern)]
            values = left.detach().contiguous(), right.detach().contiguous()
            return multiply(ends[0], values[0], ends[1], values[1], ends[2], self.pattern.shape[1])
        first, second, entry = (torch.from_numpy(p).to(left.device) for p in self._pairs)
        whole = left.new_zeros(self.pattern.nnz)
        return whole.index_add(0, entry, left[first] * right[second])

    @cached_property
    def _pairs(self) -> tuple[Any, Any, Any]:
        """Of every product of two entries: both entries, and that of the result it is added to."""
        a, b, c = self._left, self._right, self.pattern
        lengths = np.diff(b.indptr)[a.indices].astype(np.int64)
        first = np.repeat(np.arange(a.nnz), lengths)
        starts = np.cumsum(lengths) - lengths
        second = np.arange(first.size) - np.repeat(starts - b.indptr[a.indices], lengths)
        width = max(c.shape[1], 1)
        rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))[first]
        places = np.repeat(np.arange(c.shape[0]), np.diff(c.indptr)) * width + c.indices
        entry = np.searchsorted(places, rows * width + b.indices[second])
        return first, second, entry


def _ends(pattern: SparsityPattern) -> tuple[Any, Any]:
    return pattern.indptr.astype(np.int64), pattern.indices.astype(np.int32, copy=False)


class NormalMatrix:
    """``J' W J`` for Jacobians of one pattern; ``W`` is diagonal, or a matrix of ``weights``.

    With a diagonal ``W`` the result is symmetric to the last bit.
    """

    def __init__(self, jacobian: SparsityPattern, weights: SparsityPattern | None) -> None:
        self._jacobian, self._weights = jacobian, weights
        m, n = jacobian.shape
        self._dense = jacobian.is_full and m * n > 0 and weights is None
        if self._dense:
            self.pattern = SparsityPattern.full((n, n))
            return
        rows = np.repeat(np.arange(m, dtype=index_dtype(max(m, 1))), np.diff(jacobian.indptr))
        self._rows = torch.from_numpy(rows.astype(np.int64))
        self._order = torch.from_numpy(np.argsort(jacobian.indices, kind="stable"))
        weighed = jacobian
        if weights is not None:
            self._weighed = SparseProduct(weights, jacobian)
            weighed = self._weighed.pattern
        self._outer = SparseProduct(jacobian.T, weighed)
        self.pattern = self._outer.pattern

    def values(self, jacobian: Tensor, weights: Tensor | None) -> Tensor:
        """In CSR order, from those of the Jacobian and of ``W`` (of its diagonal, shape (m,))."""
        if self._dense:
            return self._of_full(jacobian.reshape(self._jacobian.shape), weights)
        flipped = jacobian[self._order.to(jacobian.device)]
        if self._weights is not None:
            assert weights is not None
            return self._outer(flipped, self._weighed(weights, jacobian))
        if weights is not None:
            jacobian = jacobian * weights[self._rows.to(jacobian.device)]
        found = self._outer(flipped, jacobian)
        return found[self._upper.to(found.device)]

    def _of_full(self, jacobian: Tensor, weights: Tensor | None) -> Tensor:
        weighed = jacobian if weights is None else jacobian * weights.unsqueeze(1)
        whole = jacobian.T @ weighed
        return (whole.triu() + whole.triu(1).T).reshape(-1)

    @cached_property
    def _upper(self) -> Tensor:
        """The entry itself above the diagonal, its mirror below: both round alike then."""
        pattern = self.pattern
        rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
        twins = twins_of(pattern.indptr, pattern.indices, pattern.indptr)
        own = np.arange(pattern.nnz)
        return torch.from_numpy(np.where(rows <= pattern.indices, own, twins))
