"""What ones and zeros make of a graph: seeds that are all ones cost nothing.

A product by zero stays: 0 times inf is nan. (Inductor's own pass folds it.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves, tree_map

aten, prims = torch.ops.aten, torch.ops.prims

# Results hold elements of the first argument, or of the tensors in it, and nothing else.
_MOVES = {
    getattr(aten, name)
    for name in (
        "alias cat clone diagonal expand flip gather index index_select permute reshape select "
        "slice squeeze stack t transpose unfold unsqueeze view"
    ).split()
}


def fold_uniform(module: fx.GraphModule) -> None:
    """Put ``full`` for what has one value everywhere, and drop factors 1 and summands 0."""
    graph = module.graph
    strides_count = any("as_strided" in str(n.target) for n in graph.nodes)
    values: dict[fx.Node, Tensor] = {}
    for node in graph.find_nodes(op="call_function", target=aten.full.default):
        values[node] = _one(node, node.args[1])
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
            continue
        value = _value(node, values)
        if value is not None:
            values[node] = value
            _write_full(graph, node, value, values)
        elif not strides_count and (kept := _unchanged(node, values)) is not None:
            _pass_on(graph, node, kept)
    graph.eliminate_dead_code()
    module.recompile()


def _one(node: fx.Node, value: Any) -> Tensor:
    """The value as a tensor of one element with the dtype of ``node``: of 0 dims if it has none,
    since those do not take part alike in the choice of a dtype."""
    like = node.meta["val"]
    return torch.full([1] * min(1, like.dim()), value, dtype=like.dtype)


def _value(node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor | None:
    """The only value of the result, or None where it may have several."""
    packet = getattr(node.target, "overloadpacket", None)
    if node in values or not node.all_input_nodes or not node.meta["val"].numel():
        return None
    if packet in _MOVES:
        moved = [n for n in tree_leaves(node.args[0]) if isinstance(n, fx.Node)]
        known = [values.get(n) for n in moved]
        if any(v is None or v.item() != known[0].item() for v in known):  # type: ignore[union-attr]
            return None
        return _one(node, known[0].item())  # type: ignore[union-attr]
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
    if not (pointwise or packet is prims.convert_element_type):
        return None
    if any(n not in values for n in node.all_input_nodes):
        return None
    args, kwargs = tree_map(
        lambda a: values[a] if isinstance(a, fx.Node) else a, (node.args, node.kwargs)
    )
    found: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return None if bool(found.isnan().any()) else _one(node, found.reshape(-1)[0].item())


def _write_full(
    graph: fx.Graph, node: fx.Node, value: Tensor, values: dict[fx.Node, Tensor]
) -> None:
    like = node.meta["val"]
    if node.target is aten.full.default or not like.is_contiguous():
        return
    with graph.inserting_before(node):
        full = graph.call_function(
            aten.full.default,
            (list(like.shape), value.item()),
            {"dtype": like.dtype, "device": like.device},
        )
    full.meta["val"] = like
    values[full] = value
    node.replace_all_uses_with(full)


def _unchanged(node: fx.Node, values: dict[fx.Node, Tensor]) -> fx.Node | None:
    """The argument that the result equals, up to its shape."""
    neutral = {aten.mul.Tensor: 1, aten.add.Tensor: 0}.get(node.target)  # type: ignore[call-overload]
    if neutral is None or node.kwargs or len(node.args) != 2:
        return None
    for kept, other in (node.args, node.args[::-1]):
        known = values.get(other) if isinstance(other, fx.Node) else None
        plain = known is not None and known.item() == neutral
        if plain and isinstance(kept, fx.Node) and kept.meta["val"].dtype == node.meta["val"].dtype:
            return kept
    return None


def _pass_on(graph: fx.Graph, node: fx.Node, kept: fx.Node) -> None:
    shape = node.meta["val"].shape
    if kept.meta["val"].shape != shape:
        with graph.inserting_before(node):
            wide = graph.call_function(aten.expand.default, (kept, list(shape)))
        wide.meta["val"] = kept.meta["val"].expand(shape)
        kept = wide
    node.replace_all_uses_with(kept)
