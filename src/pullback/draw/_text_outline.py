"""An outline as text: guides, labels, and aligned columns."""

import textwrap

from rich.cells import cell_len

from ._guides import MAX_GUIDES, Guide, guides
from ._printable import printable
from .numbers import looks_numeric
from .page import Outline, OutlineRow

_GAP = "  "
_PIECES: dict[Guide, str] = {"rail": "│  ", "gap": "   ", "tee": "├─ ", "elbow": "└─ "}
_BELOW: dict[Guide, str] = {"rail": "│  ", "gap": "   ", "tee": "│  ", "elbow": "   "}
_MIN_PROSE = 24


def outline_lines(outline: Outline, width: int) -> list[str]:
    """Set an outline; where it is too wide, the last column wraps and the guides run on."""
    if not outline.columns:
        return []
    branches = guides([row.depth for row in outline.rows])
    body = [_cells(row, branch) for row, branch in zip(outline.rows, branches, strict=True)]
    header = [printable(name) for name in outline.columns]
    titled = any(header)
    rows = [header, *body] if titled else body
    rights = [_is_numeric_column(body, column) for column in range(len(header))]
    widths = [max((cell_len(row[c]) for row in rows), default=0) for c in range(len(header))]
    used = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    if len(widths) > 1 and not rights[-1] and used + widths[-1] > width:
        widths[-1] = max(_MIN_PROSE, width - used)
    lines = [_line(header, widths, rights)] if titled else []
    for cells, branch in zip(body, branches, strict=True):
        lines += _row_lines(cells, branch, widths, rights)
    return lines


def _cells(row: OutlineRow, branch: tuple[Guide, ...]) -> list[str]:
    cells = [printable(cell) for cell in row.cells]
    marker = f"{printable(row.marker)} " if row.marker else ""
    hidden = f"({row.depth}) " if row.depth > MAX_GUIDES else ""
    cells[0] = "".join(_PIECES[guide] for guide in branch) + hidden + marker + cells[0]
    return cells


def _is_numeric_column(body: list[list[str]], column: int) -> bool:
    cells = [row[column] for row in body if row[column].strip()]
    return column > 0 and bool(cells) and all(looks_numeric(cell) for cell in cells)


def _row_lines(
    cells: list[str], branch: tuple[Guide, ...], widths: list[int], rights: list[bool]
) -> list[str]:
    if len(cells) == 1 or cell_len(cells[-1]) <= widths[-1]:
        return [_line(cells, widths, rights)]
    first, *rest = textwrap.wrap(cells[-1], widths[-1])
    blank = ["".join(_BELOW[guide] for guide in branch), *[""] * (len(cells) - 2)]
    lines = [_line([*cells[:-1], first], widths, rights)]
    return lines + [_line([*blank, piece], widths, rights) for piece in rest]


def _line(cells: list[str], widths: list[int], rights: list[bool]) -> str:
    padded = [
        " " * (width - cell_len(cell)) + cell if right else cell + " " * (width - cell_len(cell))
        for cell, width, right in zip(cells, widths, rights, strict=True)
    ]
    return _GAP.join(padded).rstrip()
