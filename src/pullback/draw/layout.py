"""Where the boxes and arrows of a diagram stand: layers from top to bottom, pure geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ._layers import edges_by_index, layers, pieces
from ._piece import Piece, PlacedPiece, place_piece
from ._sizes import box_size, label_width
from .page import Arrow, Box, Diagram

Point: TypeAlias = tuple[float, float]

_MARGIN = 16.0
_PIECE_GAP = 48.0
_LEAST_SHELF = 900.0


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A box with its layer and its rectangle, in pixels from the top left corner."""

    box: Box
    layer: int
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class PlacedArrow:
    """An arrow as knots of strictly growing y; `label_at` is the middle of its label."""

    arrow: Arrow
    knots: tuple[Point, ...]
    label_at: Point | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything placed, boxes and arrows in the order of the diagram."""

    width: float
    height: float
    boxes: tuple[PlacedBox, ...]
    arrows: tuple[PlacedArrow, ...]


def place(diagram: Diagram) -> Layout:
    """Lay a diagram out in layers, every arrow pointing down.

    A box's layer is the length of the longest path that leads to it. Pieces that no arrow joins
    are laid out one by one and set side by side, on shelves where there are many.

    Raises
    ------
    ValueError
        If arrows run in a cycle, name a missing box, or two boxes share a key.
    """
    edges = edges_by_index(diagram)
    layer = layers(diagram, edges)
    groups = pieces(len(diagram.boxes), edges)
    arrows_of = _arrows_of(groups, edges)
    placed = [
        place_piece(_piece(diagram, members, arrows, edges, layer))
        for members, arrows in zip(groups, arrows_of, strict=True)
    ]
    corners = _shelves(placed)
    boxes: dict[int, PlacedBox] = {}
    arrows: dict[int, PlacedArrow] = {}
    for piece, corner, members, joined in zip(placed, corners, groups, arrows_of, strict=True):
        for index, at in zip(members, piece.corners, strict=True):
            box = diagram.boxes[index]
            boxes[index] = PlacedBox(box, layer[index], *_moved(at, corner), *box_size(box))
        for index, knots, label in zip(joined, piece.knots, piece.labels, strict=True):
            arrows[index] = PlacedArrow(
                diagram.arrows[index],
                tuple(_moved(knot, corner) for knot in knots),
                None if label is None else _moved(label, corner),
            )
    return Layout(
        max((x + p.width for (x, _), p in zip(corners, placed, strict=True)), default=0) + _MARGIN,
        max((y + p.height for (_, y), p in zip(corners, placed, strict=True)), default=0) + _MARGIN,
        tuple(boxes[index] for index in range(len(boxes))),
        tuple(arrows[index] for index in range(len(arrows))),
    )


def _arrows_of(groups: list[list[int]], edges: list[tuple[int, int]]) -> list[list[int]]:
    owner = {index: number for number, members in enumerate(groups) for index in members}
    found: list[list[int]] = [[] for _ in groups]
    for arrow, (source, _) in enumerate(edges):
        found[owner[source]].append(arrow)
    return found


def _piece(
    diagram: Diagram,
    members: list[int],
    arrows: list[int],
    edges: list[tuple[int, int]],
    layer: list[int],
) -> Piece:
    position = {index: place for place, index in enumerate(members)}
    return Piece(
        [layer[index] for index in members],
        [box_size(diagram.boxes[index]) for index in members],
        [(position[edges[arrow][0]], position[edges[arrow][1]]) for arrow in arrows],
        [label_width(diagram.arrows[arrow]) for arrow in arrows],
    )


def _shelves(placed: Sequence[PlacedPiece]) -> list[Point]:
    """Return the top left corner of each piece, filling shelves about as wide as all are high."""
    area = sum((p.width + _PIECE_GAP) * (p.height + _PIECE_GAP) for p in placed)
    widest = max((p.width for p in placed), default=0.0)
    shelf = max(_LEAST_SHELF, widest, 1.5 * area**0.5)
    corners: list[Point] = []
    x = y = _MARGIN
    tallest = 0.0
    for piece in placed:
        if x > _MARGIN and x + piece.width > shelf:
            x, y, tallest = _MARGIN, y + tallest + _PIECE_GAP, 0.0
        corners.append((x, y))
        x += piece.width + _PIECE_GAP
        tallest = max(tallest, piece.height)
    return corners


def _moved(point: Point, corner: Point) -> Point:
    return point[0] + corner[0], point[1] + corner[1]
