"""The autograd graph behind some tensors, walked iteratively and held alive while it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from .. import _torch
from .depth import latch_all


class Port(NamedTuple):
    """A slot of a node: where a cotangent arrives."""

    node: Node
    slot: int


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of a depth-first walk from the outputs; ``roots[k]`` is output ``k``.

    The nodes are strong references: a Python object of a node keeps its graph alive, so a record
    in the making cannot lose it.
    """

    roots: tuple[Port, ...]
    children_of: dict[Node, tuple[Port | None, ...]]

    @property
    def nodes(self) -> Iterable[Node]:
        return self.children_of.keys()

    def leaves(self) -> list[tuple[Node, Tensor]]:
        """AccumulateGrad nodes with the tensors that they write to, in walking order."""
        found = []
        for node in self.nodes:
            leaf = _torch.leaf_of(node)
            if leaf is not None:
                found.append((node, leaf))
        return found


def port_of(tensor: Tensor) -> Port:
    """Where a cotangent of ``tensor`` enters the graph."""
    with torch.inference_mode(False):  # a leaf's node is found by making a view of the leaf
        edge = get_gradient_edge(tensor)
    return Port(edge.node, edge.output_nr)


def walk(outputs: Sequence[Tensor]) -> Graph:
    """The graph behind ``outputs``, each of which requires a gradient."""
    return walk_from([port_of(output) for output in outputs])


def walk_from(roots: Sequence[Port]) -> Graph:
    """The graph behind some ports."""
    children: dict[Node, tuple[Port | None, ...]] = {}
    stack = [root.node for root in reversed(roots)]
    while stack:
        node = stack.pop()
        if node in children:
            continue
        ports = tuple(
            None if child is None else Port(child, slot) for child, slot in node.next_functions
        )
        children[node] = ports
        stack.extend(p.node for p in reversed(ports) if p is not None and p.node not in children)
    latch_all(children)
    return Graph(tuple(roots), children)
