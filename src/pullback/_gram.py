"""Gram matrices J1 J2' of Jacobians, without the Jacobians where these are large.

Where the columns are parameters that all samples share, a block of J is a sum of outer products,
and the inner products of two rows are made of those of the factors: for a linear layer
``(d1 · d2) (a1 · a2)``, whatever the size of its weight. Other blocks are multiplied, a few columns
at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._engines import BYTES_AT_ONCE, chunks
from ._linear import GraphProducts
from ._trees import total_numel
from .sparse.backward_graph import backward_graph
from .sparse.captured import NotCaptured
from .sparse.factored import Block, Factored
from .sparse.graph import split
from .sparse.trial import rounding_of, same, weights

# Of so many entries, a matrix is formed before its structure is found.
_SMALL = 2**18
# Multiplications that one call of a library kernel is worth.
_CALL = 5e4


@dataclass
class Side:
    """The rows of one Jacobian: their products and, where it has that form, its blocks."""

    products: GraphProducts
    blocks: list[Block] | None
    samples: Tensor | None


def side_of(caller: str, products: GraphProducts) -> Side:
    """Raises the error of a backward that is not linear in its cotangent."""
    with torch.no_grad():
        blocks, rows = _blocks(caller, products)
    return Side(products, blocks, rows)


def _blocks(caller: str, products: GraphProducts) -> tuple[list[Block] | None, Tensor | None]:
    live = [t.requires_grad for t in products.outputs]
    entries = total_numel(products.outputs) * total_numel(products.like)
    if not all(live) or entries < _SMALL:
        return None, None
    try:
        found = backward_graph(caller, products.outputs, products.inputs, products.like)
    except NotCaptured:
        return None, None
    forward, _, handed = split(found.graph)
    factored = Factored.of(caller, found.graph, handed, key=found.key)
    if factored is None:
        return None, None
    blocks = factored.blocks(forward(*found.saved)[: len(handed)])
    rows = torch.from_numpy(factored.samples.rows.copy()).to(blocks[0].d.device)
    return (blocks, rows) if _agree(blocks, rows, products) else (None, None)


def _agree(blocks: Sequence[Block], rows: Tensor, products: GraphProducts) -> bool:
    """Whether a random v J of the blocks is that of the backward pass."""
    cotangents = weights(products.outputs)
    truth = products.one(cotangents, create_graph=False)
    v = torch.cat([c.reshape(-1) for c in cotangents])[rows]
    loose = max(rounding_of(t.dtype) for t in (*products.outputs, *products.like))
    return all(
        same(block.pulled(v.to(block.d.dtype)).to(g.dtype), g.reshape(-1), loose)
        for block, g in zip(blocks, truth, strict=True)
    )


def gram(left: Side, right: Side, dtype: torch.dtype) -> Tensor:
    """J1 J2', shape (m1, m2)."""
    with torch.no_grad():
        if left.blocks is None or right.blocks is None:
            return _by_rows(left.products, right.products, dtype)
        found = _by_blocks(left, right, dtype)
        return _symmetric(found) if left is right else found


def _symmetric(found: Tensor) -> Tensor:
    """Equal to its transpose bit for bit, which no matrix product promises to be."""
    return (found + found.T).mul_(0.5)


def _by_blocks(left: Side, right: Side, dtype: torch.dtype) -> Tensor:
    assert left.samples is not None
    assert right.samples is not None
    assert left.blocks is not None
    assert right.blocks is not None
    m1, m2 = left.samples.numel(), right.samples.numel()
    whole = torch.zeros(m1, m2, dtype=dtype, device=left.samples.device)
    for one, two in zip(left.blocks, right.blocks, strict=True):
        kernel, explicit = _prices(one, two)
        add = _add_kernel if kernel < explicit else _add_rows
        add(whole, one, two)
    rows, columns = left.samples.reshape(-1), right.samples.reshape(-1)
    placed = torch.empty_like(whole)
    placed[rows[:, None], columns[None, :]] = whole
    return placed


def _prices(one: Block, two: Block) -> tuple[float, float]:
    """Multiplications of the inner products of factors, and of those of rows."""
    (n1, o1, l1, h), (n2, o2, l2, _) = one.d.shape, two.d.shape
    m1, m2, size = n1 * o1, n2 * o2, one.size
    explicit = size * (m1 * m2 + m1 * l1 + m2 * l2) + 3 * _CALL
    alike = one.kind == two.kind != "sum" and one.first == two.first
    if not alike:
        return float("inf"), float(explicit)
    k = one.a.shape[2] if one.kind == "outer" else 1
    pairs = m1 * l1 * m2 * l2
    return n1 * l1 * n2 * l2 * k + pairs * (h + 4.0) + 4 * _CALL, float(explicit)


def _add_kernel(whole: Tensor, one: Block, two: Block) -> None:
    """``sum over l, l' of (a a') (d d')``, a few samples at a time."""
    (n1, o1, l1, h), (n2, o2, l2, _) = one.d.shape, two.d.shape
    right = two.d.reshape(-1, h)
    each = o1 * l1 * n2 * o2 * l2 * one.d.element_size()
    out = whole.view(n1, o1, n2, o2)
    for start, stop in chunks(n1, None, 2 * each):
        k = stop - start
        beside = _between(one.a[start:stop], two.a, one.kind, one.d.dtype)
        inner = one.d[start:stop].reshape(-1, h) @ right.T
        if l1 == l2 == 1:
            inner = inner.view(k, o1, n2, o2) * beside.view(k, 1, n2, 1)
        else:
            inner = inner.view(k, o1, l1, n2, o2, l2) * beside.view(k, 1, l1, n2, 1, l2)
            inner = inner.sum((2, 5))
        out[start:stop] += inner


def _between(left: Tensor, right: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """The inner products of all a of one side with all of the other."""
    if kind == "table":
        one, two = left.reshape(-1, 1), right.reshape(1, -1)
        return ((one == two) & (one >= 0)).to(dtype)
    return left.reshape(-1, left.shape[2]) @ right.reshape(-1, right.shape[2]).T


def _add_rows(whole: Tensor, one: Block, two: Block) -> None:
    """Products of the rows themselves, in runs of samples that memory holds."""
    runs = [list(chunks(len(b.d), None, 2 * b.d.shape[1] * b.size * b.d.element_size()))
            for b in (one, two)]  # fmt: skip
    for start, stop in runs[0]:
        left = one.rows(start, stop).reshape(-1, one.size)
        above = slice(start * one.d.shape[1], stop * one.d.shape[1])
        for first, last in runs[1]:
            same_rows = one is two and (start, stop) == (first, last)
            right = left if same_rows else two.rows(first, last).reshape(-1, two.size)
            beside = slice(first * two.d.shape[1], last * two.d.shape[1])
            whole[above, beside].addmm_(left.to(whole.dtype), right.to(whole.dtype).T)


def _by_rows(one: GraphProducts, two: GraphProducts, dtype: torch.dtype) -> Tensor:
    """The rows of a few columns at a time, as many as memory holds; of a tensor that is too large
    a few rows at a time."""
    m1, m2 = total_numel(one.outputs), total_numel(two.outputs)
    whole = torch.zeros(m1, m2, dtype=dtype, device=one.like[0].device)
    for group in _groups(one.like, max(m1, m2)):
        left, right = _Columns(one, group, dtype), _Columns(two, group, dtype)
        for start, stop in left.runs():
            upper = left.rows(start, stop)
            for first, last in right.runs():
                if one is two and first < start:
                    continue
                again = one is two and (start, stop) == (first, last)
                lower = upper if again else right.rows(first, last)
                whole[start:stop, first:last].addmm_(upper, lower.T)
    if one is two:
        upper = whole.triu()
        return upper + upper.triu(1).T
    return whole


def _groups(like: Sequence[Tensor], rows: int) -> list[list[int]]:
    """Which inputs to take together: those whose columns fit into memory for all rows."""
    groups: list[list[int]] = []
    held = 0
    for k, tensor in enumerate(like):
        size = rows * tensor.numel() * tensor.element_size()
        if not groups or held + size > BYTES_AT_ONCE:
            groups.append([])
            held = 0
        groups[-1].append(k)
        held += size
    return groups


class _Columns:
    """Some inputs of a Jacobian."""

    def __init__(self, products: GraphProducts, group: Sequence[int], dtype: torch.dtype) -> None:
        self._products = GraphProducts(
            products.outputs,
            [products.inputs[k] for k in group],
            [products.like[k] for k in group],
            products.private,
            products.outside,
        )
        self._dtype = dtype
        self._m = total_numel(products.outputs)
        self._width = total_numel(self._products.like)

    def runs(self) -> list[tuple[int, int]]:
        return list(chunks(self._m, None, self._width * self._dtype.itemsize))

    def rows(self, start: int, stop: int) -> Tensor:
        units, at = [], 0
        for output in self._products.outputs:
            size = output.numel()
            unit = output.new_zeros(stop - start, size, requires_grad=False)
            inside = torch.arange(max(start, at), min(stop, at + size), device=unit.device)
            unit[inside - start, inside - at] = 1
            units.append(unit.reshape(stop - start, *output.shape))
            at += size
        found = self._products.many(units).gradients
        flat = [g.reshape(stop - start, -1) for g in found]
        return torch.cat(flat, dim=1).to(self._dtype)
