"""Hooks on every node of a graph that write down what passes while the engine runs."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from .. import _torch
from .events import Cotangent, Edge, Key, PassNode
from .graph import Graph, Port
from .measure import add, cotangent_of, difference, same_entries
from .provenance import call_of

Ports = tuple[Port | None, ...]
Gradients = tuple[Tensor | None, ...]
Known = tuple[Tensor | None, Cotangent | None]


class Keeper:
    """Decides which tensors a record keeps whole, within a budget of bytes."""

    def __init__(self, keep: str, single: int = 4096, total: int = 16 << 20) -> None:
        everything = keep == "tensors"
        self._single = math.inf if everything else single
        self._left: float = math.inf if everything else total

    def __call__(self, tensor: Tensor) -> Tensor | None:
        size = tensor.numel() * tensor.element_size()
        if size > self._single or size > self._left:
            return None
        self._left -= size
        return owned(tensor)


def owned(tensor: Tensor) -> Tensor:
    """A copy that shares no memory with the pass: hooks and optimizers may write to theirs."""
    return tensor.detach().clone()


@dataclass
class Arrival:
    """What has reached one slot of a node so far."""

    tensor: Tensor
    version: int
    cotangent: Cotangent
    count: int = 1

    def receive(self, tensor: Tensor) -> None:
        self.tensor = add(self.tensor, tensor)
        self.count += 1


@dataclass
class Fired:
    """A node that ran, before its edges know the final numbering."""

    node: Node
    upstream: tuple[Cotangent | None, ...]
    error: float
    changed: bool
    sent: list[tuple[int, Port, Cotangent | None]] = field(default_factory=list)


class Watcher:
    """Collects events while the engine runs; ``watch`` puts the hooks on, ``unwatch`` off.

    A contribution is held until the node it goes to has run. The engine holds it as long, so
    nothing lives longer than without a recorder, but for running sums at nodes that several
    contributions enter: these are added here again, in the engine's order, to compare.
    """

    def __init__(self, graph: Graph, keeper: Keeper) -> None:
        self.graph = graph
        self.fired: list[Fired] = []
        self.captured: list[Fired] = []
        self.node_hooks: dict[Node, tuple[str, ...]] = {}
        self.sleeping_hooks: dict[Node, tuple[str, ...]] = {}
        self.deposits: dict[Port, Tensor] = {}
        self._keep = keeper
        self._arrivals: dict[Port, Arrival] = {}
        self._handles: list[RemovableHandle] = []
        self._lock = threading.RLock()  # on CUDA the engine runs hooks in a thread per device

    def seed(self, cotangents: Sequence[Tensor]) -> list[Cotangent]:
        seeds = []
        for port, value in zip(self.graph.roots, cotangents, strict=True):
            seeds.append(self._arrive(port, value.detach(), None))
        return seeds

    def watch(self, *, leaves: bool) -> None:
        """Hook every node; leaf nodes only run in a pass that accumulates."""
        for node, ports in self.graph.children_of.items():
            if _torch.leaf_of(node) is not None:
                self._watch_leaf(node) if leaves else self._note_sleeping(node)
            elif _torch.custom_function(node) is not None:
                self._watch_custom(node, ports)
            else:
                self._watch_node(node, ports)

    def _watch_node(self, node: Node, ports: Ports) -> None:
        def posthook(sent: Gradients, received: Gradients) -> None:
            with self._lock, torch.no_grad():
                event = self._event(node, received)
                self._ran(event, ports, sent, list(zip(received, event.upstream, strict=True)))

        self._add(node, node.register_hook(posthook), posthook)

    def _watch_custom(self, node: Node, ports: Ports) -> None:
        """A custom backward may write into the cotangent it is given: read that beforehand."""
        begun: list[Fired] = []

        def prehook(received: Gradients) -> None:
            with self._lock, torch.no_grad():
                begun.append(self._event(node, received))

        def posthook(sent: Gradients, received: Gradients) -> None:
            with self._lock, torch.no_grad():
                self._ran(begun.pop(), ports, sent, [])

        self._add(node, node.register_prehook(prehook), prehook)
        self._add(node, node.register_hook(posthook), posthook)

    def _watch_leaf(self, node: Node) -> None:
        """Read before the node runs: what it writes to ``.grad`` may be the same memory."""

        def prehook(received: Gradients) -> None:
            with self._lock, torch.no_grad():
                self.fired.append(self._event(node, received))
                self._deposit(Port(node, 0), received[0])

        self._add(node, node.register_prehook(prehook), prehook)

    def _note_sleeping(self, node: Node) -> None:
        """A hook of our own, for a moment, shows the table with the user's."""
        handle = node.register_prehook(_nothing)
        theirs = [hook for hook in _torch.handle_hooks(handle) if hook is not _nothing]
        handle.remove()
        if theirs:
            self.sleeping_hooks[node] = tuple(map(_torch.hook_name, theirs))

    def _add(self, node: Node, handle: RemovableHandle, own: Callable[..., Any]) -> None:
        self._handles.append(handle)
        table = _torch.handle_hooks(handle)
        if len(table) > 1:
            theirs = tuple(_torch.hook_name(hook) for hook in table if hook is not own)
            self.node_hooks[node] = self.node_hooks.get(node, ()) + theirs

    def unwatch(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._arrivals.clear()

    def _arrive(self, port: Port, value: Tensor, cotangent: Cotangent | None) -> Cotangent:
        known = cotangent or cotangent_of(value, self._keep)
        arrival = self._arrivals.get(port)
        if arrival is None:
            self._arrivals[port] = Arrival(value, value._version, known)
        else:
            arrival.receive(value)
        return known

    def _receive(self, node: Node, slot: int, value: Tensor) -> tuple[Cotangent, float, bool]:
        """Match what a node was given with what was sent to it."""
        arrival = self._arrivals.pop(Port(node, slot), None)
        if arrival is None:
            return cotangent_of(value, self._keep), math.inf, False
        untouched = arrival.tensor._version == arrival.version or arrival.count > 1
        if value is arrival.tensor and untouched:
            return arrival.cotangent, 0.0, False
        error = difference(arrival.tensor, value)
        if error == 0.0 and arrival.count == 1 and untouched:
            return arrival.cotangent, 0.0, False
        return cotangent_of(value, self._keep), error, not untouched

    def _ran(self, event: Fired, ports: Ports, sent: Gradients, known: list[Known]) -> None:
        self.fired.append(event)
        for position, (port, value) in enumerate(zip(ports, sent, strict=False)):
            if port is None:
                continue
            cotangent = None
            if value is not None:
                cotangent = self._measure(value, known)
                known.append((value, cotangent))
                self._arrive(port, value, cotangent)
            event.sent.append((position, port, cotangent))

    def _event(self, node: Node, received: Gradients) -> Fired:
        upstream: list[Cotangent | None] = []
        worst, changed = 0.0, False
        for slot, value in enumerate(received):
            if value is None:
                upstream.append(None)
                continue
            cotangent, error, edited = self._receive(node, slot, value)
            upstream.append(cotangent)
            worst, changed = max(worst, error), changed or edited
        return Fired(node, tuple(upstream), worst, changed)

    def _measure(self, value: Tensor, known: list[Known]) -> Cotangent:
        for other, cotangent in known:
            if other is value and cotangent is not None:
                return cotangent
        for other, cotangent in known:
            if other is not None and cotangent is not None and same_entries(other, value):
                return cotangent_of(value, self._keep, cotangent.measured)
        return cotangent_of(value, self._keep)

    def _deposit(self, port: Port, value: Tensor | None) -> None:
        if value is not None:
            self.deposits[port] = owned(value)

    def capture(self, port: Port, value: Tensor | None, *, ours: bool = False) -> None:
        """Take what the engine hands back at the end of a look, where a deposit would have been.

        ``ours``: nobody else holds the memory of ``value``, so it need not be copied.
        """
        if value is not None:
            self.deposits[port] = value.detach() if ours else owned(value)
        if port.node not in {event.node for event in self.fired}:
            received: list[Tensor | None] = [None] * len(_torch.slots(port.node))
            received[port.slot] = value
            with torch.no_grad():
                self.captured.append(self._event(port.node, tuple(received)))


def _nothing(received: Gradients) -> None: ...


def number(
    watcher: Watcher,
    hooks: Mapping[Port, tuple[str, ...]],
    leaf_keys: Mapping[Node, Key],
) -> tuple[tuple[PassNode, ...], dict[Node, int]]:
    """Give every node that ran its place in the order, and every edge its ends."""
    order = _execution_order(watcher)
    index = {event.node: k for k, event in enumerate(order)}
    nodes = []
    for k, event in enumerate(order):
        edges = tuple(
            Edge(k, position, index[port.node], port.slot, cotangent)
            for position, port, cotangent in event.sent
            if port.node in index
        )
        names = list(watcher.node_hooks.get(event.node, ()))
        for slot in range(len(event.upstream)):
            names.extend(hooks.get(Port(event.node, slot), ()))
        changed = event.changed or (event.error > 0 and bool(names))
        nodes.append(
            PassNode(
                k,
                _torch.node_name(event.node),
                event.upstream,
                edges,
                event.error,
                tuple(dict.fromkeys(names)),
                changed,
                call_of(event.node),
                leaf_keys.get(event.node),
            )
        )
    return tuple(nodes), index


def _execution_order(watcher: Watcher) -> list[Fired]:
    """The order of events, with what was captured put where the engine reached it.

    A look hands the cotangents of leaves back when all is done. The engine reaches a leaf right
    after the last node that contributes to it, which is also when a pass that accumulates runs it.
    """
    last: dict[Node, int] = {}
    for k, event in enumerate(watcher.fired):
        for _, port, _ in event.sent:
            last[port.node] = k
    after: dict[int, list[Fired]] = defaultdict(list)
    for event in watcher.captured:
        after[last.get(event.node, -1)].append(event)
    ordered = after[-1]
    for k, event in enumerate(watcher.fired):
        ordered.append(event)
        ordered.extend(after[k])
    return ordered
