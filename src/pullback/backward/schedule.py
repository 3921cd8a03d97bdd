"""The order in which torch's engine runs the nodes of a graph, found without running any.

The engine runs a node when nothing that is still to run sends to it. Of those it takes the one with
the highest sequence number, the youngest; nodes that write ``.grad`` go before all others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch.autograd.graph import Node

from .. import _torch
from .graph import Graph, Port


@dataclass(frozen=True)
class Schedule:
    """``order``: the nodes that run, each once, in the engine's order. ``ends``: those of them at
    which the pass only takes what has arrived, leaves above all."""

    order: tuple[Node, ...]
    ends: frozenset[Node]


def schedule_of(graph: Graph, asked: Collection[Node] | None) -> Schedule:
    """All of ``graph``, or what a pass with respect to the nodes ``asked`` runs of it."""
    order = _run(graph, graph.children_of.keys())
    ends = {node for node, _ in graph.leaves()}
    if asked is not None:
        needed = _needed_for(graph, order, asked)
        ends = set(asked) - needed
        order = _run(graph, needed | ends)
    return Schedule(tuple(order), frozenset(ends))


def _needed_for(graph: Graph, order: Sequence[Node], asked: Collection[Node]) -> set[Node]:
    """The nodes that send, over others or not, to one of ``asked``."""
    found: set[Node] = set()
    for node in reversed(order):
        ports = graph.children_of[node]
        if any(p is not None and (p.node in found or p.node in asked) for p in ports):
            found.add(node)
    return found


def _run(graph: Graph, allowed: Collection[Node]) -> list[Node]:
    """The nodes of ``allowed`` in the order in which the engine's queue hands them out."""
    waiting: dict[Node, int] = dict.fromkeys(graph.children_of, 0)
    sent = [graph.roots, *graph.children_of.values()]
    for port in (port for ports in sent for port in ports):
        if port is not None:
            waiting[port.node] += 1
    queue, order = _Queue(), list[Node]()
    arriving: tuple[Port | None, ...] = graph.roots
    while True:
        for port in arriving:
            if port is None:
                continue
            waiting[port.node] -= 1
            if waiting[port.node] == 0 and port.node in allowed:
                queue.push(port.node)
        if not queue:
            return order
        order.append(queue.pop())
        arriving = graph.children_of[order[-1]]


class _Queue:
    """The binary heap of C++'s ``std::priority_queue``, step by step as GNU's library does it: of
    nodes with equal numbers, as all leaves are, its moves decide which comes first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, Node]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, node: Node) -> None:
        item = (_torch.sequence_number(node), node)
        self._heap.append(item)
        self._rise(len(self._heap) - 1, item)

    def pop(self) -> Node:
        heap = self._heap
        top, item = heap[0], heap.pop()
        if heap:
            self._rise(self._sink(), item)
        return top[1]

    def _sink(self) -> int:
        """Move the hole at the top down along the larger children; where it came to lie."""
        heap, hole = self._heap, 0
        while 2 * hole + 2 < len(heap):
            child = 2 * hole + 2
            if heap[child][0] < heap[child - 1][0]:
                child -= 1
            heap[hole], hole = heap[child], child
        if 2 * hole + 2 == len(heap):
            heap[hole], hole = heap[2 * hole + 1], 2 * hole + 1
        return hole

    def _rise(self, hole: int, item: tuple[int, Node]) -> None:
        heap = self._heap
        while hole > 0 and heap[(hole - 1) // 2][0] < item[0]:
            heap[hole], hole = heap[(hole - 1) // 2], (hole - 1) // 2
        heap[hole] = item
