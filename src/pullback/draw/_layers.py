"""Which layer of a diagram each box belongs to, and which boxes hang together."""

from .page import Diagram


def edges_by_index(diagram: Diagram) -> list[tuple[int, int]]:
    """Return every arrow as a pair of box positions, refusing keys that name no single box."""
    index: dict[str, int] = {}
    for box in diagram.boxes:
        if box.key in index:
            raise ValueError(f"Diagram: two boxes have the key {box.key!r}; keys must differ.")
        index[box.key] = len(index)
    for arrow in diagram.arrows:
        for key in (arrow.source, arrow.target):
            if key not in index:
                raise ValueError(f"Diagram: an arrow names the key {key!r}, but no box has it.")
    return [(index[arrow.source], index[arrow.target]) for arrow in diagram.arrows]


def layers(diagram: Diagram, edges: list[tuple[int, int]]) -> list[int]:
    """Return for each box the length of the longest path that leads to it."""
    size = len(diagram.boxes)
    below: list[list[int]] = [[] for _ in range(size)]
    waiting = [0] * size
    for source, target in edges:
        below[source].append(target)
        waiting[target] += 1
    layer = [0] * size
    ready = [box for box in range(size) if waiting[box] == 0]
    for box in ready:
        for target in below[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    if len(ready) < size:
        stuck = next(box for box in range(size) if waiting[box])
        raise ValueError(
            f"Diagram: the arrows run in a cycle that box {diagram.boxes[stuck].key!r} lies on or "
            "behind; layers need arrows without one."
        )
    return layer


def pieces(size: int, edges: list[tuple[int, int]]) -> list[list[int]]:
    """Return the connected pieces, each in input order, ordered by their first box."""
    near: list[list[int]] = [[] for _ in range(size)]
    for source, target in edges:
        near[source].append(target)
        near[target].append(source)
    seen = [False] * size
    found: list[list[int]] = []
    for first in range(size):
        if seen[first]:
            continue
        seen[first] = True
        piece = [first]
        for box in piece:
            for other in near[box]:
                if not seen[other]:
                    seen[other] = True
                    piece.append(other)
        found.append(sorted(piece))
    return found
