"""Tables on the terminal, and their sections of ``RESULTS.md``."""

from __future__ import annotations

import itertools
import os
import platform
import re
import string
from collections.abc import Sequence
from pathlib import Path

import rich.table
import torch
from rich.console import Console
from rich.measure import Measurement

from .timing import Cell, Row, Table

RESULTS = Path(__file__).parent / "RESULTS.md"
# A cell holds a text of this many characters; a longer one stands under the table.
SHORT = 20
PREAMBLE = """# Results

Medians over interleaved rounds in one process (a peer that cannot share it has its own), quartiles
in brackets. The last columns say how much longer than the first candidate the others took, or what
their headings say: above 1 the first one is faster.
`python -m benchmarks NAME` measures one section again and replaces it here.
"""


def show(tables: Sequence[Table], console: Console) -> None:
    """As wide as they are: a terminal that is narrower wraps their lines, and loses nothing."""
    for table in tables:
        drawn = rich.table.Table(title=table.title)
        drawn.add_column("", no_wrap=True)
        for heading in _headings(table):
            drawn.add_column(heading, justify="right", no_wrap=True)
        for row in table.rows:
            drawn.add_row(row.problem, *_cells(table, row))
        if table.means:
            drawn.add_section()
            drawn.add_row(*_means(table))
        width = console.width
        wide = console.options.update(max_width=10_000)
        console.width = max(width, Measurement.get(console, wide, drawn).maximum)
        console.print(drawn, crop=False)
        console.width = width
        for line in _under(table):
            console.print(line, style="dim", highlight=False, markup=False)


def save(section: str, tables: Sequence[Table], command: str, path: Path = RESULTS) -> None:
    """Write one section; the others keep the text they have."""
    sections = _sections(path.read_text(encoding="utf-8")) if path.exists() else {}
    sections[section] = _section(section, tables, command)
    text = "\n".join([PREAMBLE, *(sections[name] for name in sorted(sections))])
    path.write_text(text, encoding="utf-8")


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {
        name: f"## {name}\n{body.strip(chr(10))}\n".replace("\n", "\n\n", 1)
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def _section(section: str, tables: Sequence[Table], command: str) -> str:
    lines = [f"## {section}", "", f"`{command}`, {environment()}.", ""]
    for table in tables:
        lines += [f"### {table.title}", ""]
        headings = _headings(table)
        lines += [f"| | {' | '.join(headings)} |", f"|---|{'---:|' * len(headings)}"]
        lines += [f"| {row.problem} | {' | '.join(_cells(table, row))} |" for row in table.rows]
        lines += [f"| {' | '.join(_means(table))} |"] if table.means else []
        lines += [line for text in _under(table) for line in ("", text)] + [""]
    return "\n".join(lines)


def environment() -> str:
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} CPUs, threads of torch: {torch.get_num_threads()}{device}"
    )


def _headings(table: Table) -> list[str]:
    return [*table.columns, *(ratio.heading for ratio in table.compared)]


def _cells(table: Table, row: Row) -> list[str]:
    ratios = [table.ratio(ratio, row) for ratio in table.compared]
    return [
        *(_cell(cell, table) for cell in row.timings),
        *("" if value is None else f"{value:.2f}" for value in ratios),
    ]


def _means(table: Table) -> list[str]:
    means = [table.mean(ratio) for ratio in table.compared]
    told = ["" if mean is None else f"{mean[0]:.2f} (of {mean[1]})" for mean in means]
    return ["geometric mean", *[""] * len(table.columns), *told]


def _cell(cell: Cell, table: Table) -> str:
    if isinstance(cell, str):
        reasons = _reasons(table)
        return f"– {reasons[cell]}" if cell in reasons else cell
    spread = table.spread
    quartiles = f"{seconds_text(cell.lower)} to {seconds_text(cell.upper)}" if spread else ""
    beside = ", ".join(filter(None, (quartiles, cell.note)))
    return f"{seconds_text(cell.median)} ({beside})" if beside else seconds_text(cell.median)


def _reasons(table: Table) -> dict[str, str]:
    """Texts that are too long for a cell, and the letter that stands for each."""
    texts = dict.fromkeys(
        cell
        for row in table.rows
        for cell in row.timings
        if isinstance(cell, str) and len(cell) > SHORT
    )
    letters = itertools.chain(string.ascii_lowercase, (f"a{k}" for k in itertools.count(1)))
    return dict(zip(texts, letters, strict=False))


def _under(table: Table) -> list[str]:
    """The note, and what the letters stand for."""
    told = "; ".join(f"{letter}: {text}" for text, letter in _reasons(table).items())
    return list(filter(None, (table.note, told)))


def seconds_text(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
