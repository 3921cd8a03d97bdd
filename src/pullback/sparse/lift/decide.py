"""The ways to lift a Jacobian, and the cheapest of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from .. import cost
from ..backward_graph import content_digest
from ..graph import PullbackGraph
from ..pattern import INT32_MAX, SparsityPattern
from ..rules.base import Declined
from .actions import Actions
from .cut import Piece, in_stages, whole
from .factor import (
    Core,
    Ends,
    Terms,
    core_of,
    ends_of,
    number_of_terms,
    product_pattern,
    terms_of,
    with_blocks,
)
from .pairs import Pairs, pairs_of
from .settled import Settled
from .spec import Factor, Lift

# Where one product of a single piece is enough, no further cut can pay.
_FEW = 2
_STAGES_AT_MOST = 16
_PAIRS_AT_MOST = 2**31
_MANY = 4
_TERMS_AT_MOST = 2**25
# From this many entries on, a second way to cut works anew what the first one knew.
_LARGE = 2**24


@dataclass(eq=False)
class Way:
    """One way to cut the graph, with what it is estimated to cost in nanoseconds."""

    graph: PullbackGraph
    pieces: list[Piece]
    ends: list[Ends]
    cores: list[Core]
    whole: SparsityPattern

    @property
    def num_products(self) -> int:
        return sum(core.num_products for core in self.cores)

    @property
    def lifts(self) -> bool:
        """Whether anything was taken out of the differentiated part."""
        return any(piece.fixed for piece in self.pieces)

    @cached_property
    def terms(self) -> int:
        return sum(number_of_terms(e, c) for e, c in zip(self.ends, self.cores, strict=True))

    @cached_property
    def assembly(self) -> list[Terms]:
        """Of each factor."""
        found = [
            terms_of(ends, core, pattern)
            for ends, core, pattern in zip(self.ends, self.cores, self.patterns, strict=True)
        ]
        if self._may_be_blocks:
            size = self.cores[0].pattern.shape[1]
            return [with_blocks(found[0], self._batch_sizes, size)]
        return found

    @property
    def _may_be_blocks(self) -> bool:
        one = len(self.pieces) == 1 and self.num_products == 1 and len(self.ends[0].exits) == 1
        return one and any(size > 1 for size in self._batch_sizes)

    @property
    def _batch_sizes(self) -> list[int]:
        """By which the arguments or the outputs may be cut into samples."""
        shapes = [m.shape for m in (*self.graph.primals, *(i.meta for i in self.graph.cotangents))]
        return [math.prod(shape[:k]) for shape in shapes for k in range(1, len(shape))]

    @cached_property
    def multiplied_out(self) -> Pairs | None:
        sizes = [
            rows * core.pattern.shape[1] + columns * core.pattern.shape[0]
            for core in self.cores
            for rows, columns in [core.choice.coloring.split]
        ]
        return pairs_of(self.assembly, self.patterns, sizes, self.whole)

    @cached_property
    def _adding(self) -> float:
        """Of putting the values together. Blocks are looked for where there are many terms."""
        nnz = self.whole.nnz
        many = _MANY * nnz < self.terms <= _TERMS_AT_MOST and self._may_be_blocks
        if many and (blocks := self.assembly[0].blocks) is not None:
            return cost.matrix_product(blocks[0], *blocks[1].shape)
        return cost.adding(self.terms, nnz)

    @cached_property
    def patterns(self) -> list[SparsityPattern]:
        """Of the factors; the only one has that of the whole."""
        if len(self.pieces) == 1:
            return [self.whole]
        return [product_pattern(e, c) for e, c in zip(self.ends, self.cores, strict=True)]

    @cached_property
    def pairs(self) -> list[int]:
        """Products of two numbers in each multiplication of factors, from the left."""
        if len(self.pieces) == 1:
            return []
        found, product = [], _marks(self.patterns[0])
        for pattern in self.patterns[1:]:
            lengths = np.diff(pattern.indptr)
            found.append(int(lengths[product.indices].sum(dtype=np.int64)))
            if sum(found) > _PAIRS_AT_MOST:
                raise Declined("multiplying its factors takes too long")
            product = product @ _marks(pattern)
            product.data[:] = 1
            self.products.append(SparsityPattern._of_stored(_sorted(product)))
        return found

    @cached_property
    def products(self) -> list[SparsityPattern]:
        return []

    @cached_property
    def cost(self) -> float:
        total = self._assembling + cost.factors(len(self.pieces))
        for piece, core in zip(self.pieces, self.cores, strict=True):
            count, (rows, columns) = core.num_products, core.pattern.shape
            total += cost.work(self.graph, piece.varying, count)
            total += cost.seeding(count, rows) + cost.seeding(count, columns)
        return total

    @property
    def _assembling(self) -> float:
        nnz = self.whole.nnz
        if len(self.pieces) == 2 and (pairs := self.multiplied_out) is not None:
            return cost.adding_products(pairs.first.size, nnz)
        entries = [p.nnz for p in self.products] if self.pairs else []
        return self._adding + sum(
            cost.multiplying(n, e) for n, e in zip(self.pairs, entries, strict=True)
        )


class Lifter:
    """Finds ways to lift one captured graph, whose Jacobian has ``pattern``.

    ``tensors`` are the graph's inputs at the sample, ``key`` its structure; ``mode`` and
    ``forward`` (asked once, says why there are no products J t) bind the products of the parts.
    """

    def __init__(
        self,
        caller: str,
        graph: PullbackGraph,
        tensors: Sequence[Tensor],
        pattern: SparsityPattern,
        key: str,
        mode: str,
        forward: Callable[[], str],
        changing: frozenset[str] = frozenset(),
    ) -> None:
        self._caller, self._graph, self._pattern = caller, graph, pattern
        self._key, self._mode, self._forward = key, mode, forward
        self._settled = Settled(graph, tensors, changing)
        self._tensors = {i.name: t for i, t in zip(graph.inputs, tensors, strict=False)}
        self._actions = Actions(graph, self._settled)
        self._factors_multiply = all(
            i.meta.device.type == "cpu" and _is_native(i.meta.dtype)
            for i in graph.inputs
            if i.kind in ("primal", "cotangent")
        )

    def best(self, fewest: bool = False) -> Way | str:
        """The cheapest way, or that of the ``fewest`` products; or why there is none."""
        if self._pattern.nnz > INT32_MAX:
            return "it has more entries than 32-bit numbers count"
        found: list[Way] = []
        reason = "nothing but its differentiated part would be left"
        try:
            one = self._way([whole(self._caller, self._graph, self._actions)])
            if one.lifts:
                found.append(one)
            few = one.num_products <= _FEW
        except Declined as why:
            reason, few = str(why), False
        if not few and self._factors_multiply:
            pieces = in_stages(self._caller, self._graph, self._actions)
            if 1 < len(pieces) <= _STAGES_AT_MOST:
                try:
                    several = self._way(pieces)
                    if several.cost < math.inf:  # or else multiplying takes too long
                        found.append(several)
                except Declined as why:
                    reason = str(why)
        self._forget()
        if not found:
            return reason
        return min(found, key=lambda way: (way.num_products * fewest, way.cost))

    def _way(self, pieces: list[Piece]) -> Way:
        ends = [ends_of(self._graph, piece, self._actions) for piece in pieces]
        if self._pattern.nnz >= _LARGE:
            self._forget()
        cores = [self._core(p, e) for p, e in zip(pieces, ends, strict=True)]
        return Way(self._graph, pieces, ends, cores, self._pattern)

    def _forget(self) -> None:
        """Let go of what was found out about calls: it takes as much as all tensors of the graph
        together."""
        self._actions = Actions(self._graph, self._settled)
        self._graph.moves.clear()

    def _core(self, piece: Piece, ends: Ends) -> Core:
        mode = "auto" if self._mode in ("mixed", "dense") else self._mode
        found = core_of(self._caller, self._graph, piece, ends, mode)
        if found.choice.coloring.split.columns and (refusal := self._forward()):
            if mode == "fwd":
                raise Declined(refusal)
            return found.colored("rev", refusal)
        return found

    def spec(self, way: Way) -> Lift:
        """Raises ``Declined`` where the parts do not fit the pattern of the whole."""
        numbers = {node: k for k, node in enumerate(self._graph.nodes)}
        factors = [
            Factor(
                tuple(numbers[n] for n in ends.entries),
                tuple(numbers[n] for n in ends.exits),
                core.choice.coloring,
                core.choice.mode,
                terms,
                pattern,
            )
            for ends, core, terms, pattern in zip(
                way.ends, way.cores, way.assembly, way.patterns, strict=True
            )
        ]
        products = () if way.multiplied_out is not None or not way.pairs else tuple(way.products)
        if products and self._pattern.missing(products[-1]) is not None:
            raise Declined("a product of its factors falls outside of the pattern")
        if products:
            products = (*products[:-1], self._pattern)
        facts = {
            name: content_digest(self._tensors[name])
            for name in sorted(self._settled.facts)
            if name in self._tensors
        }
        return Lift(tuple(factors), products, self._key, way.multiplied_out, facts)


def _marks(pattern: SparsityPattern) -> Any:
    parts = (np.ones(pattern.nnz), pattern.indices, pattern.indptr)
    return scipy.sparse.csr_array(parts, shape=pattern.shape)


def _sorted(matrix: Any) -> Any:
    matrix.sort_indices()
    return matrix


def _is_native(dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128)
