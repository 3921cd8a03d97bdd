"""A table as aligned text, through rich."""

import io

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ._printable import printable
from .numbers import looks_numeric
from .page import Table

_MIN_PROSE = 16
_COLUMN_GAP = 2


def plain_console(width: int) -> Console:
    """Open a console that writes plain text to memory, whatever terminal or notebook this is."""
    return Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def table_lines(table: Table, width: int) -> list[str]:
    """Set a table; prose wraps between words, numbers never do, even past the width."""
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    least = 0
    for index, name in enumerate(table.columns):
        cells = [printable(row[index]) for row in table.rows]
        numeric = bool(cells) and all(looks_numeric(cell) or not cell.strip() for cell in cells)
        widest = max((cell_len(cell) for cell in (printable(name), *cells)), default=0)
        narrowest = widest if numeric else min(widest, _MIN_PROSE)
        least += narrowest + _COLUMN_GAP + 1
        drawn.add_column(
            Text(printable(name)),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            min_width=narrowest,
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    console = plain_console(max(width, least))
    with console.capture() as capture:
        console.print(drawn)
    title = [printable(table.title)] if table.title else []
    return [*title, *capture.get().rstrip("\n").split("\n")]


def _cell(cell: str) -> Text:
    return Text(printable(cell), justify="right" if looks_numeric(cell) else None)
