"""Tables on the terminal, and their sections of ``RESULTS.md``."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import rich.table
import torch
from rich.console import Console

from .timing import Row, Table, Timing

RESULTS = Path(__file__).parent / "RESULTS.md"
PREAMBLE = """# Results

Medians over interleaved rounds in one process (a peer that cannot share it has its own), quartiles
in brackets. The last columns say how much longer than the first candidate the others took: above 1
the first one is faster.
`python -m benchmarks NAME` measures one section again and replaces it here.
"""


def show(tables: Sequence[Table], console: Console) -> None:
    for table in tables:
        drawn = rich.table.Table(title=table.title, caption=table.note or None)
        drawn.add_column("")
        for heading in _headings(table):
            drawn.add_column(heading, justify="right")
        for row in table.rows:
            drawn.add_row(row.problem, *_cells(row))
        console.print(drawn)


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
        lines += [f"| {row.problem} | {' | '.join(_cells(row))} |" for row in table.rows]
        lines += ["", table.note, ""] if table.note else [""]
    return "\n".join(lines)


def environment() -> str:
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} CPUs, threads of torch: {torch.get_num_threads()}{device}"
    )


def _headings(table: Table) -> list[str]:
    return [*table.columns, *(f"× {name}" for name in table.columns[1:])]


def _cells(row: Row) -> list[str]:
    first, *others = row.timings
    return [*map(_cell, row.timings), *(_ratio(first, other) for other in others)]


def _cell(timing: Timing | str) -> str:
    if isinstance(timing, str):
        return timing
    spread = f"{_seconds(timing.lower)} to {_seconds(timing.upper)}"
    return f"{_seconds(timing.median)} ({spread})"


def _ratio(first: Timing | str, other: Timing | str) -> str:
    if isinstance(first, str) or isinstance(other, str):
        return ""
    return f"{other.median / first.median:.2f}"


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
