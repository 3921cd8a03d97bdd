"""Calls that hand on what they are given: powers of one, powers of zero, products with one.

torch's formulas are full of them: that of ``x ** 2`` makes ``x ** 1``, whose own makes ``x ** 0``.
What is left of a quadratic function without them is constant, and is then computed only once.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from .graph import Meta, PullbackGraph, is_needed, packet_name


def without_trivial_calls(graph: PullbackGraph) -> bool:
    """Take them out of the graph; False where there are none.

    Needs the metas of a survey; they are out of date afterwards. A result stays a call of its own,
    so that it is no tensor of the caller's.
    """
    results = {r for r in graph.results if r is not None}
    ones: set[fx.Node] = set()
    found = False
    for node in graph.nodes:
        if node.op != "call_function" or not _is_smooth(graph.metas[node]):
            continue
        name = packet_name(node)
        if name == "pow" and _is_number(node.args[1], 0) and _alike(graph, node, node.args[0]):
            ones.add(node)
        elif (given := _handed_on(node, name, ones)) is not None and _alike(graph, node, given):
            if given in ones:
                ones.add(node)
            if node not in results:
                node.replace_all_uses_with(given)
                found = True
    if found:
        graph.module.graph.eliminate_dead_code(is_impure_node=is_needed)
        graph.module.recompile()
        graph.classify_again()
    return found


def _handed_on(node: fx.Node, name: str, ones: set[fx.Node]) -> fx.Node | None:
    """The operand that the result is, if it is one."""
    if name not in ("pow", "mul", "div", "true_divide") or node.kwargs:
        return None
    left, right = node.args
    one_at_right = right in ones or _is_number(right, 1)
    if isinstance(left, fx.Node) and (_is_number(right, 1) if name == "pow" else one_at_right):
        return left
    if name == "mul" and left in ones and isinstance(right, fx.Node):
        return right
    return None


def _is_number(value: Any, wanted: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == wanted


def _is_smooth(meta: Any) -> bool:
    return isinstance(meta, Meta) and (meta.dtype.is_floating_point or meta.dtype.is_complex)


def _alike(graph: PullbackGraph, node: fx.Node, given: Any) -> bool:
    """Whether the operand can stand for the result: later calls may rely on its strides."""
    if not isinstance(given, fx.Node):
        return False
    mine, theirs = graph.metas[node], graph.metas[given]
    return isinstance(theirs, Meta) and (mine.shape, mine.stride, mine.dtype, mine.device) == (
        theirs.shape, theirs.stride, theirs.dtype, theirs.device
    )  # fmt: skip
