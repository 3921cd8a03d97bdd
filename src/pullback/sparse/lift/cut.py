"""Where a pullback graph is cut: into pieces whose ends are fixed linear maps.

A piece starts at some tensors, goes through calls that vary with the arguments (and through fixed
ones between them), and ends, after fixed calls alone, at others. One piece from the cotangents to
the gradients always will do. More pieces pay where a fixed call in the middle makes every element
depend on several, as a stencil does between two pointwise functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from .. import detect
from ..dependence import Dependence, Table
from ..graph import Meta, PullbackGraph, packet_name
from ..pattern import index_dtype
from ..rules.base import Step
from .actions import Actions
from .linear import lanes_of, reals


@dataclass(frozen=True)
class Piece:
    """``varying`` are its calls that belong to the differentiated part; ``fixed`` those outside of
    it, which lead from ``starts`` to it or from it to ``ends``, both in the graph's order. An end
    that is None is a gradient that is always zero."""

    starts: tuple[fx.Node, ...]
    ends: tuple[fx.Node | None, ...]
    varying: tuple[fx.Node, ...]
    fixed: tuple[fx.Node, ...]


def calls_of(graph: PullbackGraph) -> list[fx.Node]:
    """The linear calls that a gradient needs, in order."""
    needed: set[fx.Node] = {g for g in graph.gradients if g is not None}
    found = []
    for node in reversed(graph.nodes):
        if node in needed and node in graph.linear and node.op == "call_function":
            found.append(node)
            needed.update(n for n in node.all_input_nodes if n in graph.linear)
    return found[::-1]


def whole(caller: str, graph: PullbackGraph, actions: Actions) -> Piece:
    """One piece: leading and trailing fixed calls, as many as there are, and all between them."""
    calls = calls_of(graph)
    inside = set(calls)
    trailing: set[fx.Node] = set()
    for node in reversed(calls):
        users = [u for u in node.users if u in inside]
        if all(u in trailing for u in users) and actions.of(node) is not None:
            trailing.add(node)
    # The entries of a tuple belong to the call that makes it.
    for node in calls:
        source = node.args[0] if packet_name(node) == "getitem" else None
        if source in inside and source not in trailing:
            trailing.discard(node)
    leading = {i.node for i in graph.cotangents}
    for node in calls:
        inputs = [n for n in node.all_input_nodes if n in graph.linear]
        if (
            node not in trailing
            and all(n in leading for n in inputs)
            and actions.of(node) is not None
        ):
            leading.add(node)
    _take_back(caller, graph, calls, trailing, leading)
    varying = [n for n in calls if n not in trailing and n not in leading]
    fixed = [n for n in calls if n in trailing or n in leading]
    return Piece(
        tuple(i.node for i in graph.cotangents), _gradients(graph), tuple(varying), tuple(fixed)
    )


_POINTWISE = frozenset("add sub rsub neg mul div".split())


def _take_back(
    caller: str,
    graph: PullbackGraph,
    calls: list[fx.Node],
    trailing: set[fx.Node],
    leading: set[fx.Node],
) -> None:
    """Sums of what is computed anyway, place by place, are taken out of ``trailing``: done there,
    they leave fewer tensors and fewer terms to put together."""
    varying = [n for n in calls if n not in trailing and n not in leading]
    read = [n for node in varying for n in node.all_input_nodes if n in leading]
    known = apart(graph, list(dict.fromkeys(read)))
    for node in varying:
        known[node] = detect.through(caller, Step(graph, node, known), set(), {})
    for node in calls:
        if node not in trailing or packet_name(node) not in _POINTWISE:
            continue
        inputs = [n for n in node.all_input_nodes if n in graph.linear]
        alone = all(n in known and n not in leading and len(n.users) == 1 for n in inputs)
        if not alone or any(graph.metas[n].shape != graph.metas[node].shape for n in inputs):
            continue
        found = detect.through(caller, Step(graph, node, known), set(), {})
        if _largest(found) <= max(_largest(known[n]) for n in inputs):
            known[node] = found
            trailing.discard(node)


def plain(graph: PullbackGraph) -> Piece:
    """One piece without fixed ends."""
    starts = tuple(i.node for i in graph.cotangents)
    return Piece(starts, _gradients(graph), tuple(calls_of(graph)), ())


def in_stages(caller: str, graph: PullbackGraph, actions: Actions) -> list[Piece]:
    """Cut after every fixed call that mixes what the varying calls before it kept apart."""
    stages = _Stages(caller, graph, actions)
    stages.fill()
    return stages.pieces()


def _gradients(graph: PullbackGraph) -> tuple[fx.Node | None, ...]:
    return tuple(g if g in graph.linear else None for g in graph.gradients)


class _Stages:
    """Every call is put into the earliest stage that it can be in: an even one of fixed calls, or
    an odd one of varying calls and of fixed ones that mix nothing. Stages ``2 k - 1`` and ``2 k``
    make up piece ``k``, the first one with stage 0 before them."""

    def __init__(self, caller: str, graph: PullbackGraph, actions: Actions) -> None:
        self._caller, self._graph, self._actions = caller, graph, actions
        self._stage: dict[fx.Node, int] = {i.node: 0 for i in graph.cotangents}
        self._calls = calls_of(graph)

    def fill(self) -> None:
        waiting, stage = self._calls, 0
        while waiting:
            known = self._starts(waiting) if stage % 2 else {}
            waiting = [n for n in waiting if not self._placed(n, stage, known)]
            stage += 1

    def _placed(self, node: fx.Node, stage: int, known: dict[fx.Node, Any]) -> bool:
        inputs = [n for n in node.all_input_nodes if n in self._graph.linear]
        if any(n not in self._stage for n in inputs):
            return False
        if stage % 2 == 0:
            fits = self._actions.of(node) is not None
        else:
            found = detect.through(self._caller, Step(self._graph, node, known), set(), {})
            before = max(_largest(known[n]) for n in inputs)
            fits = self._actions.of(node) is None or _largest(found) <= before
            if fits:
                known[node] = found
        if fits:
            self._stage[node] = stage
        return fits

    def _starts(self, waiting: list[fx.Node]) -> dict[fx.Node, Any]:
        """All that later calls read, with every real element on its own."""
        read = dict.fromkeys(n for node in waiting for n in node.all_input_nodes)
        return apart(self._graph, [n for n in read if n in self._stage])

    def pieces(self) -> list[Piece]:
        stage = self._stage
        last = max(stage.values(), default=0)
        count = max((last + 1) // 2, 1)
        starts = tuple(i.node for i in self._graph.cotangents)
        pieces: list[Piece] = []
        for k in range(1, count + 1):
            mine = [n for n in self._calls if stage[n] in (2 * k - 1, 2 * k) or stage[n] < k == 1]
            varying = tuple(n for n in mine if stage[n] == 2 * k - 1)
            fixed = tuple(n for n in mine if stage[n] != 2 * k - 1)
            alive = self._alive_after(2 * k)
            ends = _gradients(self._graph) if k == count else alive
            pieces.append(Piece(starts, ends, varying, fixed))
            starts = alive
        return pieces

    def _alive_after(self, last: int) -> tuple[fx.Node, ...]:
        """The tensors made up to a stage that later ones read, or that are results."""
        results = set(_gradients(self._graph))
        alive = []
        for node, stage in self._stage.items():
            later = any(self._stage.get(u, 0) > last for u in node.users)
            if stage <= last and (later or node in results):
                alive.append(node)
        return tuple(alive)


def apart(graph: PullbackGraph, nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    """The dependence of tensors whose every real element is a column of its own, in order."""
    metas = {n: graph.metas[n] for n in nodes}
    parts = [m for meta in metas.values() for m in _tensors(meta)]
    width = sum(map(reals, parts))
    at = 0
    found: dict[fx.Node, Any] = {}
    for node, meta in metas.items():
        entries = []
        for m in [meta] if isinstance(meta, Meta) else meta:
            entries.append(_of_columns(m, at, width) if isinstance(m, Meta) else None)
            at += reals(m) if isinstance(m, Meta) else 0
        found[node] = entries[0] if isinstance(meta, Meta) else entries
    return found


def _tensors(meta: Any) -> list[Meta]:
    return [m for m in ([meta] if isinstance(meta, Meta) else meta) if isinstance(m, Meta)]


def _of_columns(meta: Meta, first: int, width: int) -> Dependence:
    lanes = lanes_of(meta)
    starts = np.arange(0, meta.numel * lanes + 1, lanes)
    kind = index_dtype(width + 1)
    table = Table(
        np.concatenate([[0], starts]),
        np.arange(first, first + meta.numel * lanes, dtype=kind),
        width,
    )
    return Dependence(meta.shape, np.arange(1, meta.numel + 1, dtype=kind), table)


def _largest(found: Any) -> int:
    parts = found if isinstance(found, list) else [found]
    return max(
        (int(p.table.sizes[p.ids].max(initial=0)) for p in parts if p is not None), default=0
    )
