"""What unit seeds make of a graph.

A batch of all unit vectors is an identity matrix; scaled entry by entry it is a diagonal one. A
matrix product with either takes no matrix product, and the scaling no more than a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..graph import packet_name
from .tidy import is_reshape

aten = torch.ops.aten

_TRANSPOSES = frozenset("t transpose permute".split())
# Linear in their first argument, entry by entry, however many entries there are.
_SCALES = frozenset(
    "mul div neg threshold_backward tanh_backward sigmoid_backward elu_backward gelu_backward "
    "silu_backward mish_backward softplus_backward hardtanh_backward hardswish_backward "
    "hardsigmoid_backward leaky_relu_backward".split()
)


@dataclass
class _Diagonal:
    """The node has, flattened, the entries of an n x n diagonal matrix. ``entries`` is a node of
    n elements; None where all are 1."""

    n: int
    entries: fx.Node | None


def fold_units(module: fx.GraphModule, values: dict[fx.Node, Tensor]) -> None:
    """Put cheaper calls for those on identities among ``values`` and on what is made of them."""
    graph = module.graph
    found = {node: _Diagonal(len(t), None) for node, t in values.items() if _is_identity(t)}
    for node in list(graph.nodes) if found else ():
        if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
            continue
        if node.target is aten.mm.default:
            _multiply(graph, node, found)
        elif (diagonal := _diagonal(graph, node, found)) is not None:
            found[node] = diagonal
    graph.eliminate_dead_code()


def _is_identity(tensor: Tensor) -> bool:
    n = len(tensor) if tensor.dim() > 1 else 0
    if not n or tensor.numel() != n * n or not tensor.is_floating_point():
        return False
    ones = tensor.reshape(n, n).diagonal()
    return bool((ones == 1).all()) and int(tensor.count_nonzero()) == n


def _diagonal(graph: fx.Graph, node: fx.Node, found: dict[fx.Node, _Diagonal]) -> _Diagonal | None:
    name, first = packet_name(node), node.args[0] if node.args else None
    known = found.get(first) if isinstance(first, fx.Node) else None
    if known is not None and (name == "clone" or is_reshape(node)):
        return known
    if known is not None and name in _TRANSPOSES:
        return known if node.meta["val"].shape == (known.n, known.n) else None
    return _scaled(graph, node, found)


def _scaled(graph: fx.Graph, node: fx.Node, found: dict[fx.Node, _Diagonal]) -> _Diagonal | None:
    """The diagonal after a call that scales entry by entry, by what is the same in the batch."""
    name = packet_name(node)
    args: list[Any] = list(node.args)
    places = [k for k, a in enumerate(args) if isinstance(a, fx.Node) and a in found]
    allowed = [0, 1] if name == "mul" else [0] if name in _SCALES else []
    if len(places) != 1 or places[0] not in allowed or node.kwargs.get("rounding_mode") is not None:
        return None
    unit: Any = args[places[0]]
    known, like = found[unit], unit.meta["val"]
    if like.shape != node.meta["val"].shape or like.shape[0] != known.n:
        return None
    inner = like.shape[1:]
    others = [a for a in args if isinstance(a, fx.Node) and a is not unit]
    if any(_varies(o.meta["val"], like) or o.meta["val"].dtype != like.dtype for o in others):
        return None
    with graph.inserting_before(node):
        for k, arg in enumerate(args):
            if arg is unit:
                args[k] = _vector(graph, unit, known, inner)
            elif isinstance(arg, fx.Node) and arg.meta["val"].dim() == like.dim():
                first = arg.meta["val"].select(0, 0)
                args[k] = _call(graph, aten.select.int, (arg, 0, 0), first)
        scaled = _call(graph, node.target, tuple(args), like.new_empty(inner), node.kwargs)
        entries = _call(graph, aten.reshape.default, (scaled, [known.n]), like.new_empty(known.n))
    return _Diagonal(known.n, entries)


def _varies(other: Tensor, like: Tensor) -> bool:
    """Whether a factor may differ from one unit vector of the batch to the next."""
    if other.dim() < like.dim():
        return False
    return other.dim() > like.dim() or not (other.shape[0] == 1 or other.stride(0) == 0)


def _vector(graph: fx.Graph, unit: fx.Node, known: _Diagonal, shape: Any) -> fx.Node:
    """The diagonal as a tensor of ``shape``."""
    like = unit.meta["val"].new_empty(shape)
    if known.entries is not None:
        return _call(graph, aten.reshape.default, (known.entries, list(shape)), like)
    kind = {"dtype": like.dtype, "device": like.device}
    return _call(graph, aten.full.default, (list(shape), 1), like, kind)


def _multiply(graph: fx.Graph, node: fx.Node, found: dict[fx.Node, _Diagonal]) -> None:
    left: Any = node.args[0]
    right: Any = node.args[1]
    known, other, dim = found.get(left), right, 1
    if known is None:
        known, other, dim = found.get(right), left, 0
    if known is None or node.meta["val"].shape != other.meta["val"].shape:
        return
    if left in found and right in found:
        return
    product = other
    if known.entries is not None:
        with graph.inserting_before(node):
            like = known.entries.meta["val"].unsqueeze(dim)
            column = _call(graph, aten.unsqueeze.default, (known.entries, dim), like)
            product = _call(graph, aten.mul.Tensor, (column, other), node.meta["val"])
    node.replace_all_uses_with(product)


def _call(
    graph: fx.Graph, target: Any, args: tuple[Any, ...], like: Tensor, kwargs: Any = None
) -> fx.Node:
    made = graph.call_function(target, args, kwargs)
    made.meta["val"] = like
    return made
