"""From products to the values of a pattern, in CSR order, a chunk of colors at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _torch
from .coloring import Coloring
from .coloring.recover import flattened, sources
from .coloring.substitution import Substitution, substitution
from .pattern import SparsityPattern, index_dtype
from .products import Source


class Kept:
    """Index arrays as tensors, made once for each device."""

    def __init__(self) -> None:
        self._on: dict[tuple[str, torch.device], Tensor] = {}

    def __call__(self, name: str, device: torch.device, make: Callable[[], Any]) -> Tensor:
        key = (name, device)
        if key not in self._on:
            with _torch.outside_transforms(), torch.inference_mode(False):
                self._on[key] = torch.from_numpy(np.ascontiguousarray(make())).to(device)
        return self._on[key]

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._on.values())


class Assembly:
    """How the values follow from the products of a coloring.

    Entry ``e`` of the values is ``products[product[e]][position[e]]``. Products along rows come
    first; the entries of product ``c`` are ``order[starts[c]:starts[c + 1]]``.
    """

    def __init__(self, pattern: SparsityPattern, coloring: Coloring, kept: Kept) -> None:
        self.pattern = pattern
        self.coloring = coloring
        self.num_rows_products = coloring.split.rows
        self.kept = kept

    @property
    def num_products(self) -> int:
        return self.coloring.num_colors

    @cached_property
    def in_order(self) -> bool:
        """Whether the products, one after the other, are the values already."""
        m = self.pattern.shape[0]
        rows = self.coloring
        return (
            self.pattern.is_full
            and rows.kind == "rows"
            and bool((rows.colors == torch.arange(m)).all())
        )

    @cached_property
    def solving(self) -> Substitution | None:
        """The steps by which entries follow from sums, where the coloring shows only these."""
        if self.coloring.kind != "acyclic":
            return None
        with _torch.outside_transforms():
            return substitution(self.pattern, self.coloring)

    def flat_places(self) -> npt.NDArray[Any]:
        """The place of every entry in all products, flattened one after the other. Worked out at
        each request: what evaluations read is ``kept``."""
        with _torch.outside_transforms():
            found = sources(self.pattern, self.coloring)
        m, n = self.pattern.shape
        split = self.num_rows_products
        largest = split * n + (self.num_products - split) * m
        return flattened(found, (m, n), split, index_dtype(max(largest, 1)))

    @cached_property
    def _by_product(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        (m, n), split = self.pattern.shape, self.num_rows_products
        product = self.flat_places()
        columns = product >= split * n
        product[~columns] //= max(n, 1)
        product[columns] = split + (product[columns] - split * n) // max(m, 1)
        order = np.argsort(product, kind="stable").astype(index_dtype(max(product.size, 1)))
        counts = np.bincount(product, minlength=self.num_products)
        return order, np.concatenate([[0], np.cumsum(counts)])

    def colors(self, of_rows: bool, device: torch.device) -> Tensor:
        """The color of every row, or of every column, counted from 0."""

        def narrow() -> npt.NDArray[Any]:
            coloring = self.coloring
            found = coloring.row_colors if of_rows else coloring.col_colors
            return found.numpy().astype(index_dtype(self.num_products))

        return self.kept(f"colors of {'rows' if of_rows else 'columns'}", device, narrow)

    def flat(self, device: torch.device) -> Tensor:
        return self.kept("flat", device, self.flat_places)

    def order(self, device: torch.device) -> Tensor:
        return self.kept("order", device, lambda: self._by_product[0])

    def positions(self, device: torch.device) -> Tensor:
        """Places in the flattened products, in the order of the products."""
        return self.kept("positions", device, lambda: self.flat_places()[self._by_product[0]])

    def entries(self, start: int, stop: int) -> tuple[int, int]:
        starts = self._by_product[1]
        return int(starts[start]), int(starts[stop])


@dataclass(frozen=True)
class Chunk:
    """Colors ``start`` to ``stop``, all of one kind: products along rows or along columns."""

    along_rows: bool
    start: int
    stop: int


def chunks_of(assembly: Assembly, step: int) -> Iterator[Chunk]:
    split, total = assembly.num_rows_products, assembly.num_products
    for along_rows, first, last in ((True, 0, split), (False, split, total)):
        for start in range(first, last, step):
            yield Chunk(along_rows, start, min(start + step, last))


def seeds(assembly: Assembly, chunk: Chunk, like: Tensor) -> Tensor:
    """The 0/1 matrix of a chunk's products: row ``c - start`` is 1 where the color is ``c``."""
    first = 0 if chunk.along_rows else assembly.num_rows_products
    colors = assembly.colors(chunk.along_rows, like.device)
    wanted = torch.arange(chunk.start - first, chunk.stop - first, device=like.device)
    return (colors == wanted.to(colors.dtype).unsqueeze(1)).to(like.dtype)


def values_of(assembly: Assembly, source: Source, chunk_size: int, dtype: torch.dtype) -> Tensor:
    """The values, shape ``(nnz,)``. Differentiable where the products are."""
    device = (*source.outputs, *source.primals)[0].device
    like = torch.empty(0, dtype=dtype, device=device)
    nnz = assembly.pattern.nnz
    if assembly.num_products == 0 or nnz == 0:
        return like.new_zeros(nnz)
    if assembly.solving is not None:
        matrices = [seeds(assembly, chunk, like) for chunk in chunks_of(assembly, chunk_size)]
        return solved(assembly.solving, [source.rev(m, chunk_size).to(dtype) for m in matrices])
    pieces: list[Tensor] = []
    values: Tensor | None = None
    for chunk in chunks_of(assembly, chunk_size):
        matrix = seeds(assembly, chunk, like)
        push = source.rev if chunk.along_rows else source.fwd
        found = push(matrix, chunk_size).to(dtype)
        whole = chunk.stop - chunk.start == assembly.num_products
        if whole or found.requires_grad or _in_transform():
            pieces.append(found.reshape(-1))
            continue
        if values is None:
            values = like.new_zeros(nnz)
        _write(assembly, chunk, found, values)
    if values is not None:
        return values
    flat = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return flat if assembly.in_order else flat.index_select(0, assembly.flat(device))


def solved(steps: Substitution, products: Sequence[Tensor]) -> Tensor:
    """The values, without a graph, from all products in order."""
    whole = products[0] if len(products) == 1 else torch.cat([*products])
    plain = whole.detach().cpu()
    wide = plain.float() if plain.dtype is torch.bfloat16 else plain
    return torch.from_numpy(steps.solve(wide.numpy())).to(whole.dtype).to(whole.device)


def _write(assembly: Assembly, chunk: Chunk, found: Tensor, values: Tensor) -> None:
    """Put a chunk's entries straight into the values."""
    m, n = assembly.pattern.shape
    if assembly.in_order:
        values[chunk.start * n : chunk.stop * n] = found.reshape(-1)
        return
    split = assembly.num_rows_products
    before = chunk.start * n if chunk.along_rows else split * n + (chunk.start - split) * m
    first, last = assembly.entries(chunk.start, chunk.stop)
    places = assembly.positions(values.device)[first:last] - before
    values[assembly.order(values.device)[first:last]] = found.reshape(-1).index_select(0, places)


def _in_transform() -> bool:
    return _torch.running_transform() is not None
