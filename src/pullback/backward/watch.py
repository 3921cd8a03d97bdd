"""Hooks on every node of a graph, which write down what passes while the engine runs.

Hooks belong to nodes, not to passes: another thread, or a hook of the user's, may run a backward
of its own over the same nodes meanwhile. So every backward gets a log of its own, by the number
of its graph task, and a private output that only the watched pass goes through tells which is it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node
from torch.utils.hooks import RemovableHandle

from .. import _torch
from .events import Cotangent
from .graph import Graph, Port, port_of
from .measure import cotangent_of
from .passlog import OF_OUTPUTS, Fired, Gradients, Keeper, PassLog, Ports, Seeds

Names = tuple[str, ...]


class Marker:
    """An output of its own, made of a leaf of its own, that only one pass differentiates."""

    def __init__(self) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            self.leaf = torch.ones((), device="cpu", requires_grad=True)
            self.output = self.leaf * 1
        self.weight = torch.ones((), device="cpu")
        self.edge = GradientEdge(*port_of(self.leaf))


class Watcher:
    """``watch`` puts the hooks on, ``unwatch`` off; ``own`` is the log of the pass through
    ``marker``."""

    def __init__(
        self, graph: Graph, keeper: Keeper, new_log: Callable[[Seeds, Keeper], PassLog] = PassLog
    ) -> None:
        self.graph = graph
        self.marker = Marker()
        self.node_hooks: dict[Node, Names] = {}
        self.sending_hooks: dict[Node, Names] = {}
        self.sleeping_hooks: dict[Node, Names] = {}
        self._keep = keeper
        self._new_log = new_log
        self._seeds: dict[Port, list[tuple[Tensor, Cotangent]]] = {}
        self._logs: dict[int, PassLog] = {}
        self.task: int | None = None
        self._handles: list[RemovableHandle] = []
        self._lock = threading.RLock()  # on CUDA the engine runs hooks in a thread per device

    @property
    def own(self) -> PassLog:
        if self.task is None:
            return self._new_log(self._seeds, self._keep)
        return self._log(self.task)

    def _log(self, task: int) -> PassLog:
        if task not in self._logs:
            self._logs[task] = self._new_log(self._seeds, self._keep)
        return self._logs[task]

    def seed(self, cotangents: Sequence[Tensor]) -> list[Cotangent]:
        """Announce what the outputs will be given; returns it as data, an entry per output."""
        keep = Keeper(self._keep.keep, single=OF_OUTPUTS)
        described = []
        for port, value in zip(self.graph.roots, cotangents, strict=True):
            cotangent = cotangent_of(value.detach(), keep)
            self._seeds.setdefault(port, []).append((value.detach(), cotangent))
            described.append(cotangent)
        return described

    def watch(self, *, leaves: bool) -> None:
        """Hook every node; leaf nodes only run in a pass that accumulates."""
        assert self.marker.output.grad_fn is not None
        self._handles.append(self.marker.output.grad_fn.register_hook(self._mark))
        for node, ports in self.graph.children_of.items():
            if _torch.leaf_of(node) is not None:
                self._watch_leaf(node) if leaves else self._note_sleeping(node)
            elif _torch.custom_function(node) is not None:
                self._watch_custom(node, ports)
            else:
                self._watch_node(node, ports)

    def _mark(self, sent: Gradients, received: Gradients) -> None:
        self.task = _torch.graph_task()

    def _current(self) -> PassLog | None:
        """The log of the pass that runs this hook; None where that is surely not the watched one.

        The engine runs hooks with the grad mode of their pass, and the watched one builds no graph.
        """
        task = _torch.graph_task()
        if torch.is_grad_enabled() or self.task not in (None, task):
            return None
        return self._log(task)

    def _watch_node(self, node: Node, ports: Ports) -> None:
        def posthook(sent: Gradients, received: Gradients) -> None:
            with self._lock:
                log = self._current()
                if log is None:
                    return
                event = log.received(node, received)
                log.ran(event, ports, sent, list(zip(received, event.upstream, strict=True)))

        self._add(self.sending_hooks, node, node.register_hook(posthook))

    def _watch_custom(self, node: Node, ports: Ports) -> None:
        """A custom backward may write into the cotangent it is given: read that beforehand."""
        begun: dict[PassLog, Fired] = {}

        def prehook(received: Gradients) -> None:
            with self._lock:
                log = self._current()
                if log is not None:
                    begun[log] = log.received(node, received)

        def posthook(sent: Gradients, received: Gradients) -> None:
            with self._lock:
                log = self._current()
                if log is not None and log in begun:
                    log.ran(begun.pop(log), ports, sent, [])

        self._add(self.node_hooks, node, node.register_prehook(prehook))
        self._add(self.sending_hooks, node, node.register_hook(posthook))

    def _watch_leaf(self, node: Node) -> None:
        """Read before the node runs: what it writes to ``.grad`` may be the same memory."""

        def prehook(received: Gradients) -> None:
            with self._lock:
                log = self._current()
                if log is not None:
                    log.deposited(Port(node, 0), received[0])

        self._add(self.node_hooks, node, node.register_prehook(prehook))

    def _note_sleeping(self, node: Node) -> None:
        names = prehook_names(node)
        if names:
            self.sleeping_hooks[node] = names

    def _add(self, names: dict[Node, Names], node: Node, handle: RemovableHandle) -> None:
        self._handles.append(handle)
        theirs = _names_of_others(handle)
        if theirs:
            names[node] = theirs

    def unwatch(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def prehook_names(node: Node) -> Names:
    """The user's hooks that run before ``node``: one of our own, for a moment, shows the table."""
    handle = node.register_prehook(_nothing)
    try:
        return _names_of_others(handle)
    finally:
        handle.remove()


def posthook_names(node: Node) -> Names:
    """The user's hooks that run after ``node``."""
    handle = node.register_hook(_nothing_afterwards)
    try:
        return _names_of_others(handle)
    finally:
        handle.remove()


def _nothing(received: Gradients) -> None: ...


def _nothing_afterwards(sent: Gradients, received: Gradients) -> None: ...


def _names_of_others(handle: RemovableHandle) -> Names:
    """The hooks in the table of ``handle`` that are no watcher's."""
    table = _torch.handle_hooks(handle)
    return tuple(_torch.hook_name(hook) for hook in table if not _is_ours(hook))


def _is_ours(hook: Callable[..., Any]) -> bool:
    return getattr(hook, "__module__", None) == __name__
