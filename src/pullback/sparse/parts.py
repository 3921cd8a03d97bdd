"""The differentiated part of one factor of a lifted Jacobian: its seeds and its products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, fx

from .._engines import climb_down
from .._tracing import recorded as recorded_by_torch
from .assemble import Assembler
from .captured import Captured
from .graph import Meta, PullbackGraph, extract, ignores_values
from .lift.factor import Terms
from .lift.linear import lanes_of, reals
from .lift.settled import stand_in
from .lift.spec import Factor
from .products import NO_BATCHING
from .recording import NotRecorded, recorded
from .trial import in_its_layout, perturbed, rounding_of, same, weights

# Seeds of this many bytes are kept from call to call; larger ones are made for every chunk.
_KEPT_SEEDS = 2**23
# Colors that are taken in turn where their seeds have one value each.
_UNROLLED = 4


class Part:
    """The differentiated part of one factor."""

    def __init__(
        self, captured: Captured, factor: Factor, dtype: torch.dtype, device: torch.device,
        reasons: list[str], *, with_one: bool,
    ) -> None:  # fmt: skip
        graph = captured.graph
        nodes = graph.nodes
        self._entries = [nodes[k] for k in factor.entries]
        self._exits = [nodes[k] for k in factor.exits]
        self._metas = [_meta(graph, n) for n in self._entries]
        self._ends = [_meta(graph, n) for n in self._exits]
        self._coloring, self._split = factor.coloring, factor.coloring.split
        self._dtype, self._device, self._reasons = dtype, device, reasons
        self._batches_well = captured.batches
        self.reads, self._linear = linear_part(graph, self._entries, self._exits)
        self._copied = [_may_be_a_seed(n, self._entries) for n in self._exits]
        self._transposed: Callable[..., Any] | None = None
        length = self._split.rows * sum(map(reals, self._ends))
        length += self._split.columns * sum(map(reals, self._metas))
        self._terms: Terms | None = factor.terms
        self._solving, self._pattern = factor.solving, factor.pattern
        self._length, self._with_one = length, with_one
        self._seeds: dict[bool, list[Tensor]] = {}
        self._uniform_seeds: dict[bool, list[list[Tensor]] | None] = {}

    @cached_property
    def assembler(self) -> Assembler:
        terms, self._terms = self._terms, None  # as long as the values; most forms need less
        assert terms is not None
        rows = None if self._pattern.is_full else self._pattern.indptr
        return Assembler(terms, self._length, self._dtype, self._device, self._solving, rows)

    @cached_property
    def cuts(self) -> list[int]:
        """Where each segment of the products begins, and the last one ends: a segment belongs to
        one color and one exit (or, along columns, one entry)."""
        rows, columns = self._split
        sizes = [*map(reals, self._ends)] * rows + [*map(reals, self._metas)] * columns
        return [0, *accumulate(sizes)]

    def segments(self, at: dict[fx.Node, Any]) -> list[Tensor]:
        """All products in one batch, without a net, flat and in the order of ``cuts``."""
        found: list[Tensor] = []
        for along_rows, run in self._runs([at[n] for n in self.reads]):
            if (each := self._color_by_color(along_rows, run)) is not None:
                found += each
                continue
            count = self._count(along_rows)
            results = torch.func.vmap(lambda *s: run(s))(*self._seeded(along_rows, 0, count))  # noqa: B023
            found += [_real(r[c]) for c in range(count) for r in results]
        return [f.reshape(-1).to(self._dtype) for f in found]

    @property
    def most_products(self) -> int:
        return max(self._split)

    def products(self, at: dict[fx.Node, Any], chunk_size: int | None) -> Tensor:
        """All products, one after the other, and 1 behind them where that is asked for;
        ``chunk_size`` None is one batch, without a net."""
        pieces: list[Iterator[Tensor]] = [
            self._batches(along_rows, run, chunk_size)
            for along_rows, run in self._runs([at[n] for n in self.reads])
        ]
        if self._with_one:
            pieces.append(iter([torch.ones(1, dtype=self._dtype, device=self._device)]))
        flat = (found.reshape(-1) for found in chain.from_iterable(pieces))
        if chunk_size is None:  # a tracer follows no writes
            whole = list(flat) or [torch.zeros(0, dtype=self._dtype, device=self._device)]
            return (whole[0] if len(whole) == 1 else torch.cat(whole)).to(self._dtype)
        return self._one_after_another(flat)

    def _runs(self, handed: Sequence[Any]) -> Iterator[tuple[bool, Any]]:
        """What gives products along rows, and along columns, where there are such."""
        if self._split.rows:
            yield True, lambda s: self._linear(*handed, *s)
        if self._split.columns:
            if self._transposed is None:
                self._transposed = self._transpose(handed)
            down = self._transposed
            yield False, lambda s: down(*handed, *s)

    def _color_by_color(self, along_rows: bool, run: Any) -> list[Tensor] | None:
        """The results of each color in turn, if there is one, or a few whose seeds have one value
        each: those a compiler makes part of its code."""
        each: Sequence[Sequence[Tensor]] | None
        if self._count(along_rows) == 1:
            each = [[s[0] for s in self._seeded(along_rows, 0, 1)]]
        else:
            each = self._uniform(along_rows)
        if each is None:
            return None
        copied = self._copied if along_rows else [True] * len(self._metas)
        return [
            _real(r.clone() if c else r)
            for seeds in each
            for r, c in zip(run(seeds), copied, strict=True)
        ]

    def _count(self, along_rows: bool) -> int:
        return self._split.rows if along_rows else self._split.columns

    def _uniform(self, along_rows: bool) -> list[list[Tensor]] | None:
        if along_rows not in self._uniform_seeds:
            self._uniform_seeds[along_rows] = self._found_uniform(along_rows)
        return self._uniform_seeds[along_rows]

    def _found_uniform(self, along_rows: bool) -> list[list[Tensor]] | None:
        count = self._count(along_rows)
        metas = self._metas if along_rows else self._ends
        coloring = self._coloring
        colors = coloring.row_colors if along_rows else coloring.col_colors
        parts = colors.split([*map(reals, metas)])
        if count > _UNROLLED or any(
            lanes_of(m) > 1 or not p.numel() for m, p in zip(metas, parts, strict=True)
        ):
            return None
        if any(bool((p != p[0]).any()) for p in parts):
            return None
        return [
            [
                torch.full(m.shape, float(p[0] == c), dtype=m.dtype, device=self._device)
                for m, p in zip(metas, parts, strict=True)
            ]
            for c in range(count)
        ]

    def _one_after_another(self, pieces: Iterator[Tensor]) -> Tensor:
        length, at = self._length + self._with_one, 0
        whole: Tensor | None = None
        for piece in pieces:
            if piece.numel() == length:
                return piece.to(self._dtype)
            if whole is None:
                whole = torch.empty(length, dtype=self._dtype, device=self._device)
            whole[at : at + piece.numel()] = piece
            at += piece.numel()
        if whole is None:
            return torch.zeros(0, dtype=self._dtype, device=self._device)
        assert at == length
        return whole

    def _batches(self, along_rows: bool, run: Any, chunk_size: int | None) -> Iterator[Tensor]:
        """All products of one kind, in pieces that follow one another in the flattened order."""
        count = self._count(along_rows)
        like = self._ends if along_rows else self._metas
        if count == 1 or chunk_size is None:
            if (each := self._color_by_color(along_rows, run)) is not None:
                yield from each
                return
            seeds = self._seeded(along_rows, 0, count)
            yield _side_by_side(torch.func.vmap(lambda *s: run(s))(*seeds), count)
            return
        for start in range(0, count, chunk_size):
            stop = min(start + chunk_size, count)
            order = ("vmap", "loop") if self._batches_well and stop > start + 1 else ("loop",)
            batch = climb_down(
                run,
                self._seeded(along_rows, start, stop),
                [torch.empty((), dtype=m.dtype, device=m.device).expand(m.shape) for m in like],
                stop - start,
                order=order,
            )
            self._note(batch.reasons)
            if stop == start + 1:
                yield from map(_real, batch.gradients)
            else:
                yield _side_by_side(batch.gradients, stop - start)

    def _note(self, reasons: Sequence[str]) -> None:
        mine = [*reasons] if self._batches_well else [NO_BATCHING, *reasons]
        self._reasons += [r for r in mine if r not in self._reasons]

    def _seeded(self, along_rows: bool, start: int, stop: int) -> list[Tensor]:
        """The seeds of some colors, one tensor for each entry (or exit)."""
        count = self._count(along_rows)
        metas = self._metas if along_rows else self._ends
        size = count * sum(reals(m) * m.dtype.itemsize for m in metas)
        if start == 0 and stop == count and along_rows in self._seeds:
            return self._seeds[along_rows]
        coloring = self._coloring
        colors = coloring.row_colors if along_rows else coloring.col_colors
        wanted = torch.arange(start, stop, device=self._device).unsqueeze(1)
        found, at = [], 0
        for meta in metas:
            piece = colors[at : at + reals(meta)].to(self._device)
            found.append(_seed(piece == wanted, meta))
            at += reals(meta)
        if start == 0 and stop == count and size <= _KEPT_SEEDS:
            self._seeds[along_rows] = found
        return found

    def _transpose(self, handed: Sequence[Any]) -> Callable[..., Any]:
        """The part as a map from exits to entries: J t of what it computes. It is traced once, if
        the trace agrees at another point."""
        tensors = [h for h in handed if isinstance(h, Tensor)]
        zeros = [torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in self._metas]
        ends = [torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in self._ends]
        cut = len(handed)
        assert len(tensors) == cut

        def down(*given: Tensor) -> Any:
            with torch.enable_grad():
                pull = torch.func.vjp(lambda *w: self._linear(*given[:cut], *w), *zeros)[1]
            return pull(tuple(given[cut:]))

        try:
            found = recorded(down, [*handed, *ends])
        except NotRecorded:  # some formula writes in place
            found = recorded_by_torch(down, *handed, *ends)
        moved = [*(in_its_layout(perturbed, t) for t in tensors), *weights(ends)]
        pairs = zip(found(*moved), down(*moved), strict=True)
        return found if all(same(a, b, rounding_of(b.dtype)) for a, b in pairs) else down


def linear_part(
    graph: PullbackGraph, entries: Sequence[fx.Node], exits: Sequence[fx.Node]
) -> tuple[list[fx.Node], fx.GraphModule]:
    """What it reads of the forward part, and ``(*read, *entries) -> exits``."""
    late, known = graph.late, set(entries)
    inside: set[fx.Node] = set()
    shapes: dict[fx.Node, None] = {}
    stack = [n for n in exits if n not in known]
    while stack:
        node = stack.pop()
        if node in inside or node in known:
            continue
        if node not in graph.linear and ignores_values(node):
            shapes[node] = None
            continue
        inside.add(node)
        stack.extend(n for n in node.all_input_nodes if n in late)
    nodes = [n for n in graph.nodes if n in inside]
    used = [n for node in nodes for n in node.all_input_nodes]
    reads = list(dict.fromkeys(n for n in used if n not in late))
    constants = {n: _of_shape(graph, n) for n in shapes}
    module = extract(graph, [*reads, *constants, *entries], nodes, tuple(exits))
    if not constants:
        return reads, module
    for placeholder, value in zip(
        [n for n in module.graph.nodes if n.op == "placeholder"][len(reads) :],
        constants.values(),
        strict=False,
    ):
        name = f"shape_{placeholder.name}"
        module.register_buffer(name, value, persistent=False)
        with module.graph.inserting_after(placeholder):
            placeholder.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(placeholder)
    module.recompile()
    return reads, module


def _of_shape(graph: PullbackGraph, node: fx.Node) -> Tensor:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: stand_in(graph, n))
    target: Any = node.target
    found: Tensor = target(*args, **kwargs)
    return found


def _seed(marks: Tensor, meta: Meta) -> Tensor:
    count = marks.shape[0]
    if lanes_of(meta) == 1:
        return marks.to(meta.dtype).reshape(count, *meta.shape)
    real = marks.to(torch.empty(0, dtype=meta.dtype).real.dtype)
    return torch.view_as_complex(real.reshape(count, *meta.shape, 2).contiguous())


def _may_be_a_seed(node: fx.Node, entries: Sequence[fx.Node]) -> bool:
    """Whether a result may lie in the memory of a seed, which is kept: users write to values."""
    schema = getattr(node.target, "_schema", None)
    views = schema is not None and any(r.alias_info is not None for r in schema.returns)
    return node in entries or views or node.op != "call_function" or schema is None


def _side_by_side(found: Sequence[Tensor], count: int) -> Tensor:
    flat = [_real(g).reshape(count, -1) for g in found]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)


def _real(found: Tensor) -> Tensor:
    found = found.detach()
    whole = torch.view_as_real(found.resolve_conj()) if found.is_complex() else found
    return whole.resolve_neg().reshape(-1) if whole.dim() == 0 else whole.resolve_neg()


def _meta(graph: PullbackGraph, node: fx.Node) -> Meta:
    meta = graph.metas[node]
    assert isinstance(meta, Meta)
    return meta
