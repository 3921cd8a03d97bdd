"""One connected piece of a diagram: points for its boxes and long arrows, then coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from ._labels import Crossing, label_rows
from ._ranks import Ranked, centered, ordered
from ._sizes import LABEL_HEIGHT

Point: TypeAlias = tuple[float, float]

_BOX_GAP = 26.0
_LAYER_GAP = 40.0
_MOST_LAYER_GAP = 130.0
_BEND_WIDTH = 10.0
_LANE_WIDTH = 9.0
_PORT_SPACING = 18.0
# Points for long arrows number arrows times layers: past this many, arrows run in lanes beside.
_MOST_BENDS = 12_000


@dataclass(frozen=True, slots=True)
class Piece:
    """What is to be placed. `edges[a]` joins `boxes` by position; layers start at 0."""

    layers: Sequence[int]
    sizes: Sequence[tuple[float, float]]
    edges: Sequence[tuple[int, int]]
    label_widths: Sequence[float]


@dataclass(frozen=True, slots=True)
class PlacedPiece:
    """Corners of the boxes, knots of the arrows, middles of their labels; all from (0, 0)."""

    width: float
    height: float
    corners: list[Point]
    knots: list[list[Point]]
    labels: list[Point | None]


@dataclass(frozen=True, slots=True)
class _Routes:
    """For each arrow, the (layer, x) it passes between its ends, and the x of either end."""

    bends: list[list[tuple[int, float]]]
    leave: list[float]
    arrive: list[float]

    def first_x(self, arrow: int) -> float:
        return self.bends[arrow][0][1] if self.bends[arrow] else self.arrive[arrow]


def place_piece(piece: Piece) -> PlacedPiece:
    """Choose an order, then x, then y; each step reads only the ones before it."""
    chains = _chains(piece)
    graph, widths = _points(piece, chains)
    centers = centered(ordered(graph), widths, _BOX_GAP)
    routes = _routes(piece, chains, centers, widths)
    tops, bottoms, labels = _heights(piece, routes)
    corners = [
        (centers[box] - piece.sizes[box][0] / 2, tops[layer])
        for box, layer in enumerate(piece.layers)
    ]
    knots = [_knots(piece, routes, arrow, tops, bottoms) for arrow in range(len(piece.edges))]
    return _framed(PlacedPiece(0, bottoms[-1], corners, knots, labels), piece)


def _framed(placed: PlacedPiece, piece: Piece) -> PlacedPiece:
    """Move everything right of x = 0 and measure the width; labels may stick out on both sides."""
    spans = [(x, x + w) for (x, _), (w, _) in zip(placed.corners, piece.sizes, strict=True)]
    spans += [(x, x) for path in placed.knots for x, _ in path]
    spans += [
        (at[0] - width / 2, at[0] + width / 2)
        for at, width in zip(placed.labels, piece.label_widths, strict=True)
        if at is not None
    ]
    left, right = min(low for low, _ in spans), max(high for _, high in spans)
    return PlacedPiece(
        right - left,
        placed.height,
        [(x - left, y) for x, y in placed.corners],
        [[(x - left, y) for x, y in path] for path in placed.knots],
        [None if at is None else (at[0] - left, at[1]) for at in placed.labels],
    )


def _chains(piece: Piece) -> list[range | None]:
    """Give each arrow its points between layers, the short ones first; None is a lane."""
    spans = [piece.layers[target] - piece.layers[source] for source, target in piece.edges]
    chains: list[range | None] = [None] * len(spans)
    next_point = len(piece.layers)
    last = next_point + _MOST_BENDS
    for arrow in sorted(range(len(spans)), key=spans.__getitem__):
        if next_point + spans[arrow] - 1 <= last:
            chains[arrow] = range(next_point, next_point + spans[arrow] - 1)
            next_point += spans[arrow] - 1
    return chains


def _points(piece: Piece, chains: list[range | None]) -> tuple[Ranked, list[float]]:
    bends = sum(len(chain) for chain in chains if chain)
    widths = [width for width, _ in piece.sizes] + [_BEND_WIDTH] * bends
    rows: list[list[int]] = [[] for _ in range(max(piece.layers) + 1)]
    above: list[list[int]] = [[] for _ in widths]
    below: list[list[int]] = [[] for _ in widths]
    for box, layer in enumerate(piece.layers):
        rows[layer].append(box)
    for (source, target), chain in zip(piece.edges, chains, strict=True):
        if chain is None:
            continue
        for step, bend in enumerate(chain):
            rows[piece.layers[source] + 1 + step].append(bend)
        path = (source, *chain, target)
        for upper, lower in pairwise(path):
            below[upper].append(lower)
            above[lower].append(upper)
    return Ranked(rows, above, below), widths


def _routes(
    piece: Piece, chains: list[range | None], centers: list[float], widths: list[float]
) -> _Routes:
    lane = max(c + w / 2 for c, w in zip(centers, widths, strict=True))
    bends: list[list[tuple[int, float]]] = []
    for (source, target), chain in zip(piece.edges, chains, strict=True):
        first, last = piece.layers[source] + 1, piece.layers[target] - 1
        if chain is None:
            lane += _LANE_WIDTH
            bends.append([(first, lane)] if first == last else [(first, lane), (last, lane)])
        else:
            bends.append([(first + step, centers[bend]) for step, bend in enumerate(chain)])
    leaving: list[list[tuple[float, int]]] = [[] for _ in piece.sizes]
    arriving: list[list[tuple[float, int]]] = [[] for _ in piece.sizes]
    for arrow, (source, target) in enumerate(piece.edges):
        path = [centers[source], *(x for _, x in bends[arrow]), centers[target]]
        leaving[source].append((path[1], arrow))
        arriving[target].append((path[-2], arrow))
    return _Routes(bends, _ports(piece, leaving, centers), _ports(piece, arriving, centers))


def _ports(piece: Piece, ends: list[list[tuple[float, int]]], centers: list[float]) -> list[float]:
    """Spread the arrow ends of each box along its edge, in the order of where they lead."""
    ports = [0.0] * len(piece.edges)
    for box, found in enumerate(ends):
        room = piece.sizes[box][0] - 16
        spacing = min(_PORT_SPACING, room / max(1, len(found) - 1))
        for position, (_, arrow) in enumerate(sorted(found)):
            ports[arrow] = centers[box] + (position - (len(found) - 1) / 2) * spacing
    return ports


def _heights(piece: Piece, routes: _Routes) -> tuple[list[float], list[float], list[Point | None]]:
    depth = max(piece.layers) + 1
    tallest = [0.0] * depth
    for layer, (_, height) in zip(piece.layers, piece.sizes, strict=True):
        tallest[layer] = max(tallest[layer], height)
    travel = [0.0] * depth
    labelled: list[list[int]] = [[] for _ in range(depth)]
    for arrow, (source, _) in enumerate(piece.edges):
        layer = piece.layers[source]
        travel[layer] = max(travel[layer], abs(routes.first_x(arrow) - routes.leave[arrow]))
        if piece.label_widths[arrow]:
            labelled[layer].append(arrow)
    labels: list[Point | None] = [None] * len(piece.edges)
    tops, bottoms = [0.0], [tallest[0]]
    for layer in range(depth - 1):
        rows, places = label_rows(
            [
                Crossing(routes.leave[a], routes.first_x(a), piece.label_widths[a])
                for a in labelled[layer]
            ]
        )
        gap = max(_LAYER_GAP, min(_MOST_LAYER_GAP, travel[layer] / 7), (rows + 1) * LABEL_HEIGHT)
        for arrow, (row, x) in zip(labelled[layer], places, strict=True):
            labels[arrow] = (x, bottoms[layer] + gap * (row + 1) / (rows + 1))
        tops.append(bottoms[layer] + gap)
        bottoms.append(tops[-1] + tallest[layer + 1])
    return tops, bottoms, labels


def _knots(
    piece: Piece, routes: _Routes, arrow: int, tops: list[float], bottoms: list[float]
) -> list[Point]:
    source, target = piece.edges[arrow]
    layer, height = piece.layers[source], piece.sizes[source][1]
    knots = [(routes.leave[arrow], tops[layer] + height)]
    if knots[0][1] < bottoms[layer]:
        knots.append((routes.leave[arrow], bottoms[layer]))
    for crossed, x in routes.bends[arrow]:
        knots += [(x, tops[crossed]), (x, bottoms[crossed])]
    return [*knots, (routes.arrive[arrow], tops[piece.layers[target]])]
