"""From the products of a lifted factor to its values: ``template + A f``, in the cheapest form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import BLOCK, in_blocks
from .coloring import Substitution
from .evaluate import solved
from .lift import kernels
from .lift.codes import encoded, encoded_together
from .lift.factor import Terms
from .lift.pairs import Pairs
from .lift.runs import Runs, runs_of

# Terms, padded to as many for every entry, that tensor calls put together as fast as a kernel of
# its own: a compiler sees through them.
_FEW = 16_384
# Tables up to this length stay in a processor's cache.
_TABLE = 4_096
_KERNEL_DTYPES = (torch.float32, torch.float64)
_ROW_BY_ROW = ("gather", "pick", "sums", "pick onto template", "sums onto template")
Run = Callable[[Tensor, Tensor | None], Tensor]
Fill = Callable[[int, int, Any, Any], None]


class Assembler:
    """``values = assembler(f)`` for one dtype and device, with ``f`` of ``size`` entries.

    ``form`` is "in order" (f is the values), "permuted" (f with its dims in another order),
    "gather" (each value is an entry of f), "pick" (a weighed entry of f and a constant), "sums" (a
    run of weighed entries), "pick onto template" and "sums onto template" (the same where most
    entries are constant), "blocks" (the same sums again and again, as for the samples of a batch:
    one matrix product), "runs" (any of these where row after row repeats: ``rows`` says where they
    begin), "substitution" (values are solved for, one after the other), or
    "index_add", which does as much as "sums" where no kernel is compiled for the dtype or the
    device.
    """

    def __init__(
        self,
        terms: Terms,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        solving: Substitution | None = None,
        rows: Any = None,
    ) -> None:
        self.nnz = terms.starts.size - 1
        self._dtype, self._device = dtype, device
        self._dims: list[tuple[int, int]] = []
        self._runs: Runs | None = None
        self._traceable: Callable[[Tensor], Tensor] | None = None
        if solving is not None:
            self.form, self.nnz = "substitution", solving.nnz
            self._run = _copied(lambda flat: solved(solving, [flat.view(-1, solving.size)]))
            return
        self.form = self._form(terms, size)
        make: dict[str, Callable[[Terms], Run]] = {
            "in order": lambda terms: _copied(lambda flat: flat),
            "permuted": lambda terms: _copied(self._permuted()),
            "gather": self._gather,
            "pick": self._pick,
            "pick onto template": self._pick_onto,
            "sums": self._sums,
            "sums onto template": self._sums_onto,
            "blocks": self._by_blocks,
            "index_add": self._by_torch,
            "runs": lambda terms: self._by_runs(),
        }
        most = int(np.diff(terms.starts).max(initial=0))
        few = dtype in _KERNEL_DTYPES and max(1, most) * self.nnz <= _FEW
        if self.form in _ROW_BY_ROW and rows is not None and not few:
            weight, template = terms.weight, terms.template
            added = np.zeros(self.nnz) if template is None else template
            kind = np.float32 if dtype is torch.float32 else np.float64
            self._runs = runs_of(rows, terms.starts, terms.sources, weight, added, kind)
            self.form = self.form if self._runs is None else "runs"
        self._run = make[self.form](terms)
        if self.form == "in order":
            self._traceable = lambda flat: flat
        elif self.form == "permuted":
            self._traceable = self._permuted()
        elif few:
            self._traceable = self._of_few(terms, np.diff(terms.starts))

    def __call__(self, flat: Tensor, into: Tensor | None = None) -> Tensor:
        """``flat``: the products, one after the other; without a graph. ``into``, contiguous and
        apart from them, receives the values."""
        return self._run(flat, into)

    def _form(self, terms: Terms, size: int) -> str:
        counts = np.diff(terms.starts)
        most, least = int(counts.max(initial=0)), int(counts.min(initial=1))
        single = most == least == 1
        plain = single and terms.weights is None and terms.template is None
        numbers = np.arange(size if plain and self.nnz == size else 0, dtype=terms.sources.dtype)
        if plain and self.nnz == size and bool((terms.sources == numbers).all()):
            return "in order"
        if plain and self.nnz == size and (dims := _dims(terms.sources)) is not None:
            self._dims = dims
            return "permuted"
        if self._device.type != "cpu" or self._dtype not in _KERNEL_DTYPES:
            return "index_add"
        if plain:
            return "gather"
        if single:
            return "pick"
        if terms.template is None:
            return "sums" if terms.blocks is None else "blocks"
        return "pick onto template" if most == 1 else "sums onto template"

    @property
    def is_traceable(self) -> bool:
        """Whether ``traceable`` is at hand."""
        return self._traceable is not None

    def traceable(self, flat: Tensor) -> Tensor:
        """The same values by torch's own calls alone, which a compiler sees through."""
        assert self._traceable is not None
        return self._traceable(flat)

    def _permuted(self) -> Callable[[Tensor], Tensor]:
        order = sorted(range(len(self._dims)), key=lambda d: -self._dims[d][1])
        shape = [self._dims[d][0] for d in order]
        back = [order.index(d) for d in range(len(order))]
        return lambda flat: flat.view(shape).permute(back).reshape(-1)

    def _of_few(self, terms: Terms, counts: Any) -> Callable[[Tensor], Tensor]:
        """Each entry a sum of as many terms as the longest has; those it lacks weigh nothing."""
        depth = int(counts.max(initial=0))
        place = np.repeat(np.arange(self.nnz), counts)
        nth = np.arange(terms.sources.size) - np.repeat(terms.starts[:-1], counts)
        sources = np.zeros((depth, self.nnz), dtype=np.int64)
        weights = np.zeros((depth, self.nnz))
        sources[nth, place], weights[nth, place] = terms.sources, terms.weight
        read = torch.from_numpy(sources.reshape(-1)).to(self._device)
        factor = torch.from_numpy(weights).to(self._device, self._dtype)
        whole, ones = bool((factor != 0).all()), bool((factor == 1).all())
        template = terms.template
        added = None if template is None else torch.from_numpy(template).to(factor)

        def run(flat: Tensor) -> Tensor:
            found = flat.index_select(0, read).view(depth, self.nnz)
            found = found if ones else found * factor
            # What weighs nothing is no term: 0 * inf would be one.
            found = found if whole else torch.where(factor != 0, found, 0)
            found = found[0] if depth == 1 else found.sum(0)
            return found if added is None else found + added

        return run

    def _gather(self, terms: Terms) -> Run:
        sources = _unsigned(terms.sources)
        return self._filled(lambda a, b, f, out: kernels.gather(sources[a:b], f, out))

    def _pick(self, terms: Terms) -> Run:
        sources = _unsigned(terms.sources)
        codes, weights, added = self._coded(terms, terms.template)

        def fill(a: int, b: int, f: Any, out: Any) -> None:
            coded, weight, add = _cut(a, b, codes, weights, added)
            kernels.pick(sources[a:b], coded, weight, add, f, out)

        return self._filled(fill)

    def _pick_onto(self, terms: Terms) -> Run:
        assert terms.template is not None
        places, sources = _varying(terms), _unsigned(terms.sources)
        codes, weights, added = self._coded(terms, terms.template[places])

        def write(a: int, b: int, f: Any, out: Any) -> None:
            coded, weight, add = _cut(a, b, codes, weights, added)
            kernels.pick_at(places[a:b], sources[a:b], coded, weight, add, f, out)

        return self._written(terms.template, places.size, write)

    def _sums(self, terms: Terms) -> Run:
        starts, sources = _unsigned(terms.starts), _unsigned(terms.sources)
        codes, weights, _ = self._coded(terms)
        return self._filled(
            lambda a, b, f, out: kernels.add_up(starts[a : b + 1], sources, codes, weights, f, out)
        )

    def _by_runs(self) -> Run:
        runs = self._runs
        assert runs is not None
        count = runs.rows.size
        share = max(1, count * BLOCK // max(self.nnz, 1))

        def run(flat: Tensor, into: Tensor | None) -> Tensor:
            out = torch.empty(self.nnz, dtype=self._dtype) if into is None else into
            source, target = flat.numpy(), out.numpy()
            in_blocks(count, lambda a, b: runs.fill(a, b, source, target), share)
            return out

        return run

    def _by_blocks(self, terms: Terms) -> Run:
        assert terms.blocks is not None
        count, matrix = terms.blocks
        weights = torch.from_numpy(self._own(matrix.T))

        return _copied(lambda flat: (flat.view(count, -1) @ weights).view(-1))

    def _sums_onto(self, terms: Terms) -> Run:
        assert terms.template is not None
        places, sources = _varying(terms), _unsigned(terms.sources)
        starts = _unsigned(np.append(terms.starts[places], terms.starts[-1]))
        codes, weights, _ = self._coded(terms)
        return self._written(
            terms.template,
            places.size,
            lambda a, b, f, out: kernels.add_up_at(
                places[a:b], starts[a : b + 1], sources, codes, weights, f, out
            ),
        )

    def _filled(self, fill: Fill) -> Run:
        def run(flat: Tensor, into: Tensor | None) -> Tensor:
            return filled(self.nnz, self._dtype, flat.numpy(), fill, into)

        return run

    def _written(self, template: Any, count: int, write: Fill) -> Run:
        whole = torch.from_numpy(self._own(template))

        def run(flat: Tensor, into: Tensor | None) -> Tensor:
            out = whole.clone() if into is None else into.copy_(whole)
            source, target = flat.numpy(), out.numpy()
            in_blocks(count, lambda a, b: write(a, b, source, target))
            return out

        return run

    def _by_torch(self, terms: Terms) -> Run:
        def on_device(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

        # A sum in half precision would stop growing where its terms fall below its last digit.
        wide = self._dtype if self._dtype.itemsize > 2 else torch.float32
        counts = np.diff(terms.starts)
        entries = on_device(np.repeat(np.arange(self.nnz, dtype=np.int32), counts))
        sources = on_device(terms.sources)
        weights = None if terms.weights is None else on_device(terms.weight).to(wide)
        template = np.zeros(self.nnz) if terms.template is None else terms.template
        whole = on_device(template).to(wide)

        def run(flat: Tensor) -> Tensor:
            picked = flat.index_select(0, sources).to(wide)
            picked = picked if weights is None else picked * weights
            return whole.index_add(0, entries, picked).to(self._dtype)

        return _copied(run)

    def _coded(self, terms: Terms, template: Any = None) -> tuple[Any, Any, Any]:
        """Codes for the terms, the weight of each code, and what is added to it; no codes, and
        what would be read by them, where the tables would be too long to be at hand."""
        codes, weights = _codes_of(terms)
        added = np.zeros(weights.size)
        if template is not None:
            codes, weights, added = encoded_together((codes, weights), encoded(template))
        codes, weights, added = _at_hand(codes, weights, added)
        return codes, self._own(weights), self._own(added)

    def _own(self, array: Any) -> Any:
        return _own(self._dtype, array)


def _copied(run: Callable[[Tensor], Tensor]) -> Run:
    return lambda flat, into: run(flat) if into is None else into.copy_(run(flat))


def _codes_of(terms: Terms) -> tuple[Any, Any]:
    """The weights as short codes and a table: they are few different numbers, and reading them is
    what an assembly takes its time with."""
    if terms.weights is None:
        return np.zeros(terms.sources.size, dtype=np.uint8), np.ones(1)
    return encoded(terms.weights) if terms.codes is None else (terms.codes, terms.weights)


def _at_hand(codes: Any, *tables: Any) -> tuple[Any, ...]:
    if tables[0].size <= _TABLE:
        return codes, *tables
    return None, *(table[codes] for table in tables)


def _cut(first: int, last: int, codes: Any, one: Any, other: Any) -> tuple[Any, Any, Any]:
    """Codes and their two tables for a part of the entries."""
    if codes is None:
        return None, one[first:last], other[first:last]
    return codes[first:last], one, other


def _own(dtype: torch.dtype, array: Any) -> Any:
    kind = np.float32 if dtype is torch.float32 else np.float64
    return np.ascontiguousarray(array, dtype=kind)


_DIMS_AT_MOST = 5


def _dims(sources: Any) -> list[tuple[int, int]] | None:
    """The (size, stride) of each dim, if ``sources`` walks over a dense array with its dims in some
    order; else None."""
    found: list[tuple[int, int]] = []
    rest = sources
    while rest.size > 1:
        stride = int(rest[1] - rest[0])
        breaks = np.diff(rest) != stride
        size = int(np.argmax(breaks)) + 1 if breaks.any() else rest.size
        if stride < 1 or rest.size % size or len(found) == _DIMS_AT_MOST:
            return None
        table = rest.reshape(-1, size)
        if not (table - table[:, :1] == stride * np.arange(size, dtype=rest.dtype)).all():
            return None
        found.append((size, stride))
        rest = table[:, 0]
    reach = 1
    for size, stride in sorted(found, key=lambda d: d[1]):
        if stride != reach:
            return None
        reach *= size
    return found[::-1] if reach == sources.size and not (rest.size and rest[0]) else None


def _unsigned(indices: Any) -> Any:
    """The same memory where it can be: none of them is negative."""
    if indices.dtype == np.int32 and indices.flags.c_contiguous:
        return indices.view(np.uint32)
    return np.ascontiguousarray(indices, dtype=np.uint32)


def _varying(terms: Terms) -> Any:
    """The entries that read anything."""
    return _unsigned(np.flatnonzero(terms.starts[1:] > terms.starts[:-1]))


class PairAssembler:
    """``values = assembler(f, g)`` from the products of two factors that are multiplied out."""

    form = "products"

    def __init__(self, pairs: Pairs, dtype: torch.dtype) -> None:
        self._starts = _unsigned(pairs.starts)
        self._first, self._second = _unsigned(pairs.first), _unsigned(pairs.second)
        self._codes, weights = _at_hand(*encoded(pairs.weights))
        self._weights = _own(dtype, weights)
        self._nnz, self._dtype = pairs.starts.size - 1, dtype

    def __call__(self, left: Tensor, right: Tensor, into: Tensor | None = None) -> Tensor:
        g, starts = right.numpy(), self._starts
        read = (self._first, self._second, self._codes, self._weights)

        def fill(a: int, b: int, f: Any, out: Any) -> None:
            first, second, codes, weights = read
            kernels.add_products(starts[a : b + 1], first, second, codes, weights, f, g, out)

        return filled(self._nnz, self._dtype, left.numpy(), fill, into)


def filled(
    count: int, dtype: torch.dtype, flat: Any, fill: Fill, into: Tensor | None = None
) -> Tensor:
    """A vector, new or ``into``, written by ``fill(first, last, flat, out[first:last])`` part by
    part."""
    out = torch.empty(count, dtype=dtype) if into is None else into
    target = out.numpy()
    in_blocks(count, lambda a, b: fill(a, b, flat, target[a:b]))
    return out


def multiply(
    a: tuple[Any, Any], a_values: Tensor, b: tuple[Any, Any], b_values: Tensor,
    pattern: tuple[Any, Any], width: int, into: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The values of a product of two CSR matrices, each given as (indptr, indices), values."""
    rows = pattern[0].size - 1
    out = torch.empty(int(pattern[0][-1]), dtype=a_values.dtype) if into is None else into
    left, right, target = a_values.numpy(), b_values.numpy(), out.numpy()
    share = max(1, rows * BLOCK // max(int(pattern[0][-1]), 1))

    def run(first: int, last: int) -> None:
        kernels.multiply_rows(first, last, *a, left, *b, right, *pattern, width, target)

    in_blocks(rows, run, share)
    return out
