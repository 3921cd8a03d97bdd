"""Sizes of the text in a diagram: monospaced, so that widths are known without a font."""

from rich.cells import cell_len

from ._printable import clipped
from .page import Arrow, Box

LINE_HEIGHT = 17.0
PADDING_X = 12.0
PADDING_Y = 8.0
LABEL_HEIGHT = 16.0
_CHARACTER = 7.5
_LABEL_CHARACTER = 6.9
_LEAST_WIDTH = 56.0
_MOST_CHARACTERS = 44
_MOST_LABEL_CHARACTERS = 28


def box_lines(box: Box) -> tuple[str, ...]:
    """Return the lines a box shows: its key where it has none, long ones cut."""
    return tuple(clipped(line, _MOST_CHARACTERS) for line in box.lines or (box.key,))


def label_text(arrow: Arrow) -> str:
    """Return the label an arrow shows, cut where long."""
    return clipped(arrow.label, _MOST_LABEL_CHARACTERS)


def box_size(box: Box) -> tuple[float, float]:
    """Return the width and height of a box, in pixels."""
    lines = box_lines(box)
    widest = max(cell_len(line) for line in lines)
    width = max(_LEAST_WIDTH, widest * _CHARACTER + 2 * PADDING_X)
    return width, len(lines) * LINE_HEIGHT + 2 * PADDING_Y


def label_width(arrow: Arrow) -> float:
    """Return the width of an arrow's label with some air, 0 where it has none."""
    return cell_len(label_text(arrow)) * _LABEL_CHARACTER + 10 if arrow.label else 0.0
