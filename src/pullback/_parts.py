"""Parts of a Jacobian at one point: what they cost, and how they are read from few products."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _checks, _torch
from ._engines import chunks
from ._linear import GraphProducts, Products
from ._trees import from_vector, map_leaves
from .sparse.arguments import arguments_for
from .sparse.backward_graph import backward_graph
from .sparse.captured import NotCaptured
from .sparse.detect import detect
from .sparse.leaf import Leaf, leaf
from .sparse.pattern import SparsityPattern
from .sparse.products import graph_order
from .sparse.samples import Samples, coupling
from .sparse.shortcut import Shortcut, shortcut_of
from .sparse.story import Story
from .sparse.study import Study, study
from .sparse.wanted import Scheme, Wanted, entry_numbers, scheme_of

# Up to this many products, looking for a lifted way takes longer than it can spare.
_LIFT_FROM = 64
# Structures that are remembered, for operators of one function at other points.
_REMEMBERED = 16


@dataclass(frozen=True)
class Cost:
    """What a part takes: ``products``, against ``whole`` for all of the matrix, and the reason."""

    products: int
    whole: int
    reason: str


@dataclass(eq=False)
class _Structure:
    """What holds at every point of one backward graph: its pattern, the schemes found, whether
    batches of products can be believed (None: not tried out yet), and for how many products a lift
    was sought in vain."""

    pattern: SparsityPattern
    note: str = ""
    schemes: dict[Hashable, tuple[Wanted, Scheme]] = field(default_factory=dict)
    batches: bool | None = None
    fruitless: int = 0


_known: OrderedDict[str, _Structure] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Way:
    """How a part is read: by ``scheme``, or by ``shortcut`` from a lifted graph."""

    wanted: Wanted
    scheme: Scheme
    shortcut: Shortcut | None = None
    numbers: Any = None
    symmetric: bool = False

    @property
    def num_products(self) -> int:
        if self.shortcut is not None:
            return self.shortcut.num_products
        return self.scheme.num_products

    @property
    def reason(self) -> str:
        if self.shortcut is not None:
            return f"{self.shortcut.products}; {self.scheme.num_products:,} without lifting"
        rows, columns = self.scheme.split
        counts = ((rows, "VJP"), (columns, "JVP"))
        if self.symmetric:
            counts = ((rows + columns, "product"), (0, ""))
        kinds = [f"{k:,} {kind}{'s' * (k > 1)}" for k, kind in counts if k]
        if not kinds:
            return "no entry can be other than zero"
        return f"{' and '.join(kinds)} show{'s' * (rows + columns == 1)} every entry of it"


class Parts:
    """The structure of one operator, found when it is first asked for."""

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        primals: tuple[Any, ...],
        argnums: int | tuple[int, ...],
        up: Products,
        down: Products,
        ends: tuple[Sequence[Tensor], Sequence[Tensor]],
        forward_refusal: str = "",
        *,
        symmetric: bool = False,
    ) -> None:
        self._caller, self._func, self._primals, self._argnums = caller, func, primals, argnums
        self._up, self._down = up, down
        self._rows, self._columns = ends
        self._forward_refusal, self._symmetric = forward_refusal, symmetric
        self._found: _Structure | None = None
        # No cached properties: a frame of functools would pass for one of the user's.
        self._studied: list[Study | None] = []
        self._lifted: Shortcut | None = None
        self._versions = _versions(primals)
        self.shape = tuple(sum(t.numel() for t in side) for side in ends)
        tensors = (*self._rows, *self._columns)
        self._dtype = tensors[0].dtype
        for tensor in tensors:
            self._dtype = torch.promote_types(self._dtype, tensor.dtype)
        self._device = self._columns[0].device
        self.reasons: tuple[str, ...] = ()

    @cached_property
    def leaves(self) -> tuple[tuple[Leaf, ...], tuple[Leaf, ...]]:
        """Of outputs and inputs."""
        arguments = arguments_for(self._caller, self._primals, self._argnums, self._func)
        several = len(self._rows) > 1
        outputs = [
            leaf(f"output[{k}]" if several else "output", t) for k, t in enumerate(self._rows)
        ]
        return tuple(outputs), arguments.inputs

    @property
    def whole(self) -> int:
        """How many products show all of the matrix."""
        m, n = self.shape
        return m if self._forward_refusal else min(m, n)

    @property
    def pattern(self) -> SparsityPattern:
        return self._structure.pattern

    @property
    def _structure(self) -> _Structure:
        if self._found is None:
            self._found = self._look()
        return self._found

    def _look(self) -> _Structure:
        m, n = self.shape
        if not isinstance(self._up, GraphProducts):
            return _Structure(SparsityPattern.full((m, n)), "there is no backward of it to look at")
        try:
            up = self._up
            found = backward_graph(self._caller, up.outputs, up.inputs, up.like, _known)
        except NotCaptured as refusal:
            return _Structure(SparsityPattern.full((m, n)), str(refusal))
        if found.key in _known:
            _known.move_to_end(found.key)
            return _known[found.key]
        pattern = detect(self._caller, found.graph).pattern
        pattern._story = Story(self._caller, found.graph, *self.leaves)
        _known[found.key] = _Structure(pattern)
        while len(_known) > _REMEMBERED:
            _known.popitem(last=False)
        return _known[found.key]

    @_torch.runs_unwatched
    def way(self, key: Hashable, make: Callable[[SparsityPattern], Wanted]) -> Way:
        """The cheapest way to read what ``make`` picks; ``key`` names it, unless None."""
        structure = self._structure
        if key is None or (key, self._forward_refusal) not in structure.schemes:
            wanted = make(structure.pattern)
            found = wanted, scheme_of(structure.pattern, wanted, self._forward_refusal)
            if key is not None:
                structure.schemes[key, self._forward_refusal] = found
        else:
            found = structure.schemes[key, self._forward_refusal]
        wanted, scheme = found
        count = scheme.num_products
        if count > _LIFT_FROM or (count > 1 and count >= self.whole):
            shortcut = self._shortcut(count)
            if shortcut is not None and shortcut.num_products < count:
                numbers, there = entry_numbers(shortcut.pattern, wanted.rows, wanted.cols)
                if there:
                    return Way(wanted, scheme, shortcut, numbers, self._symmetric)
        return Way(wanted, scheme, symmetric=self._symmetric)

    @_torch.runs_unwatched
    def read(self, way: Way) -> Tensor:
        """The part: a dense tensor of its shape."""
        if way.shortcut is not None:
            values = way.shortcut.values(way.numbers)
            order: Any = slice(None)
        else:
            values, order = self._values(way.scheme)
        wanted = way.wanted
        places = wanted.places[order]
        size = int(np.prod(wanted.shape))
        if places.size == size and np.array_equal(places, np.arange(size)):
            return values.reshape(wanted.shape)
        zeros = torch.zeros(size, dtype=self._dtype, device=self._device)
        where = torch.from_numpy(places).to(self._device)
        return zeros.index_copy(0, where, values).reshape(wanted.shape)

    def _values(self, scheme: Scheme) -> tuple[Tensor, Any]:
        """The wanted values, in the order of the products, and the numbers of the entries."""
        order = np.argsort(scheme.product, kind="stable")
        product, position = scheme.product[order], scheme.position[order]
        pieces = [torch.zeros(0, dtype=self._dtype, device=self._device)]
        bytes_each = sum(self.shape) * self._dtype.itemsize
        first = 0
        self.reasons = ()
        for along_rows, count in ((True, scheme.split.rows), (False, scheme.split.columns)):
            own = scheme.row_colors if along_rows else scheme.col_colors
            colors = torch.from_numpy(own).to(self._device)
            for start, stop in chunks(count, None, bytes_each):
                here = slice(*np.searchsorted(product, [first + start, first + stop]))
                numbers = torch.arange(first + start, first + stop, device=self._device)
                seeds = (colors == numbers.unsqueeze(1)).to(self._dtype)
                found = self._products(seeds, along_rows)
                flat = (product[here] - (first + start)) * found.shape[1] + position[here]
                where = torch.from_numpy(flat).to(self._device)
                pieces.append(found.reshape(-1).index_select(0, where))
            first += count
        return torch.cat(pieces), order

    def _products(self, seeds: Tensor, along_rows: bool) -> Tensor:
        products = self._up if along_rows else self._down
        side, other = (self._rows, self._columns) if along_rows else (self._columns, self._rows)
        batch = from_vector(seeds, side)
        size = len(seeds)
        if size == 1:
            single = products.one([t[0] for t in batch])
            return torch.cat([t.reshape(1, -1) for t in single], dim=1).to(self._dtype)
        if along_rows and isinstance(products, GraphProducts):
            structure = self._structure
            structure.batches, order = graph_order(products, structure.batches)
            found = products.many(batch, None, order)
        else:
            found = products.many(batch, None)
        self.reasons = tuple(dict.fromkeys((*self.reasons, *found.reasons)))
        flat = [t.reshape(size, s.numel()) for t, s in zip(found.gradients, other, strict=True)]
        return torch.cat(flat, dim=1).to(self._dtype)

    def admit(
        self, method: str, way: Way, limit: int | None, instead: str, *, always: bool
    ) -> None:
        """Refuse a part that takes more than ``limit``, or, by default and unless it is one that is
        ``always`` given, as much as the whole matrix."""
        count = way.num_products
        dear = not always and count > 1 and count >= self.whole if limit is None else count > limit
        if dear:
            raise _checks.too_expensive(
                f"{self._caller}.{method}", count, self.whole, limit, self._because(way), instead
            )

    def _because(self, way: Way) -> str:
        structure = self._structure
        if structure.note:
            return f"the structure of the matrix is not known ({structure.note})"
        pattern = self.told
        m, n = pattern.shape
        if pattern.is_full:
            text = "every entry of a row may be nonzero"
        else:
            text = f"{pattern.nnz:,} of {m * n:,} entries may be nonzero"
        link = pattern.why().link if pattern._story is not None else None
        if link is None:
            return text
        made_by = f" in {link.formula}" if link.formula else ""
        where = f" at {link.line}" if link.line else ""
        return f"{text}, first made dense by the backward of {link.call}{made_by}{where}"

    def couples(self, samples: Samples) -> bool:
        return coupling(self.pattern, samples) is not None

    @property
    def told(self) -> SparsityPattern:
        """The pattern that knows most of where it comes from."""
        found = self._study
        if found is not None and found.detection is not None and found.captured is not None:
            return found.detection.pattern
        return self.pattern

    @property
    def _study(self) -> Study | None:
        """What a plan for the function would stand on; None where it cannot be had."""
        if not self._studied:
            self._studied.append(self._look_at_function())
        return self._studied[0]

    def _look_at_function(self) -> Study | None:
        if not isinstance(self._up, GraphProducts) or not self._is_where_it_was():
            return None
        with torch.inference_mode(False):
            plain = map_leaves(_torch.plain_copy, self._primals)
        arguments = arguments_for(self._caller, plain, self._argnums, self._func)
        try:
            with torch.inference_mode(False), _torch.outside_transforms():
                return study(self._caller, self._func, arguments.sample)
        except Exception:  # the user's function may not like to be looked at; products are at hand
            return None

    def _shortcut(self, count: int) -> Shortcut | None:
        """Few products of a lifted graph, where they are those of this operator at this point.

        Derivatives of the result would be lost there.
        """
        if not isinstance(self._up, GraphProducts) or not self._is_where_it_was():
            return None
        structure, shortcut = self._structure, self._lifted
        if torch.is_grad_enabled() and self._up.outside:
            return None
        if shortcut is None and count > structure.fruitless and (found := self._study) is not None:
            shortcut = self._lifted = shortcut_of(found, count, self._forward_refusal)
            if shortcut is None and found.captured is not None:
                structure.fruitless = count
            elif shortcut is not None and not shortcut.belongs_to(self._up):
                self._versions = None  # what the function reads is no more what it was
        return shortcut if shortcut is not None and self._is_where_it_was() else None

    def _is_where_it_was(self) -> bool:
        same = self._versions is not None and _versions(self._primals) == self._versions
        return same and (self._lifted is None or self._lifted.is_where_it_was())


def _versions(primals: tuple[Any, ...]) -> list[int] | None:
    """How often each tensor has been written to; None where torch does not count."""
    found: list[Any] = []
    map_leaves(found.append, primals)
    tensors = [t for t in found if isinstance(t, Tensor)]
    return None if any(t.is_inference() for t in tensors) else [t._version for t in tensors]
