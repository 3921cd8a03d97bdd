"""The state of a pass that is taken step by step, forward and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from .. import _torch
from .aside import Aside, Random, Retained
from .graph import Port
from .measure import add
from .onenode import capture, deposit, run_node
from .origins import call_of
from .outcome import Job
from .passlog import Gradients, owned
from .schedule import Schedule, schedule_of
from .steps import Contribution, Place, Step


class Found(NamedTuple):
    """What the engine did at a node. ``taken``: what a look hands back there, by slot; ``hooked``:
    what the hooks on the tensors that the node made have left of it."""

    sent: Gradients
    taken: dict[int, Tensor]
    hooked: dict[int, Tensor]


class Taken(NamedTuple):
    """A step, and all that undoes it."""

    step: Step
    received: Gradients
    copies: Gradients
    buffers: dict[Port, Tensor | None]
    random: Random
    found: Found
    retained: Retained


class Edited(NamedTuple):
    """An edit, and what it replaced."""

    port: Port
    before: Tensor | None


class Stepping:
    """``position`` is the turn of the node about to run; ``arrived[port]`` the sum of what has been
    sent there so far, in the engine's order.

    The engine gets the tensors of ``arrived`` themselves: hooks and custom backwards may write into
    them, and one may share the memory of another. Copies for ``back`` are made beside them.
    """

    def __init__(self, job: Job, budget: int) -> None:
        self.job = job
        self._alive = [get_gradient_edge(tensor) for tensor in job.out.tensors]
        self._asked: dict[Node, list[int]] = {}
        for port in job.targets.ports():
            self._asked.setdefault(port.node, []).append(port.slot)
        nodes = self._asked if job.targets.asked else None
        self.schedule = schedule_of(job.graph, nodes)
        self.places = _places(job, self.schedule)
        self.place_of = dict(zip(self.schedule.order, self.places, strict=True))
        self.sources = self._sources()
        self._aside = Aside(self.place_of)
        self._recomputed = _torch.Recomputed()
        self._budget, self._held = budget, 0
        self.acts: deque[Taken | Edited] = deque()
        self.forgotten = 0
        self.last: Step | None = None
        self.position = 0
        self._edited = False
        self.deposits: dict[Port, Tensor] = {}
        self._hooked: dict[Port, Tensor] = {}
        self._retained: dict[int, tuple[Tensor, Tensor]] = {}
        self.arrived: dict[Port, Tensor] = {}
        self.seeds = tuple(self._seed())

    def _sources(self) -> tuple[tuple[int, ...], ...]:
        """For each node the turns of those that send to it, an output's cotangent as -1."""
        found: list[list[int]] = [[] for _ in self.places]
        senders: list[tuple[int, tuple[Port | None, ...]]] = [(-1, self.job.graph.roots)]
        senders += [(p.index, self.job.graph.children_of[n]) for n, p in self.place_of.items()]
        for turn, ports in senders:
            for port in ports:
                if port is not None and port.node in self.place_of:
                    found[self.place_of[port.node].index].append(turn)
        return tuple(map(tuple, found))

    def _seed(self) -> Iterator[Contribution]:
        pairs = zip(self.job.graph.roots, self.job.values, strict=True)
        for position, (port, value) in enumerate(pairs):
            if port.node in self.place_of:
                mine = owned(value)
                self._arrive(port, mine)
                yield Contribution(None, position, self.place_of[port.node], port.slot, mine)

    def _arrive(self, port: Port, value: Tensor) -> None:
        there = self.arrived.get(port)
        with torch.no_grad():
            self.arrived[port] = value if there is None else add(there, value)

    @property
    def node(self) -> Node:
        return self.schedule.order[self.position]

    def ports(self) -> list[Port]:
        """The slots of the node about to run."""
        return [Port(self.node, slot) for slot in range(self.places[self.position].slots)]

    def edit(self, slot: int, value: Tensor) -> None:
        port = Port(self.node, slot)
        self._remember(Edited(port, self.arrived.get(port)))
        self.arrived[port], self._edited = owned(value), True

    def forward(self) -> Step:
        """Run the node whose turn it is. Where that fails, all is as before."""
        node, received = self.node, tuple(self.arrived.get(port) for port in self.ports())
        copies = tuple(self._copy(value) for value in received)
        versions = [None if t is None else _torch.version_of(t) for t in received]
        before = self._aside.random
        try:
            with self._recomputed.kept(), self._aside.running(node) as retained:
                found = self._run(node, received)
        except BaseException:
            self._recomputed = _torch.Recomputed()
            _restore(received, copies)
            raise
        for tensor, copy, version in zip(received, copies, versions, strict=True):
            if tensor is not None and copy is not None and _torch.version_of(tensor) != version:
                self._keep(tensor, copy)
        for port in self.ports():
            self.arrived.pop(port, None)
        buffers, contributions = self._send(node, found.sent)
        taken = next(iter(found.taken.values()), None)
        step = Step(self.places[self.position], copies, contributions, taken, self._edited)
        self.deposits.update({Port(node, s): value for s, value in found.taken.items()})
        self._hooked.update({Port(node, s): value for s, value in found.hooked.items()})
        self._retained.update({id(tensor): (tensor, grad) for tensor, grad in retained})
        self._remember(Taken(step, received, copies, buffers, before, found, tuple(retained)))
        self.last, self._edited = step, False
        self.position += 1
        return step

    def _run(self, node: Node, received: Gradients) -> Found:
        slots = self._asked.get(node, ())
        with torch.no_grad():
            if node in self.schedule.ends:
                found = {s: owned(v) for s, v in capture(node, received, slots).items()}
                return Found((), found, found)
            ports = self.job.graph.children_of[node]
            there = [port for port in ports if port is not None and port.node in self.place_of]
            ran = run_node(node, received, there)
            # Without its hooks, but with what they write in place: so does torch.autograd.grad.
            taken = {s: owned(v) for s in slots if (v := received[s]) is not None}
            hooked = {s: owned(v) for s in slots if (v := ran.hooked[s]) is not None}
            return Found(ran.sent, taken, hooked)

    def _send(
        self, node: Node, sent: Gradients
    ) -> tuple[dict[Port, Tensor | None], tuple[Contribution, ...]]:
        buffers: dict[Port, Tensor | None] = {}
        contributions = []
        ports = self.job.graph.children_of[node]
        for position, (port, value) in enumerate(zip(ports, sent, strict=False)):
            if port is None or port.node not in self.place_of:
                continue
            source, target = self.place_of[node], self.place_of[port.node]
            contributions.append(Contribution(source, position, target, port.slot, value))
            if value is not None:
                buffers.setdefault(port, self.arrived.get(port))
                self._arrive(port, value)
        return buffers, tuple(contributions)

    def back(self) -> Taken | Edited:
        """Undo the last step, or the last edit of the node about to run."""
        act = self.acts.pop()
        self._held -= _bytes(act)
        if isinstance(act, Edited):
            _put(self.arrived, act.port, act.before)
            self._edited = bool(self.acts) and isinstance(self.acts[-1], Edited)
            return act
        self.position, self._edited = self.position - 1, act.step.edited
        for port, value in act.buffers.items():
            _put(self.arrived, port, value)
        _restore(act.received, act.copies)
        for port, value in zip(self.ports(), act.received, strict=True):
            _put(self.arrived, port, value)
        for slot in act.found.taken:
            del self.deposits[Port(self.node, slot)]
        for slot in act.found.hooked:
            del self._hooked[Port(self.node, slot)]
        for tensor, _ in act.retained:
            del self._retained[id(tensor)]
        self._aside.random = act.random
        self._recomputed = _torch.Recomputed()
        self.last = next((a.step for a in reversed(self.acts) if isinstance(a, Taken)), None)
        return act

    def _copy(self, value: Tensor | None) -> Tensor | None:
        """Nobody can write to an expanded tensor, and a copy of one may be large."""
        if value is None or self._budget == 0:
            return value
        if value.layout is torch.strided and 0 in value.stride() and value.numel() > 1:
            return value
        return owned(value)

    def _keep(self, written: Tensor, copy: Tensor) -> None:
        steps = (act.step for act in self.acts if isinstance(act, Taken))
        for contribution in (*self.seeds, *(c for step in steps for c in step.contributions)):
            contribution.keep(written, copy)

    def _remember(self, act: Taken | Edited) -> None:
        self.acts.append(act)
        self._held += _bytes(act)
        while self.acts and (self._held > self._budget or self._budget == 0):
            gone = self.acts.popleft()
            self._held -= _bytes(gone)
            self.forgotten += 1

    def accumulate(self) -> None:
        """Add what the pass has found to ``.grad``, as ``torch.autograd.backward`` does."""
        leaves = {id(leaf): node for node, leaf in self.job.graph.leaves()}
        for target in self.job.targets.items:
            if target.port not in self._hooked:
                continue
            value, tensor = self._hooked[target.port], target.tensor
            if id(tensor) in leaves:
                deposit(leaves[id(tensor)], tensor, value)
            elif not tensor.retains_grad:
                tensor.retain_grad()
                self._retained[id(tensor)] = (tensor, value)
        for tensor, value in self._retained.values():
            with torch.no_grad():
                tensor.grad = value if tensor.grad is None else tensor.grad + value


def _places(job: Job, schedule: Schedule) -> tuple[Place, ...]:
    keys = {t.port.node: t.key for t in reversed(job.targets.items) if t.port is not None}
    return tuple(
        Place(
            index,
            _torch.node_name(node),
            len(_torch.slots(node)),
            call_of(node),
            keys.get(node) if node in schedule.ends else None,
        )
        for index, node in enumerate(schedule.order)
    )


def _bytes(act: Taken | Edited) -> int:
    if isinstance(act, Taken):
        return act.step.nbytes
    return 0 if act.before is None else act.before.numel() * act.before.element_size()


def _put(arrived: dict[Port, Tensor], port: Port, value: Tensor | None) -> None:
    if value is None:
        arrived.pop(port, None)
    else:
        arrived[port] = value


def _restore(received: Gradients, copies: Gradients) -> None:
    """Undo what was written into tensors that the engine was given."""
    for tensor, copy in zip(received, copies, strict=True):
        if tensor is not None and copy is not None and tensor is not copy:
            with torch.no_grad():
                tensor.copy_(copy)
