"""From the products of a lifted factor to its values: ``template + A f``, in the cheapest form."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .lift import kernels
from .lift.factor import Terms

# Entries that one thread gets through in the time that handing work to others takes.
BLOCK = 400_000
_KERNEL_DTYPES = (torch.float32, torch.float64)
Run = Callable[[Tensor], Tensor]


class Assembler:
    """``values = assembler(f)`` for one dtype and device, with ``f`` of ``size`` entries.

    ``form`` is "in order" (f is the values), "gather" (each value is an entry of f), "pick" (a
    weighed entry of f and a constant), "sums" (a run of weighed entries), "pick onto template" and
    "sums onto template" (the same where most entries are constant), "blocks" (the same sums again
    and again, as for the samples of a batch: one matrix product), or "index_add", which does as
    much as "sums" where no kernel is compiled for the dtype or the device.
    """

    def __init__(self, terms: Terms, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.nnz = terms.starts.size - 1
        self._dtype, self._device = dtype, device
        self._counts = np.diff(terms.starts)
        self.form = self._form(terms, size)
        make: dict[str, Callable[[Terms], Run]] = {
            "in order": lambda terms: lambda flat: flat,
            "gather": self._gather,
            "pick": self._pick,
            "pick onto template": self._pick_onto,
            "sums": self._sums,
            "sums onto template": self._sums_onto,
            "blocks": self._by_blocks,
            "index_add": self._by_torch,
        }
        self._run = make[self.form](terms)

    def __call__(self, flat: Tensor) -> Tensor:
        """``flat``: the products, one after the other; without a graph."""
        return self._run(flat)

    def _form(self, terms: Terms, size: int) -> str:
        most, least = int(self._counts.max(initial=0)), int(self._counts.min(initial=1))
        single = most == least == 1
        plain = single and terms.weights is None and terms.template is None
        if plain and self.nnz == size and bool((terms.sources == np.arange(size)).all()):
            return "in order"
        if self._device.type != "cpu" or self._dtype not in _KERNEL_DTYPES:
            return "index_add"
        if plain:
            return "gather"
        if single:
            return "pick"
        if terms.template is None:
            return "sums" if terms.blocks is None else "blocks"
        return "pick onto template" if most == 1 else "sums onto template"

    def _gather(self, terms: Terms) -> Run:
        return self._filled(kernels.gather, terms.sources)

    def _pick(self, terms: Terms) -> Run:
        template = np.zeros(self.nnz) if terms.template is None else terms.template
        return self._filled(kernels.pick, terms.sources, *self._coded(_weights(terms), template))

    def _pick_onto(self, terms: Terms) -> Run:
        assert terms.template is not None
        places = np.flatnonzero(self._counts).astype(np.int32)
        coded = self._coded(_weights(terms), terms.template[places])
        return self._written(terms.template, kernels.pick_at, places, terms.sources, *coded)

    def _sums(self, terms: Terms) -> Run:
        codes, weights = self._coded(_weights(terms))
        return self._filled(kernels.add_up, terms.starts, terms.sources, codes, weights)

    def _by_blocks(self, terms: Terms) -> Run:
        assert terms.blocks is not None
        count, matrix = terms.blocks
        weights = torch.from_numpy(self._own(matrix.T))

        def run(flat: Tensor) -> Tensor:
            return (flat.view(count, -1) @ weights).view(-1)

        return run

    def _sums_onto(self, terms: Terms) -> Run:
        assert terms.template is not None
        places = np.flatnonzero(self._counts).astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(self._counts[places])]).astype(np.int32)
        coded = self._coded(_weights(terms))
        return self._written(
            terms.template, kernels.add_up_at, places, starts, terms.sources, *coded
        )

    def _filled(self, kernel: Any, *arrays: Any) -> Run:
        nnz, dtype = self.nnz, self._dtype

        def run(flat: Tensor) -> Tensor:
            out = torch.empty(nnz, dtype=dtype)
            source, target = flat.numpy(), out.numpy()
            if nnz <= BLOCK:
                kernel(0, nnz, *arrays, source, target)
            else:
                in_blocks(nnz, lambda a, b: kernel(a, b, *arrays, source, target))
            return out

        return run

    def _written(self, template: Any, kernel: Any, *arrays: Any) -> Run:
        whole = torch.from_numpy(self._own(template))
        count = arrays[0].size

        def run(flat: Tensor) -> Tensor:
            out = whole.clone()
            source, target = flat.numpy(), out.numpy()
            if count <= BLOCK:
                kernel(0, count, *arrays, source, target)
            else:
                in_blocks(count, lambda a, b: kernel(a, b, *arrays, source, target))
            return out

        return run

    def _by_torch(self, terms: Terms) -> Run:
        def on_device(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

        # A sum in half precision would stop growing where its terms fall below its last digit.
        wide = self._dtype if self._dtype.itemsize > 2 else torch.float32
        entries = on_device(np.repeat(np.arange(self.nnz, dtype=np.int32), self._counts))
        sources = on_device(terms.sources)
        weights = None if terms.weights is None else on_device(terms.weights).to(wide)
        template = np.zeros(self.nnz) if terms.template is None else terms.template
        whole = on_device(template).to(wide)

        def run(flat: Tensor) -> Tensor:
            picked = flat.index_select(0, sources).to(wide)
            picked = picked if weights is None else picked * weights
            return whole.index_add(0, entries, picked).to(self._dtype)

        return run

    def _coded(self, *columns: Any) -> tuple[Any, ...]:
        """The columns as short codes and a table: they hold few different numbers, and reading
        them is what an assembly takes its time with."""
        if all(c.size and (c == c[0]).all() for c in columns):
            codes = np.zeros(columns[0].size, dtype=np.uint8)
            return codes, *(self._own(c[:1]) for c in columns)
        found, codes = _distinct(columns)
        kind = np.uint8 if len(found) <= 256 else np.uint16 if len(found) <= 65_536 else np.int32
        return codes.astype(kind), *(self._own(found[:, k]) for k in range(len(columns)))

    def _own(self, array: Any) -> Any:
        kind = np.float32 if self._dtype is torch.float32 else np.float64
        return np.ascontiguousarray(array, dtype=kind)


def _weights(terms: Terms) -> Any:
    return np.ones(terms.sources.size) if terms.weights is None else terms.weights


def _distinct(columns: tuple[Any, ...]) -> tuple[Any, Any]:
    """The different rows of some columns, and the number of each row."""
    codes = np.zeros(columns[0].size, dtype=np.int64)
    for column in columns:
        values, which = np.unique(column, return_inverse=True)
        codes = codes * values.size + which
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return np.stack([column[first] for column in columns], axis=1), codes


def multiply(
    a: tuple[Any, Any], a_values: Tensor, b: tuple[Any, Any], b_values: Tensor,
    pattern: tuple[Any, Any], width: int,
) -> Tensor:  # fmt: skip
    """The values of a product of two CSR matrices, each given as (indptr, indices), values."""
    rows = pattern[0].size - 1
    out = torch.empty(int(pattern[0][-1]), dtype=a_values.dtype)
    left, right, target = a_values.numpy(), b_values.numpy(), out.numpy()
    share = max(1, rows * BLOCK // max(int(pattern[0][-1]), 1))

    def run(first: int, last: int) -> None:
        kernels.multiply_rows(first, last, *a, left, *b, right, *pattern, width, target)

    in_blocks(rows, run, share)
    return out


def in_blocks(count: int, run: Callable[[int, int], None], share: int = BLOCK) -> None:
    """``run(first, last)`` over ``range(count)``, on as many threads as torch may use."""
    threads = min(torch.get_num_threads(), max(1, count // share))
    if threads == 1:
        run(0, count)
        return
    cuts = [count * k // threads for k in range(threads + 1)]
    pool = _pool(threads)
    for future in [pool.submit(run, first, last) for first, last in pairwise(cuts)]:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="pullback")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork inherits no threads
