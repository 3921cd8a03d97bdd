"""From the products of a lifted factor to its values: ``template + A f``, in the cheapest form."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .lift import kernels
from .lift.factor import Terms

_BLOCK = 400_000
_KERNEL_DTYPES = (torch.float32, torch.float64)
# Of a template of which most stays as it is, copying all and writing the rest is quicker.
_SPARSELY = 0.5


class Assembler:
    """``values = assembler(f)`` for one dtype and device.

    ``form`` is "in order" (f is the values), "gather" (each value is one entry of f), "scaled
    gather", "update" (a copy of the template in which some places are written), "sums" (each value
    adds up a run of weighed entries), or "index_add", which does as much where no kernel is
    compiled for the dtype or the device.
    """

    def __init__(self, terms: Terms, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.nnz = terms.starts.size - 1
        self._dtype, self._device = dtype, device
        native = device.type == "cpu" and dtype in _KERNEL_DTYPES
        self.form, self._run = self._best(terms, size, native)

    def __call__(self, flat: Tensor) -> Tensor:
        """``flat``: the products, one after the other; without a graph."""
        return self._run(flat)

    def _best(
        self, terms: Terms, size: int, native: bool
    ) -> tuple[str, Callable[[Tensor], Tensor]]:
        counts = np.diff(terms.starts)
        if terms.template is None and bool((counts == 1).all()):
            ordered = self.nnz == size and bool((terms.sources == np.arange(size)).all())
            if terms.weights is None and ordered:
                return "in order", lambda flat: flat
            if native:
                return self._gather(terms)
        if not native:
            return "index_add", self._by_torch(terms, counts)
        if terms.template is not None and np.count_nonzero(counts) <= _SPARSELY * self.nnz:
            return "update", self._update(terms, counts)
        return "sums", self._sums(terms)

    def _gather(self, terms: Terms) -> tuple[str, Callable[[Tensor], Tensor]]:
        sources = terms.sources
        if terms.weights is None:
            return "gather", self._native(kernels.gather, sources)
        return "scaled gather", self._native(
            kernels.gather_weighed, sources, self._own(terms.weights)
        )

    def _sums(self, terms: Terms) -> Callable[[Tensor], Tensor]:
        template = np.zeros(self.nnz) if terms.template is None else terms.template
        return self._native(
            kernels.add_up, terms.starts, terms.sources, self._weights(terms), self._own(template)
        )

    def _update(self, terms: Terms, counts: Any) -> Callable[[Tensor], Tensor]:
        assert terms.template is not None
        places = np.flatnonzero(counts).astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(counts[places])]).astype(np.int32)
        whole = torch.from_numpy(self._own(terms.template))
        arrays = (places, starts, terms.sources, self._weights(terms),
                  self._own(terms.template[places]))  # fmt: skip

        def run(flat: Tensor) -> Tensor:
            out = whole.clone()
            source, target = flat.numpy(), out.numpy()
            in_blocks(places.size, lambda a, b: kernels.update(a, b, *arrays, source, target))
            return out

        return run

    def _native(self, kernel: Any, *arrays: Any) -> Callable[[Tensor], Tensor]:
        nnz, dtype = self.nnz, self._dtype

        def run(flat: Tensor) -> Tensor:
            out = torch.empty(nnz, dtype=dtype)
            source, target = flat.numpy(), out.numpy()
            if nnz <= _BLOCK:
                kernel(0, nnz, *arrays, source, target)
            else:
                in_blocks(nnz, lambda a, b: kernel(a, b, *arrays, source, target))
            return out

        return run

    def _by_torch(self, terms: Terms, counts: Any) -> Callable[[Tensor], Tensor]:
        def on_device(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

        # A sum in half precision would stop growing where its terms fall below its last digit.
        wide = self._dtype if self._dtype.itemsize > 2 else torch.float32
        entries = on_device(np.repeat(np.arange(self.nnz, dtype=np.int32), counts))
        sources = on_device(terms.sources)
        weights = None if terms.weights is None else on_device(terms.weights).to(wide)
        template = torch.zeros(self.nnz) if terms.template is None else on_device(terms.template)
        template = template.to(self._device, wide)

        def run(flat: Tensor) -> Tensor:
            picked = flat.index_select(0, sources).to(wide)
            picked = picked if weights is None else picked * weights
            return template.index_add(0, entries, picked).to(self._dtype)

        return run

    def _weights(self, terms: Terms) -> Any:
        weights = np.ones(terms.sources.size) if terms.weights is None else terms.weights
        return self._own(weights)

    def _own(self, array: Any) -> Any:
        kind = np.float32 if self._dtype is torch.float32 else np.float64
        return np.ascontiguousarray(array, dtype=kind)


def multiply(
    a: tuple[Any, Any], a_values: Tensor, b: tuple[Any, Any], b_values: Tensor,
    pattern: tuple[Any, Any], width: int,
) -> Tensor:  # fmt: skip
    """The values of a product of two CSR matrices, each given as (indptr, indices), values."""
    rows = pattern[0].size - 1
    out = torch.empty(int(pattern[0][-1]), dtype=a_values.dtype)
    left, right, target = a_values.numpy(), b_values.numpy(), out.numpy()
    share = max(1, rows * _BLOCK // max(int(pattern[0][-1]), 1))

    def run(first: int, last: int) -> None:
        kernels.multiply_rows(first, last, *a, left, *b, right, *pattern, width, target)

    in_blocks(rows, run, share)
    return out


def in_blocks(count: int, run: Callable[[int, int], None], share: int = _BLOCK) -> None:
    """``run(first, last)`` over ``range(count)``, on as many threads as torch may use."""
    threads = min(torch.get_num_threads(), max(1, count // share))
    if threads == 1:
        run(0, count)
        return
    cuts = [count * k // threads for k in range(threads + 1)]
    for future in [
        _pool(threads).submit(run, a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)
    ]:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="pullback")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork inherits no threads
