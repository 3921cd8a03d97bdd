"""How the gradient of a tensor that all samples share is put together at the end of a backward.

The gradient of a weight is a sum of outer products, ``sum_t d[t] a[t]'``: ``d`` is linear in the
cotangent, ``a`` is not, and t runs over the samples (and over places within them). So a row of the
Jacobian is known from the ``d`` and ``a`` of its own sample, and ``d`` takes as many products as
one sample has outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

from .graph import Meta, PullbackGraph, packet_name

_SAME = frozenset("view _unsafe_view reshape clone detach alias _to_copy".split())


@dataclass(frozen=True)
class Term:
    """``delta`` is the node of d, whose axes ``summed`` are t, in this order; the others are its
    columns. ``kind`` says what stands beside it:

    - "outer": the node ``beside`` gives a, its axis ``along`` is t;
    - "patches": a are the patches of the images ``beside``, for a kernel as in ``options``;
    - "table": a is the unit vector of the index in ``beside``, of ``options`` = (rows, skipped);
    - "scaled": d is multiplied, entry by entry, by what ``options`` makes of the nodes ``reads``;
    - "sum": nothing.

    ``first`` says that the columns of d come first in the gradient, those of a second.
    """

    kind: str
    delta: fx.Node
    summed: tuple[int, ...]
    reads: tuple[fx.Node, ...] = ()
    along: int = 0
    options: tuple[Any, ...] = ()
    first: bool = True


def terms_of(graph: PullbackGraph, gradient: fx.Node) -> list[Term] | None:
    """The terms whose sum is the gradient, or None where it is of another form."""
    return _terms(graph, gradient, flipped=False, moved=False)


def _terms(graph: PullbackGraph, node: fx.Node, *, flipped: bool, moved: bool) -> list[Term] | None:
    """``flipped``: the matrix of ``node`` is transposed behind it; ``moved``: that happens."""
    while node in graph.linear and node.op == "call_function":
        name = packet_name(node)
        inner = node.args[0]
        if name == "t" and len(_meta(graph, node).shape) == 2:
            flipped, moved = not flipped, True
        elif name in _SAME and isinstance(inner, fx.Node):
            if _meta(graph, inner).dtype != _meta(graph, node).dtype:
                return None
            if moved and _meta(graph, inner).shape != _meta(graph, node).shape:
                return None
        elif name == "add":
            return _both(graph, node, flipped=flipped, moved=moved)
        else:
            found = _LAST.get(name, _nothing)(graph, node)
            return None if found is None else [_turned(found, flipped)]
        assert isinstance(inner, fx.Node)
        node = inner
    return None


def _both(graph: PullbackGraph, node: fx.Node, *, flipped: bool, moved: bool) -> list[Term] | None:
    """Of a tensor that is used at several places."""
    shape = _meta(graph, node).shape
    parts = node.args[:2]
    if node.kwargs.get("alpha", 1) != 1 or len(parts) != 2:
        return None
    found: list[Term] = []
    for part in parts:
        if not isinstance(part, fx.Node) or _meta(graph, part).shape != shape:
            return None
        terms = _terms(graph, part, flipped=flipped, moved=moved)
        if terms is None:
            return None
        found += terms
    return found


def _turned(term: Term, flipped: bool) -> Term:
    if not flipped:
        return term
    return Term(
        term.kind, term.delta, term.summed, term.reads, term.along, term.options, not term.first
    )


def _nothing(graph: PullbackGraph, node: fx.Node) -> Term | None:
    return None


def _mm(graph: PullbackGraph, node: fx.Node) -> Term | None:
    left, right = node.args[:2]
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    if (left in graph.linear) == (right in graph.linear):
        return None
    if left in graph.linear:
        return Term("outer", left, (1,), (right,), 0)
    return Term("outer", right, (0,), (left,), 1, first=False)


def _sum(graph: PullbackGraph, node: fx.Node) -> Term | None:
    inner, dims = node.args[0], node.args[1] if len(node.args) > 1 else None
    if not isinstance(inner, fx.Node) or not isinstance(dims, list | tuple) or not dims:
        return None
    rank = len(_meta(graph, inner).shape)
    summed = tuple(int(d) % rank for d in dims)
    return Term("sum", inner, summed)


def _entry(graph: PullbackGraph, node: fx.Node) -> Term | None:
    call, place = node.args[:2]
    if not isinstance(call, fx.Node):
        return None
    found = _CALLS.get(packet_name(call))
    return found(graph, call, int(place)) if found is not None else None  # type: ignore[arg-type]


def _alone(graph: PullbackGraph, call: fx.Node) -> fx.Node | None:
    """The first argument, if it is all that is linear in the call."""
    delta = call.args[0]
    linear = [n for n in call.all_input_nodes if n in graph.linear]
    return delta if isinstance(delta, fx.Node) and linear == [delta] else None


def _convolution(graph: PullbackGraph, call: fx.Node, place: int) -> Term | None:
    delta = _alone(graph, call)
    if delta is None or place not in (1, 2):
        return None
    images, weight = call.args[1:3]
    stride, padding, dilation, transposed, _, groups = call.args[4:10]
    rank = len(_meta(graph, delta).shape)
    summed = (0, *range(2, rank))
    if place == 2:
        return Term("sum", delta, summed)
    if transposed or groups != 1 or rank not in (3, 4):
        return None
    assert isinstance(images, fx.Node)
    assert isinstance(weight, fx.Node)
    kernel = _meta(graph, weight).shape[2:]
    options = tuple(
        tuple(int(v) for v in group)  # type: ignore[arg-type, union-attr]
        for group in (kernel, stride, padding, dilation)
    )
    return Term("patches", delta, summed, (images,), options=options)


def _layer_norm(graph: PullbackGraph, call: fx.Node, place: int) -> Term | None:
    delta = _alone(graph, call)
    if delta is None or place not in (1, 2):
        return None
    _, x, shape, mean, rstd = call.args[:5]
    lead = len(_meta(graph, delta).shape) - len(list(shape))  # type: ignore[arg-type]
    summed = tuple(range(lead))
    if not lead or place == 2:
        return Term("sum", delta, summed) if lead else None
    reads = tuple(n for n in (x, mean, rstd) if isinstance(n, fx.Node))
    return (
        Term("scaled", delta, summed, reads, options=("layer norm",)) if len(reads) == 3 else None
    )


def _batch_norm(graph: PullbackGraph, call: fx.Node, place: int) -> Term | None:
    delta = _alone(graph, call)
    if delta is None or place not in (1, 2):
        return None
    rank = len(_meta(graph, delta).shape)
    summed = (0, *range(2, rank))
    if place == 2:
        return Term("sum", delta, summed)
    x, mean, variance, training, eps = (call.args[k] for k in (1, 3, 4, 7, 8))
    reads = tuple(n for n in (x, mean, variance) if isinstance(n, fx.Node))
    if training or len(reads) != 3:
        return None
    return Term("scaled", delta, summed, reads, options=("batch norm", eps))


def _table(graph: PullbackGraph, node: fx.Node) -> Term | None:
    delta = _alone(graph, node)
    indices, rows, skipped, by_frequency = node.args[1:5]
    if delta is None or by_frequency or not isinstance(indices, fx.Node):
        return None
    lead = tuple(range(len(_meta(graph, delta).shape) - 1))
    return Term("table", delta, lead, (indices,), options=(rows, skipped), first=False)


_LAST: dict[str, Callable[[PullbackGraph, fx.Node], Term | None]] = {
    "mm": _mm,
    "sum": _sum,
    "getitem": _entry,
    "embedding_dense_backward": _table,
}
_CALLS: dict[str, Callable[[PullbackGraph, fx.Node, int], Term | None]] = {
    "convolution_backward": _convolution,
    "native_layer_norm_backward": _layer_norm,
    "native_batch_norm_backward": _batch_norm,
}


def _meta(graph: PullbackGraph, node: fx.Node) -> Meta:
    meta = graph.metas[node]
    assert isinstance(meta, Meta)
    return meta
