"""Forward tensors that do not depend on the arguments: their values, and what these follow from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..captured import without_autocast
from ..graph import Meta, PullbackGraph, ignores_values, is_draw, packet_name


class Settled:
    """Values that are the same at every point, as long as the tensors in ``facts`` keep theirs.

    Floating point tensors that the function owns count, unless one has changed before: then all
    will. Integers and booleans do if the capture guards them. ``changing`` names tensors that do
    not count.
    """

    def __init__(
        self,
        graph: PullbackGraph,
        tensors: Sequence[Tensor],
        changing: frozenset[str] = frozenset(),
    ) -> None:
        self._graph, self._changing = graph, changing
        given = [i for i in graph.inputs if i.kind != "cotangent"]
        self._given = {i.node: t for i, t in zip(given, tensors, strict=False)}
        self._names = {i.node: i.name for i in given}
        self._sources: dict[fx.Node, frozenset[str]] = {}
        for node in graph.nodes:
            found = self._follows_from(node, not changing)
            if found is not None:
                self._sources[node] = found
        self._values: dict[fx.Node, Any] = {}
        self.facts: set[str] = set()

    def _follows_from(self, node: fx.Node, floats: bool) -> frozenset[str] | None:
        """The names of what the value is made of; None where it may be another at another point."""
        graph = self._graph
        if node.op == "placeholder":
            given = next((i for i in graph.inputs if i.node is node), None)
            if given is not None and given.name in self._changing:
                return None
            if given is not None and given.kind == "owned" and floats:
                return frozenset({given.name})
            return graph.relies_on.get(node) if node in graph.fixed else None
        if node.op == "get_attr":
            return frozenset() if node in graph.fixed else None
        if node.op != "call_function" or node in graph.linear:
            return None
        if is_draw(node) or "empty" in packet_name(node) or _writes(node):
            return None
        if ignores_values(node):
            return frozenset()
        inputs = [self._sources.get(n) for n in node.all_input_nodes]
        if any(found is None for found in inputs):
            return None
        return frozenset().union(*(found for found in inputs if found is not None))

    def __contains__(self, node: object) -> bool:
        return node in self._sources

    def value(self, node: fx.Node) -> Tensor | None:
        """The value of a settled node; what it follows from becomes one of the ``facts``."""
        if node not in self._sources:
            return None
        self.facts |= self._sources[node]
        self._evaluate(node)
        found = self._values[node]
        return found if isinstance(found, Tensor) else None

    def _evaluate(self, node: fx.Node) -> None:
        stack = [node]
        while stack:
            here = stack[-1]
            if here in self._values:
                stack.pop()
                continue
            waiting = [] if ignores_values(here) else [
                n for n in here.all_input_nodes if n not in self._values
            ]  # fmt: skip
            if waiting:
                stack += waiting
                continue
            self._values[here] = self._run(here)
            stack.pop()

    def _run(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._given[node].detach()
        if node.op == "get_attr":
            return getattr(self._graph.module, str(node.target)).detach()

        def operand(value: Any) -> Any:
            if not isinstance(value, fx.Node):
                return value
            return self._values[value] if value in self._values else stand_in(self._graph, value)

        args, kwargs = pytree.tree_map(operand, (node.args, dict(node.kwargs)))
        target: Any = node.target
        with torch.no_grad(), without_autocast():
            return target(*args, **kwargs)


def stand_in(graph: PullbackGraph, node: fx.Node) -> Tensor:
    """Zeros of a node's shape, for calls that read the shape alone."""
    meta = graph.metas[node]
    assert isinstance(meta, Meta)
    return torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device)


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
