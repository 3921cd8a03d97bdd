"""The watch for the first node of a pass that receives finite cotangents and sends others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .finite import all_finite, plain
from .graph import Port
from .measure import same_entries
from .passlog import Fired, Gradients, Keeper, Known, PassLog, Ports, Seeds

Sender = tuple[Node, int]

# Tests of small tensors cost less than finding out that they need none.
_WORTH_A_COMPARISON = 16_384


@dataclass
class Reached:
    """What has arrived at one slot of a node so far, and whether all of it was finite."""

    tensor: Tensor
    version: int
    finite: bool


@dataclass(frozen=True, eq=False)
class Sighting:
    """The tensors of the first birth: what ``node`` had received and what it sent.

    ``received`` is None where it is not the node that made the entries: they came up between the
    ``senders`` of its slot ``slot`` and the node, in a sum or in a hook, and ``sent[slot]`` holds
    what the node was given.
    """

    node: Node
    slot: int
    received: Gradients | None
    sent: Gradients
    senders: dict[int, tuple[Sender, ...]]


class BirthLog(PassLog):
    """Tests every contribution once; keeps the tensors of the first birth and no others."""

    def __init__(self, seeds: Seeds, keep: Keeper) -> None:
        super().__init__({}, keep)
        self.first: Sighting | None = None
        self.others: list[Node] = []
        self.sent_by: dict[Port, list[Sender]] = {}
        self._reached: dict[Port, Reached] = {}
        self._upstream: dict[Node, tuple[Gradients, bool]] = {}
        for port, parts in seeds.items():
            for value, _ in parts:
                self._reach(port, value, all_finite(value), None)

    def received(self, node: Node, values: Gradients) -> Fired:
        finite = True
        for slot, value in enumerate(values):
            if value is not None:
                finite &= self._test(Port(node, slot), value)
        custom = _torch.custom_function(node) is not None
        kept = tuple(None if v is None else plain(v) for v in values) if custom else values
        self._upstream[node] = kept, finite
        return Fired(node, (None,) * len(values), 0.0, False)

    def ran(self, event: Fired, ports: Ports, sent: Gradients, known: list[Known]) -> None:
        received, upstream_finite = self._upstream.pop(event.node)
        born = False
        for position, (port, value) in enumerate(zip(ports, sent, strict=False)):
            if port is None or value is None:
                continue
            finite = (upstream_finite and _passed_on(value, received)) or all_finite(value)
            born |= upstream_finite and not finite
            self._reach(port, value, finite, (event.node, position))
        if born:
            self._sight(event.node, 0, received, sent)

    def deposited(self, port: Port, value: Tensor | None) -> None:
        raise NotImplementedError("a watch for births only looks")

    def capture(self, port: Port, value: Tensor | None) -> None:
        if value is not None and port in self._reached:
            self._test(port, value)

    def _reach(self, port: Port, value: Tensor, finite: bool, sender: Sender | None) -> None:
        if sender is not None:
            self.sent_by.setdefault(port, []).append(sender)
        known = self._reached.get(port)
        if known is None:
            self._reached[port] = Reached(value, _torch.version_of(value), finite)
        else:
            known.finite &= finite
            known.version = -1  # the sum of several has to be tested itself

    def _test(self, port: Port, value: Tensor) -> bool:
        """Whether what arrived at ``port`` is finite; not so, though its parts were, is a birth."""
        known = self._reached.pop(port, None)
        if known is None:
            return all_finite(value)
        if known.tensor is value and known.version == _torch.version_of(value):
            return known.finite
        finite = all_finite(value)
        if known.finite and not finite:
            given: list[Tensor | None] = [None] * port.slot
            self._sight(port.node, port.slot, None, (*given, value))
        return finite

    def _sight(self, node: Node, slot: int, received: Gradients | None, sent: Gradients) -> None:
        if self.first is not None:
            self.others.append(node)
            return
        senders = {
            k: tuple(self.sent_by.get(Port(node, k), ())) for k in range(len(received or sent))
        }
        self.first = Sighting(
            node, slot, None if received is None else _copies(received), _copies(sent), senders
        )


def _copies(tensors: Gradients) -> Gradients:
    return tuple(None if t is None else plain(t) for t in tensors)


def _passed_on(value: Tensor, received: Sequence[Tensor | None]) -> bool:
    """Whether ``value`` is what the node received, perhaps as another view of it."""
    return any(
        value is given
        or (
            given is not None
            and value.numel() >= _WORTH_A_COMPARISON
            and same_entries(value, given)
        )
        for given in received
    )
