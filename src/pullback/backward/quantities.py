"""Everything of a pass that depends on the cotangents, numbered: what passed, and what was left.

An upstream that is one contribution has that contribution's number, so a page that holds values
holds each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .. import _checks
from .events import Cotangent, PassData


class Place(NamedTuple):
    """Where a quantity stands in a record.

    ``seed``: the cotangent of output ``at``; ``upstream``: slot ``slot`` of node ``at``; ``edge``:
    the edge ``slot`` of node ``at``; ``deposit``: that on leaf ``at``.
    """

    kind: Literal["seed", "upstream", "edge", "deposit"]
    at: int
    slot: int


@dataclass(frozen=True, eq=False)
class Quantities:
    """``items[number_at[place]]`` is what passed at ``place``; ``first`` is a place of each."""

    items: tuple[Cotangent, ...]
    first: tuple[Place, ...]
    number_at: dict[Place, int]

    @property
    def entries(self) -> int:
        return sum(size_of(item) for item in self.items)


def size_of(cotangent: Cotangent) -> int:
    return math.prod(cotangent.shape)


def quantities_of(data: PassData) -> Quantities:
    items: list[Cotangent] = []
    first: list[Place] = []
    number_at: dict[Place, int] = {}
    known: dict[int, int] = {}
    for place, cotangent in places(data):
        if id(cotangent) not in known:
            known[id(cotangent)] = len(items)
            items.append(cotangent)
            first.append(place)
        number_at[place] = known[id(cotangent)]
    return Quantities(tuple(items), tuple(first), number_at)


def places(data: PassData) -> Iterator[tuple[Place, Cotangent]]:
    """Every place at which something passed, in the order of the record."""
    for k, edge in enumerate(data.seeds):
        if edge.contribution is not None:
            yield Place("seed", k, 0), edge.contribution
    for node in data.nodes:
        for slot, upstream in enumerate(node.upstream):
            if upstream is not None:
                yield Place("upstream", node.index, slot), upstream
        for k, edge in enumerate(node.edges):
            if edge.contribution is not None:
                yield Place("edge", node.index, k), edge.contribution
    for k, leaf in enumerate(data.leaves):
        if leaf.key in data.deposits:
            yield Place("deposit", k, 0), _deposit(data, k)


def _deposit(data: PassData, k: int) -> Cotangent:
    """What its node received, where that is the deposit: the same numbers are held once.

    A hook may stand between the two: a look takes the gradient of an inner input before it.
    """
    leaf = data.leaves[k]
    tensor = data.deposits[leaf.key]
    if leaf.node is not None:
        upstream = data.nodes[leaf.node].upstream
        only = upstream[0] if len(upstream) == 1 else None
        if only is not None and only.values is not None and _same(only.values, tensor):
            return only
    return plain(tensor)


def _same(first: Tensor, second: Tensor) -> bool:
    alike = first.layout is torch.strided and second.layout is torch.strided
    return first is second or (
        alike
        and (first.dtype, first.device) == (second.dtype, second.device)
        and torch.equal(first, second)
    )


def entries_of(tensor: Tensor) -> Tensor:
    """The entries as a page shows them, flat in C order, on the CPU: moduli of complex ones."""
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    dense = dense.detach().cpu().resolve_conj().resolve_neg()
    return (dense.abs() if dense.is_complex() else dense).reshape(-1)


def plain(tensor: Tensor) -> Cotangent:
    """A tensor as data, its values shared with it."""
    dtype, device = _checks.dtype_text(tensor.dtype), str(tensor.device)
    return Cotangent(tuple(tensor.shape), dtype, device, None, tensor)
