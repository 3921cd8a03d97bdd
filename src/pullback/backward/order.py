"""The order in which a reader follows a pass: outputs first, side branches before the main line."""

from __future__ import annotations

from typing import NamedTuple

from .events import Edge, PassData


class Visit(NamedTuple):
    """A line of the drawn tree: a node where it is told (``first``), or a pointer to it."""

    node: int
    depth: int
    edge: Edge | None
    first: bool


def reading_order(data: PassData) -> list[Visit]:
    """Every node once, after all that contributes to it, and a pointer for each earlier arrival.

    At a fork the branch with the longest way to go stays at the depth of the fork; the others are
    told first, one deeper. A chain of any length therefore stays flat.
    """
    height = _heights(data)
    waiting = {index: len(edges) for index, edges in data.incoming().items()}
    visits: list[Visit] = []
    stack = [(0, [edge]) for edge in reversed(data.seeds)]
    while stack:
        depth, edges = stack.pop()
        target = edges[0].target
        waiting[target] -= len(edges)
        if waiting[target] > 0:
            visits.append(Visit(target, depth, edges[0], first=False))
            continue
        visits.append(Visit(target, depth, edges[0], first=True))
        branches = _by_target(data.nodes[target].edges)
        branches.sort(key=lambda branch: height[branch[0].target])
        if branches:
            stack.append((depth, branches[-1]))
            stack.extend((depth + 1, side) for side in reversed(branches[:-1]))
    return visits


def _by_target(edges: tuple[Edge, ...]) -> list[list[Edge]]:
    """Edges to the same node (``x * x``) go together."""
    found: dict[int, list[Edge]] = {}
    for edge in edges:
        found.setdefault(edge.target, []).append(edge)
    return list(found.values())


def _heights(data: PassData) -> list[int]:
    """The longest way from each node to a leaf; edges go forward in execution order."""
    height = [0] * len(data.nodes)
    for node in reversed(data.nodes):
        height[node.index] = 1 + max((height[e.target] for e in node.edges), default=0)
    return height
