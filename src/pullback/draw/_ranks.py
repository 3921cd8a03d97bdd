"""Order within layers, and positions across them: where each point of a layered graph stands."""

from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 4
_ALIGNMENTS = 8


@dataclass(frozen=True, slots=True)
class Ranked:
    """Points in layers: `rows[k]` lists the points of layer k from left to right; every link
    joins `above[p]`, points one layer up, with `below[p]`, points one layer down."""

    rows: list[list[int]]
    above: list[list[int]]
    below: list[list[int]]


def ordered(graph: Ranked) -> Ranked:
    """Reorder each layer by the mean place of its neighbors, sweeping down and up."""
    rows = [list(row) for row in graph.rows]
    place = [0.0] * len(graph.above)
    for row in rows:
        _number_row(row, place)
    for sweep in range(2 * _SWEEPS):
        downward = sweep % 2 == 0
        near = graph.above if downward else graph.below
        for row in rows if downward else reversed(rows):
            means = {p: _mean(near[p], place, place[p]) for p in row}
            row.sort(key=means.__getitem__)
            _number_row(row, place)
    return Ranked(rows, graph.above, graph.below)


def centered(graph: Ranked, widths: list[float], gap: float) -> list[float]:
    """Return the center of each point: near its neighbors, in order, at least `gap` apart."""
    centers = [0.0] * len(widths)
    for row in graph.rows:
        for previous, point in pairwise(row):
            centers[point] = centers[previous] + _distance(widths, previous, point, gap)
    for step in range(_ALIGNMENTS):
        downward = step % 2 == 0
        near = graph.above if downward else graph.below
        for row in graph.rows if downward else reversed(graph.rows):
            _place_row(row, near, widths, gap, centers)
    left = min(c - w / 2 for c, w in zip(centers, widths, strict=True))
    return [center - left for center in centers]


def _number_row(row: list[int], place: list[float]) -> None:
    # Places are counted from the middle of a layer, so that layers of different sizes compare.
    for position, point in enumerate(row):
        place[point] = position - (len(row) - 1) / 2


def _mean(points: list[int], values: list[float], default: float) -> float:
    return sum(values[p] for p in points) / len(points) if points else default


def _distance(widths: list[float], left: int, right: int, gap: float) -> float:
    return (widths[left] + widths[right]) / 2 + gap


def _place_row(
    row: list[int], near: list[list[int]], widths: list[float], gap: float, centers: list[float]
) -> None:
    """Move one layer to the centers closest, in least squares, to the means of its neighbors.

    With the least distances subtracted, keeping them means keeping an order: isotonic regression,
    which pools neighbors that would cross into blocks standing at their common mean.
    """
    offsets: list[float] = []
    for position, point in enumerate(row):
        before = offsets[-1] + _distance(widths, row[position - 1], point, gap) if position else 0.0
        offsets.append(before)
    blocks: list[tuple[float, int]] = []
    for point, offset in zip(row, offsets, strict=True):
        total, size = _mean(near[point], centers, centers[point]) - offset, 1
        while blocks and blocks[-1][0] * size > total * blocks[-1][1]:
            earlier, members = blocks.pop()
            total, size = total + earlier, size + members
        blocks.append((total, size))
    means = [total / size for total, size in blocks for _ in range(size)]
    for point, offset, mean in zip(row, offsets, means, strict=True):
        centers[point] = mean + offset
