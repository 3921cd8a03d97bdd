"""What an evaluation is estimated to take, in nanoseconds of one CPU thread.

The numbers were measured on replays in float64; only their ratios matter, since they decide between
ways of computing one Jacobian (``benchmarks/RESULTS.md`` holds the choices against measurements).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import fx

from .graph import Meta, PullbackGraph, packet_name

_CALL = 2_500.0
_BATCHED_CALL = 7_000.0
_FACTOR = 100_000.0
_ELEMENT = 0.8
_FLOP = 0.06
_CONVOLVED = 0.15
_SEED = 0.4
_TERM = 1.3
_ENTRY = 0.6
_GATHERED = 1.2
_MULTIPLIED = 4.0
_PAIR = 2.5
_SOLVED = 6.0
_VIEWS = frozenset(
    "view _unsafe_view reshape expand slice select squeeze unsqueeze t transpose permute getitem "
    "diagonal unbind split split_with_sizes as_strided view_as_real view_as_complex alias".split()
)
_PRODUCTS = frozenset("mm bmm addmm baddbmm mv dot addmv matmul linear".split())
_CONVOLUTIONS = frozenset("convolution convolution_backward".split())


def work(graph: PullbackGraph, calls: Iterable[fx.Node], products: int) -> float:
    """Of running ``calls`` for a batch of products."""
    if not products:
        return 0.0
    total = 0.0
    each = _CALL if products == 1 else _BATCHED_CALL
    for node in calls:
        total += each
        if packet_name(node) not in _VIEWS:
            total += products * _size(graph, node)
    return total


def _size(graph: PullbackGraph, node: fx.Node) -> float:
    out = _numel(graph.metas[node])
    name = packet_name(node)
    inputs = [graph.metas[n] for n in node.all_input_nodes]
    whole = _ELEMENT * max([out, *map(_numel, inputs)])
    if name in _PRODUCTS and len(inputs) >= 2:
        depth = math.sqrt(_numel(inputs[-1]) * _numel(inputs[-2]) / max(out, 1))
        return whole + _FLOP * 2 * out * depth
    if name in _CONVOLUTIONS:
        weight = inputs[-1] if name == "convolution" else inputs[min(2, len(inputs) - 1)]
        per_output = _numel(weight) / max(weight.shape[0], 1) if isinstance(weight, Meta) else 1
        return whole + _CONVOLVED * 2 * out * per_output
    return whole


def _numel(meta: Any) -> int:
    parts = [meta] if isinstance(meta, Meta) else list(meta or ())
    return sum(m.numel * (2 if m.dtype.is_complex else 1) for m in parts if isinstance(m, Meta))


def seeding(products: int, length: int) -> float:
    return _SEED * products * length


def gathering(entries: int) -> float:
    """Of reading each entry at its place in the products."""
    return _GATHERED * entries


def solving(entries: int) -> float:
    """Of substituting known entries into the sums that hold others."""
    return _SOLVED * entries


def factors(count: int) -> float:
    """Of running and assembling one part after the other, whatever their size."""
    return _FACTOR * (count - 1)


def adding(terms: int, entries: int) -> float:
    """Of adding up weighed terms."""
    if terms == entries:
        return gathering(entries)
    return _TERM * terms + _ENTRY * entries


def adding_products(pairs: int, entries: int) -> float:
    """Of adding up products of two entries."""
    return _PAIR * pairs + _ENTRY * entries


def multiplying(pairs: int, entries: int) -> float:
    """Of a product of sparse factors with ``pairs`` products of two numbers."""
    return _MULTIPLIED * pairs + _ENTRY * entries


def matrix_product(rows: int, columns: int, depth: int) -> float:
    return _FLOP * 2 * rows * columns * depth
