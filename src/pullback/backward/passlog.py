"""What passes in one backward, written down as it happens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .events import Cotangent
from .graph import Port
from .measure import add, cotangent_of, difference, same_entries

Ports = tuple[Port | None, ...]
Gradients = tuple[Tensor | None, ...]
Known = tuple[Tensor | None, Cotangent | None]
Seeds = Mapping[Port, Sequence[tuple[Tensor, Cotangent]]]


# Outputs and their cotangents are what a reader looks at first: larger ones are kept.
OF_OUTPUTS = 1 << 18


class Keeper:
    """Decides which tensors a record keeps whole, within a budget of bytes."""

    def __init__(self, keep: str, single: int = 4096, total: int = 16 << 20) -> None:
        self.keep = keep
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


class PassLog:
    """The events of one backward.

    A contribution is held until the node it goes to has run. The engine holds it as long, so
    nothing lives longer than without a record, but for running sums at nodes that several
    contributions enter: these are added here again, in the engine's order, to compare.
    """

    def __init__(self, seeds: Seeds, keep: Keeper) -> None:
        self.fired: list[Fired] = []
        self.captured: list[Fired] = []
        self.deposits: dict[Port, Tensor] = {}
        self._keep = keep
        self._known_nodes: set[Node] = set()
        self._arrivals: dict[Port, Arrival] = {}
        for port, parts in seeds.items():
            for value, cotangent in parts:
                self._arrive(port, value, cotangent)

    def received(self, node: Node, values: Gradients) -> Fired:
        """Match what ``node`` was given, slot by slot, with what was sent to it."""
        upstream: list[Cotangent | None] = []
        worst, changed = 0.0, False
        for slot, value in enumerate(values):
            if value is None:
                upstream.append(None)
                continue
            cotangent, error, edited = self._match(Port(node, slot), value)
            upstream.append(cotangent)
            worst, changed = max(worst, error), changed or edited
        return Fired(node, tuple(upstream), worst, changed)

    def ran(self, event: Fired, ports: Ports, sent: Gradients, known: list[Known]) -> None:
        """Write down what the node of ``event`` sent; ``known`` tensors need no measuring."""
        self._known_nodes.add(event.node)
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

    def deposited(self, port: Port, value: Tensor | None) -> None:
        """A leaf is about to add ``value`` to its ``.grad``."""
        self.ran(self.received(port.node, (value,)), (), (), [])
        if value is not None:
            self.deposits[port] = owned(value)

    def capture(self, port: Port, value: Tensor | None) -> None:
        """Take what the engine hands back at the end of a look, where a deposit would have been."""
        if value is not None:
            self.deposits[port] = owned(value)
        if port.node not in self._known_nodes:
            self._known_nodes.add(port.node)
            values: list[Tensor | None] = [None] * len(_torch.slots(port.node))
            values[port.slot] = value
            self.captured.append(self.received(port.node, tuple(values)))

    def _arrive(self, port: Port, value: Tensor, cotangent: Cotangent) -> None:
        arrival = self._arrivals.get(port)
        if arrival is None:
            self._arrivals[port] = Arrival(value, _torch.version_of(value), cotangent)
        else:
            arrival.receive(value)

    def _match(self, port: Port, value: Tensor) -> tuple[Cotangent, float, bool]:
        arrival = self._arrivals.pop(port, None)
        if arrival is None:
            return cotangent_of(value, self._keep), math.inf, False
        untouched = arrival.count > 1 or _torch.version_of(arrival.tensor) == arrival.version
        if value is arrival.tensor and untouched:
            return arrival.cotangent, 0.0, False
        error = difference(arrival.tensor, value)
        if error == 0.0 and arrival.count == 1 and untouched:
            return arrival.cotangent, 0.0, False
        return cotangent_of(value, self._keep), error, not untouched

    def _measure(self, value: Tensor, known: list[Known]) -> Cotangent:
        for other, cotangent in known:
            if other is value and cotangent is not None:
                return cotangent
        for other, cotangent in known:
            if other is not None and cotangent is not None and same_entries(other, value):
                return cotangent_of(value, self._keep, cotangent.measured)
        return cotangent_of(value, self._keep)
