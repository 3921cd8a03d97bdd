"""Jacobians with respect to tensors that all samples share, kept as outer products."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from .._engines import BYTES_AT_ONCE, climb_down
from .graph import Meta, PullbackGraph, packet_name
from .membership import Place, Samples, numbered, renamed, samples_of
from .parts import linear_part
from .tails import Term, terms_of

_OUTER = ("outer", "patches")
# Calls whose last argument says which of their results are wanted.
_MASKED = frozenset(
    "convolution_backward native_layer_norm_backward native_batch_norm_backward".split()
)


# Samples of graphs of one point, by the keys of these; the last few.
_KEPT = 16
_known: OrderedDict[str, Samples | None] = OrderedDict()


@dataclass
class Block:
    """The columns of one tensor, for all rows: of sample i and its output o, the sum over l of

    - ``d[i, o, l] a[i, l]'`` if ``a`` has shape (N, L, k): "outer";
    - ``d[i, o, l]`` at the row ``a[i, l]`` of a table, if that is an index (N, L): "table";
    - ``d[i, o, l]`` itself: "sum".

    ``first``: the columns of d come first. ``size`` is how many columns there are.
    """

    kind: str
    d: Tensor
    a: Tensor
    first: bool
    size: int

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The matrix itself for the samples from ``start`` to ``stop``: (samples, O, size)."""
        d, a = self.d[start:stop], self.a[start:stop]
        n, o, steps, h = d.shape
        if self.kind == "sum":
            return d.sum(2) if steps != 1 else d.squeeze(2)
        if self.kind == "table":
            return self._in_table(d, a)
        k = a.shape[2]
        if steps == 1:
            left, right = (d[:, :, 0, :, None], a[:, :, None, :])
            found = left * right if self.first else right.mT * left.mT
            return found.reshape(n, o, -1)
        if self.first:
            return torch.bmm(d.transpose(2, 3).reshape(n, o * h, steps), a).reshape(n, o, h * k)
        return torch.matmul(a.mT.unsqueeze(1), d).reshape(n, o, k * h)

    def _in_table(self, d: Tensor, a: Tensor) -> Tensor:
        n, o, steps, h = d.shape
        rows = self.size // max(h, 1)
        found = d.new_zeros(n, o, rows, h)
        skipped = a < 0
        index = a.clamp_min(0)[:, None, :, None].expand(n, o, steps, h)
        return found.scatter_add_(2, index, d.masked_fill(skipped[:, None, :, None], 0)).reshape(
            n, o, -1
        )

    def pulled(self, v: Tensor) -> Tensor:
        """``v`` J for v of shape (N, O): shape (size,)."""
        weighed = torch.einsum("no,nolh->nlh", v, self.d)
        if self.kind == "sum":
            return weighed.sum((0, 1))
        steps = weighed.shape[0] * weighed.shape[1]
        flat = weighed.reshape(1, 1, steps, -1)
        beside = self.a.reshape(1, steps, *self.a.shape[2:])
        return Block(self.kind, flat, beside, self.first, self.size).rows().reshape(-1)


class Factored:
    """The Jacobian of one pullback graph, as blocks of outer products where it has that form.

    ``handed`` are the nodes whose values a point is given by: what the linear part reads.
    """

    def __init__(
        self, graph: PullbackGraph, handed: Sequence[fx.Node], terms: list[list[Term] | None],
        samples: Samples,
    ) -> None:  # fmt: skip
        self.samples, self._terms, self._handed = samples, terms, list(handed)
        self._sizes = [m.numel for m in graph.primals]
        self._nodes = [i.node for i in graph.cotangents]
        self._shapes = [i.meta for i in graph.cotangents]
        used = [t.delta for found in terms for t in found or ()]
        self._deltas = list(dict.fromkeys(used))
        self._metas = [graph.metas[n] for n in self._deltas]
        self._reads, self._linear = linear_part(graph, self._nodes, self._deltas)
        _ask_for_no_more(self._linear)
        self._rows = torch.from_numpy(samples.rows.copy())

    @classmethod
    def of(
        cls,
        caller: str,
        graph: PullbackGraph,
        handed: Sequence[fx.Node],
        *,
        key: str = "",
    ) -> Factored | None:
        """None where some gradient has another form, or where no two samples were told apart.

        ``key``, of a graph of one point, stands for its structure and all that its pattern could
        rest on: samples that were told apart once are known from then on."""
        if any(_is_odd(m) for m in graph.metas.values()):
            return None
        terms = [
            [] if g is None else terms_of(graph, g) if g in graph.linear else None
            for g in graph.gradients
        ]
        if any(t is None for t in terms):
            return None
        wanted = list(dict.fromkeys((t.delta, t.summed) for found in terms for t in found or ()))
        samples = _samples(caller, graph, wanted, key) if wanted else None
        if samples is None or len(samples.rows) < 2:
            return None
        return cls(graph, handed, terms, samples)

    @property
    def products(self) -> int:
        return int(self.samples.rows.shape[1])

    def blocks(self, values: Sequence[Any], chunk_size: int | None = None) -> list[Block]:
        """At the point where the nodes ``handed`` have these ``values``."""
        at = dict(zip(self._handed, values, strict=True))
        deltas = dict(zip(self._deltas, self._products(at, chunk_size), strict=True))
        found = []
        for terms, size in zip(self._terms, self._sizes, strict=True):
            pieces = [self._piece(term, deltas[term.delta], at, size) for term in terms or ()]
            found.append(_joined(pieces, self._nothing(at, size)))
        return found

    def _products(self, at: dict[fx.Node, Any], chunk_size: int | None) -> tuple[Tensor, ...]:
        """The d of all colors: one product for each output of a sample."""
        handed = [at[n] for n in self._reads]
        count, device = self.products, self._shapes[0].device
        rows = self._rows.to(device)
        width = rows.numel()
        colors = torch.arange(count, device=device).expand_as(rows)
        seeds, start = [], 0
        for meta in self._shapes:
            marks = torch.zeros(count, width, dtype=meta.dtype, device=device)
            marks[colors.reshape(-1), rows.reshape(-1)] = 1
            seeds.append(marks[:, start : start + meta.numel].reshape(count, *meta.shape).clone())
            start += meta.numel
        like = [
            torch.empty((), dtype=m.dtype, device=m.device).expand(m.shape) for m in self._metas
        ]
        each = sum(m.numel * m.dtype.itemsize for m in self._metas)
        batch = climb_down(
            lambda given: self._linear(*handed, *given),
            seeds,
            like,
            chunk_size or max(1, BYTES_AT_ONCE // max(1, each)),
            order=("vmap", "loop") if count > 1 else ("loop",),
        )
        return batch.gradients

    def _piece(self, term: Term, delta: Tensor, at: dict[fx.Node, Any], size: int) -> Block:
        places = torch.from_numpy(self.samples.places[term.delta, term.summed]).to(delta.device)
        n, steps = places.shape
        rest = [k for k in range(delta.dim() - 1) if k not in term.summed]
        moved = delta.permute(0, *(k + 1 for k in term.summed), *(k + 1 for k in rest))
        count = moved.shape[0]
        flat = moved.reshape(count, -1, *moved.shape[1 + len(term.summed) :])
        reads = [at[node] for node in term.reads]
        if term.kind == "scaled":
            scale = _scale(term, reads, delta.shape[1:], rest)
            flat = flat * scale
        flat = flat.reshape(count, flat.shape[1], -1)
        d = _picked(flat, places, 1).reshape(count, n, steps, -1).transpose(0, 1)
        if term.kind in ("sum", "scaled"):
            return Block("sum", d, d.new_zeros(n, steps, 0), True, size)
        a = _picked(_beside(term, reads[0]), places, 0)
        return Block("outer" if term.kind in _OUTER else "table", d, a, term.first, size)

    def _nothing(self, at: dict[fx.Node, Any], size: int) -> Block:
        meta = self._metas[0] if self._metas else self._shapes[0]
        n, o = self.samples.rows.shape
        zeros = torch.zeros((), dtype=meta.dtype, device=meta.device).expand(n, o, 1, size)
        return Block("sum", zeros, zeros.new_zeros(n, 1, 0), True, size)


def _samples(
    caller: str, graph: PullbackGraph, wanted: Sequence[Place], key: str
) -> Samples | None:
    if not key:
        return samples_of(caller, graph, wanted, of_one_point=False)
    if key not in _known:
        found = samples_of(caller, graph, wanted, of_one_point=True)
        _known[key] = None if found is None else numbered(found, graph)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    kept = _known[key]
    return None if kept is None else renamed(kept, graph)


def _ask_for_no_more(module: fx.GraphModule) -> None:
    """Of calls with several results, only those that are read: the gradients of weights, which
    outer products give, are left out."""
    for node in module.graph.nodes:
        if node.op == "call_function" and packet_name(node) in _MASKED:
            wanted = {user.args[1] for user in node.users if packet_name(user) == "getitem"}
            if len(wanted) == len(node.users):
                mask = [asked and k in wanted for k, asked in enumerate(node.args[-1])]
                node.args = (*node.args[:-1], mask)
    module.recompile()


def _is_odd(meta: Any) -> bool:
    parts = meta if isinstance(meta, list | tuple) else [meta]
    return any(isinstance(m, Meta) and m.dtype.is_complex for m in parts)


def _picked(tensor: Tensor, places: Tensor, axis: int) -> Tensor:
    """The entries at ``places`` (N, L) along an axis, which becomes two."""
    n, steps = places.shape
    whole = n * steps == tensor.shape[axis]
    if not (
        whole and bool((places.reshape(-1) == torch.arange(n * steps, device=places.device)).all())
    ):
        tensor = tensor.index_select(axis, places.reshape(-1))
    return tensor.reshape(*tensor.shape[:axis], n, steps, *tensor.shape[axis + 1 :])


def _beside(term: Term, value: Tensor) -> Tensor:
    """a, with one leading axis t."""
    if term.kind == "outer":
        return value.movedim(term.along, 0)
    if term.kind == "table":
        _, skipped = term.options
        flat = value.reshape(-1)
        return flat.masked_fill(flat == skipped, -1) if skipped >= 0 else flat
    kernel, stride, padding, dilation = term.options
    if value.dim() == 3:  # in one dimension
        value = value.unsqueeze(2)
        kernel, stride, dilation = ((1, *g) for g in (kernel, stride, dilation))
        padding = (0, *padding)
    patches = functional.unfold(value, kernel, dilation, padding, stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _scale(term: Term, reads: Sequence[Tensor], shape: Sequence[int], rest: list[int]) -> Tensor:
    """What d is multiplied with, in its form: (t, columns...)."""
    x, mean, other = reads
    if term.options[0] == "layer norm":
        normal = (x - mean) * other
    else:
        form = [-1 if k == 1 else 1 for k in range(x.dim())]
        normal = (x - mean.view(form)) / (other.view(form) + term.options[1]).sqrt()
    moved = normal.permute(*term.summed, *rest)
    return moved.reshape(-1, *moved.shape[len(term.summed) :])


def _joined(pieces: list[Block], nothing: Block) -> Block:
    """The sum of blocks of one tensor: one after the other along l where they are alike."""
    if len(pieces) < 2:
        return pieces[0] if pieces else nothing
    kinds = {(p.kind, p.first, p.d.shape[3], p.a.shape[2:]) for p in pieces}
    first = pieces[0]
    if len(kinds) == 1:
        d, a = torch.cat([p.d for p in pieces], 2), torch.cat([p.a for p in pieces], 1)
        return Block(first.kind, d, a, first.first, first.size)
    whole = sum((p.rows() for p in pieces[1:]), start=first.rows())
    n, o, size = whole.shape
    return Block("sum", whole.reshape(n, o, 1, size), whole.new_zeros(n, 1, 0), True, size)
