"""Deep graphs, freed without overflowing the C stack.

Once Python has held a node of an autograd graph, torch 2.13 frees that node through its Python
object, and with it, recursively, every node below it that nothing else holds: a chain of some
45,000 nodes overflows a stack of 8 MiB and the process dies, long after the walk that touched the
nodes. So wherever an edge leads from one stretch of ``STRETCH`` levels into the next, its source
carries a `Latch` on its target. When the source is freed the target survives, and the garbage
collector frees it a little later, from an empty stack, down to the next latch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.autograd.graph import Node

from .. import _torch

STRETCH = 4000
_LATCH = "pullback.latch"


class Latch:
    """Holds nodes until the garbage collector comes by after its own end."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def __del__(self) -> None:
        _Unreachable(self.nodes)


class _Unreachable:
    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.itself: Any = self  # only the collector frees a cycle


def latch(source: Node, level: int, targets: Iterable[tuple[Node, int]]) -> None:
    """Hold the ``targets`` (nodes, levels) that lie in another stretch than ``source``."""
    across = [node for node, below in targets if below // STRETCH != level // STRETCH]
    if across:
        _torch.notes_of(source)[_LATCH] = Latch(across)


def latch_all(children: Mapping[Node, tuple[tuple[Node, int] | None, ...]]) -> None:
    """Secure a whole graph, given the ports of every node."""
    if len(children) <= STRETCH:
        return
    levels = _levels(children)
    for node, ports in children.items():
        below = [(port[0], levels[port[0]]) for port in ports if port is not None]
        latch(node, levels[node], below)


def _levels(children: Mapping[Node, tuple[tuple[Node, int] | None, ...]]) -> dict[Node, int]:
    """The longest way from each node to a leaf."""
    levels = dict.fromkeys((node for node, ports in children.items() if not ports), 0)
    stack = sorted((n for n in children if n not in levels), key=_torch.sequence_number)
    stack.reverse()  # a node is younger than those below it, but for graphs put together by hand
    while stack:
        node = stack[-1]
        below = [port[0] for port in children[node] if port is not None]
        open_ones = [child for child in below if child not in levels]
        if open_ones and node not in levels:
            stack.extend(open_ones)
            continue
        stack.pop()
        levels.setdefault(node, 1 + max((levels[child] for child in below), default=-1))
    return levels
