"""Calls that a graph can do without: chains of views, transposes that a matrix product can write,
powers of one. Strides are not kept, the order of elements is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..graph import packet_name

aten = torch.ops.aten

_RESHAPES = frozenset("view _unsafe_view reshape unsqueeze squeeze alias detach".split())


def tidy(module: fx.GraphModule) -> None:
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
            continue
        if node.target is aten.pow.Tensor_Scalar and node.args[1] == 1:
            _pass_on(node, node.args[0])
        elif is_reshape(node):
            _one_view(graph, node)
        elif node.target is aten.t.default and node.args[0].target is aten.t.default:
            node.replace_all_uses_with(node.args[0].args[0])
        elif node.target is aten.clone.default:
            _written_transposed(graph, node)
    graph.eliminate_dead_code()


def _pass_on(node: fx.Node, kept: Any) -> None:
    if kept.meta["val"].dtype == node.meta["val"].dtype:
        node.replace_all_uses_with(kept)


def _one_view(graph: fx.Graph, node: fx.Node) -> None:
    """Reach through other reshapes, down to none where the shape is that of the source."""
    source: Any = node.args[0]
    while is_reshape(source):
        source = source.args[0]
    like = node.meta["val"]
    if source.meta["val"].shape == like.shape:
        node.replace_all_uses_with(source)
    elif source is not node.args[0] or node.target is not aten.reshape.default:
        with graph.inserting_before(node):
            view = graph.call_function(aten.reshape.default, (source, list(like.shape)))
        view.meta["val"] = like
        node.replace_all_uses_with(view)


def is_reshape(node: fx.Node) -> bool:
    """Whether the result has the elements of the first argument in the same order."""
    return packet_name(node) in _RESHAPES and node.target is not aten.view.dtype


def _written_transposed(graph: fx.Graph, node: fx.Node) -> None:
    """A copy of a transposed matrix product is the product of the transposed, at no cost."""
    moved: Any = node.args[0]
    if packet_name(moved) not in ("permute", "t", "transpose") or moved.meta["val"].dim() != 2:
        return
    product: Any = moved.args[0]
    if product.target is not aten.mm.default or not node.meta["val"].is_contiguous():
        return
    turned = product.meta["val"].t()
    if (moved.meta["val"].shape, moved.meta["val"].stride()) != (turned.shape, turned.stride()):
        return  # a permutation that turns nothing
    with graph.inserting_before(node):
        parts = []
        for part in (product.args[1], product.args[0]):
            parts.append(graph.call_function(aten.t.default, (part,)))
            parts[-1].meta["val"] = part.meta["val"].t()
        made = graph.call_function(aten.mm.default, tuple(parts))
    made.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(made)
