"""Room for arrow labels between two layers: how many rows they need, and which each one takes."""

from collections.abc import Sequence
from dataclasses import dataclass

_MOST_ROWS = 8


@dataclass(frozen=True, slots=True)
class Crossing:
    """A labelled arrow between two layers: where it leaves, where it arrives, its label's width."""

    start: float
    end: float
    width: float

    def at(self, height: float) -> float:
        """Return where its curve is when `height` of the way down, 0 to 1."""
        low, high = 0.0, 1.0
        for _ in range(24):
            middle = (low + high) / 2
            fallen = 1.5 * middle * (1 - middle) + middle**3
            low, high = (middle, high) if fallen < height else (low, middle)
        return self.start + (self.end - self.start) * low * low * (3 - 2 * low)


def label_rows(crossings: Sequence[Crossing]) -> tuple[int, list[tuple[int, float]]]:
    """Return the number of rows, and for each crossing its row and its place in that row.

    Rows are added until no two labels of one row touch, or there are eight of them.
    """
    for rows in range(1, _MOST_ROWS + 1):
        places, fits = _spread(crossings, rows)
        if fits:
            break
    return rows, places


def _spread(crossings: Sequence[Crossing], rows: int) -> tuple[list[tuple[int, float]], bool]:
    ends = [float("-inf")] * rows
    places: list[tuple[int, float]] = [(0, 0.0)] * len(crossings)
    fits = True
    in_order = sorted(range(len(crossings)), key=lambda i: (crossings[i].at(0.5), i))
    for i in in_order:
        choices = [crossings[i].at((row + 1) / (rows + 1)) for row in range(rows)]
        left = [x - crossings[i].width / 2 - ends[row] for row, x in enumerate(choices)]
        row = max(range(rows), key=left.__getitem__)
        fits = fits and left[row] >= 0
        ends[row] = choices[row] + crossings[i].width / 2
        places[i] = (row, choices[row])
    return places, fits
