"""A log in its final form: every node in its place, every edge with its two ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch.autograd.graph import Node

from .. import _torch
from .events import Edge, Key, PassNode
from .graph import Port
from .origins import call_of
from .passlog import Fired, PassLog
from .watch import Names, Watcher, prehook_names

Hooks = Mapping[Port, Names]


def number(
    watcher: Watcher, hooks: Hooks, leaf_keys: Mapping[Node, Key]
) -> tuple[tuple[PassNode, ...], dict[Node, int]]:
    """The nodes of the watched pass in the order in which they ran, and the place of each."""
    order = _execution_order(watcher.own)
    index = {event.node: k for k, event in enumerate(order)}
    nodes = []
    for k, event in enumerate(order):
        edges = tuple(
            Edge(k, position, index[port.node], port.slot, cotangent)
            for position, port, cotangent in event.sent
            if port.node in index
        )
        names = _receiving_hooks(watcher, event, hooks)
        nodes.append(
            PassNode(
                k,
                _torch.node_name(event.node),
                event.upstream,
                edges,
                event.error,
                names,
                event.changed or (event.error > 0 and bool(names)),
                watcher.sending_hooks.get(event.node, ()),
                call_of(event.node),
                leaf_keys.get(event.node),
            )
        )
    return tuple(nodes), index


def _receiving_hooks(watcher: Watcher, event: Fired, hooks: Hooks) -> Names:
    """The user's hooks between the contributions into a node and the node."""
    names = list(watcher.node_hooks.get(event.node, ()))
    for slot in range(len(event.upstream)):
        names.extend(hooks.get(Port(event.node, slot), ()))
    if event.error > 0 and not names:
        names.extend(prehook_names(event.node))
    return tuple(dict.fromkeys(names))


def _execution_order(log: PassLog) -> list[Fired]:
    """The order of events, with what was captured put where the engine reached it.

    A look hands the cotangents of leaves back when all is done. The engine reaches a leaf right
    after the last node that contributes to it, which is also when a pass that accumulates runs it.
    """
    last: dict[Node, int] = {}
    for k, event in enumerate(log.fired):
        for _, port, _ in event.sent:
            last[port.node] = k
    after: dict[int, list[Fired]] = defaultdict(list)
    for event in log.captured:
        after[last.get(event.node, -1)].append(event)
    ordered = after[-1]
    for k, event in enumerate(log.fired):
        ordered.append(event)
        ordered.extend(after[k])
    return ordered
