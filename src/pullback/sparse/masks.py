"""Masked reads and writes in where-form, so that a graph holds for any number of masked entries.

``y[m] = g(y[m])`` picks as many entries as the mask has at the sample. If what was picked goes back
through the same mask, and only pointwise operators lie between, the same comes out of computing g
everywhere and choosing afterwards: ``where(m, g(y), y)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .graph import Meta, PullbackGraph, is_draw, is_needed, packet_name
from .rules.pointwise import PLACEWISE

aten = torch.ops.aten
_PUTS = frozenset(("index_put", "_unsafe_index_put"))
_LIKE = frozenset("zeros_like ones_like full_like".split())
_OF_GIVEN_SIZE = frozenset("new_zeros new_ones new_full".split())


@dataclass(frozen=True)
class _Picked:
    """A tensor of the entries at ``mask``; ``whole`` has them at their places, and others."""

    mask: fx.Node
    whole: fx.Node
    shape: tuple[int, ...]


def in_where_form(graph: PullbackGraph) -> bool:
    """Rewrite every pick by a mask of varying data; False, and nothing done, where one resists.

    Needs the metas of a survey; they are out of date afterwards.
    """
    for in_earnest in (False, True):
        rewriting = _Rewriting(graph, in_earnest)
        for node in list(graph.module.graph.nodes):
            if node.op == "call_function" and not rewriting.visit(node):
                return False
        if any(node in rewriting.picked for node in graph.results if node is not None):
            return False
    graph.module.graph.eliminate_dead_code(is_impure_node=is_needed)
    graph.module.recompile()
    graph.classify_again()
    return True


def _is_placewise(node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return packet_name(node) in PLACEWISE or torch.Tag.pointwise in tags


def masks_of(graph: PullbackGraph) -> list[fx.Node]:
    """The masks of varying data that size a tensor."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "call_function" and _is_pick(graph, node):
            indices: Any = node.args[1]
            found |= {i: None for i in indices if i is not None}
    return list(found)


def _is_pick(graph: PullbackGraph, node: fx.Node) -> bool:
    if packet_name(node) not in ("index", "_unsafe_index"):
        return False
    indices: Any = node.args[1]
    return any(
        i is not None and i not in graph.fixed and graph.metas[i].dtype is torch.bool
        for i in indices
    )


class _Rewriting:
    """One pass over the calls: a rehearsal, which changes nothing, or in earnest."""

    def __init__(self, graph: PullbackGraph, in_earnest: bool) -> None:
        self._graph, self._fx, self._in_earnest = graph, graph.module.graph, in_earnest
        self.picked: dict[fx.Node, _Picked] = {}
        self._shapes: dict[fx.Node, tuple[int, ...]] = {}
        self._recipes: dict[fx.Node, Any] = {}
        self._tokens: dict[Any, str] = {}

    def visit(self, node: fx.Node) -> bool:
        """Whether the call is out of the way of masks, or could be rewritten."""
        name = packet_name(node)
        if _is_pick(self._graph, node):
            return self._pick(node)
        inputs = [n for n in node.all_input_nodes if n in self.picked]
        with self._fx.inserting_before(node):
            if name in _PUTS and self._is_masked_put(node):
                return self._put(node)
            if not inputs:
                return True
            first = self.picked[inputs[0]].mask
            if not all(self._same(first, self.picked[n].mask) for n in inputs):
                return False
            if name in _OF_GIVEN_SIZE:
                return self._make(node)
            if name == "sum" and self._shape(node) == () and not node.kwargs:
                return self._sum(node, self.picked[inputs[0]])
            if name in _LIKE or _is_placewise(node):
                return self._place(node, self.picked[inputs[0]])
        return False

    def _pick(self, node: fx.Node) -> bool:
        source, indices = node.args[:2]
        assert isinstance(source, fx.Node)
        assert isinstance(indices, (list, tuple))
        if len(indices) != 1 or source in self.picked or indices[0] in self.picked:
            return False
        mask: Any = indices[0]
        self.picked[node] = _Picked(mask, source, self._shape(source))
        return True

    def _make(self, node: fx.Node) -> bool:
        """A new tensor that takes only its dtype and device from a picked one."""
        like, size = node.args[:2]
        assert isinstance(like, fx.Node)
        meta = self._graph.metas[like]
        if tuple(size) == meta.shape:  # type: ignore[arg-type]
            return False  # its size may be the number of picked entries
        if self._in_earnest:
            node.replace_input_with(like, self.picked[like].whole)
        return True

    def _sum(self, node: fx.Node, picked: _Picked) -> bool:
        """The sum of all that was picked, one number, over the places of the mask."""
        if self._in_earnest:
            mask = self._over_whole(picked)
            nothing = self._fx.call_function(aten.zeros_like.default, (picked.whole,))
            chosen = self._fx.call_function(aten.where.self, (mask, picked.whole, nothing))
            total = self._fx.call_function(aten.sum.default, (chosen,))
            chosen.meta, total.meta = dict(node.meta), dict(node.meta)
            self._shapes[total] = ()
            node.replace_all_uses_with(total)
        return True

    def _over_whole(self, picked: _Picked) -> fx.Node:
        """The mask with axes of one entry for the dims that it does not have."""
        ones = [1] * (len(picked.shape) - len(self._shape(picked.mask)))
        shape = [*self._shape(picked.mask), *ones]
        return self._fx.call_function(aten.view.default, (picked.mask, shape))

    def _place(self, node: fx.Node, picked: _Picked) -> bool:
        """The same call on whole tensors. Other operands must not know how many were picked."""
        rest = len(picked.shape) - len(self._shape(picked.mask))
        for other in node.all_input_nodes:
            if other not in self.picked and len(self._shape(other)) > rest:
                return False
        whole = node
        if self._in_earnest:
            target: Any = node.target
            whole = self._fx.call_function(target, *self._whole(node))
            whole.meta = dict(node.meta)
        self.picked[node] = _Picked(picked.mask, whole, picked.shape)
        return True

    def _put(self, node: fx.Node) -> bool:
        """``base`` with the picked values put back: chosen by the mask, or added where it holds."""
        base, indices, values = node.args[:3]
        accumulate = node.args[3] if len(node.args) > 3 else node.kwargs.get("accumulate", False)
        assert isinstance(base, fx.Node)
        assert isinstance(indices, (list, tuple))
        assert isinstance(values, fx.Node)
        if len(indices) != 1 or base in self.picked or indices[0] in self.picked:
            return False
        given: Any = indices[0]
        picked = self.picked.get(values) or self._constant(values, given, base)
        if picked is None:
            return self._meta_numel(values) == 1  # one number for all: it fits any count
        if not self._same(picked.mask, given) or self._shape(base) != picked.shape:
            return False
        if not self._in_earnest:
            return True
        mask = self._over_whole(picked)
        nothing = self._fx.call_function(aten.zeros_like.default, (base,)) if accumulate else base
        result = self._fx.call_function(aten.where.self, (mask, picked.whole, nothing))
        if accumulate:
            result.meta = dict(node.meta)
            result = self._fx.call_function(aten.add.Tensor, (base, result))
        result.meta = dict(node.meta)
        self._shapes[result] = picked.shape
        node.replace_all_uses_with(result)
        return True

    def _is_masked_put(self, node: fx.Node) -> bool:
        indices: Any = node.args[1]
        return any(
            i is not None
            and i not in self._graph.fixed
            and self._graph.metas[i].dtype is torch.bool
            for i in indices
        )

    def _constant(self, values: fx.Node, mask: fx.Node, base: fx.Node) -> _Picked | None:
        """Values that are one number throughout, spread to the size of the sample's count."""
        if packet_name(values) == "expand" and values not in self.picked:
            source = values.args[0]
            if isinstance(source, fx.Node) and self._meta_numel(source) == 1:
                return _Picked(mask, source, self._shape(base))
        fill = {"zeros": 0, "new_zeros": 0, "ones": 1, "new_ones": 1}.get(packet_name(values))
        if fill is None or self._meta_numel(values) == 1:
            return None
        whole = values
        if self._in_earnest:
            whole = self._fx.call_function(aten.full_like.default, (base, fill))
        return _Picked(mask, whole, self._shape(base))

    def _meta_numel(self, node: fx.Node) -> int:
        meta = self._graph.metas[node]
        return int(meta.numel) if isinstance(meta, Meta) else 0

    def _same(self, left: fx.Node, right: fx.Node) -> bool:
        """Whether two masks are one, or made by the same calls of the same tensors."""
        return left is right or self._recipe(left) == self._recipe(right)

    def _recipe(self, node: fx.Node) -> Any:
        if node not in self._recipes:
            found: Any = node
            if node.op == "call_function" and not is_draw(node):
                args = fx.node.map_arg((node.args, dict(node.kwargs)), self._recipe_token)
                found = (node.target, str(args))
            self._recipes[node] = found
        return self._recipes[node]

    def _recipe_token(self, node: fx.Node) -> Any:
        """A short name for what a node computes, equal for equal recipes."""
        recipe = self._recipe(node)
        return self._tokens.setdefault(recipe, f"%{len(self._tokens)}")

    def _whole(self, node: fx.Node) -> tuple[Any, Any]:
        def whole(n: fx.Node) -> fx.Node:
            return self.picked[n].whole if n in self.picked else n

        return fx.node.map_arg((node.args, dict(node.kwargs)), whole)

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        if node in self._shapes:
            return self._shapes[node]
        meta = self._graph.metas.get(node)
        assert isinstance(meta, Meta)
        return meta.shape
