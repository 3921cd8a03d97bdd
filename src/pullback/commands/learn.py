"""``pullback learn``: list the lessons, run one in the terminal, or write its notebook."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from .._checks import lessons as checks
from .._errors import PullbackError
from ..lessons import catalogue, notebooks, terminal
from . import failures

CALLER = "learn"
_WIDTH = 100


@dataclass(frozen=True)
class Request:
    """What was typed, a field for each option."""

    number: int | None = None
    notebook: bool = False
    worked: bool = False
    out: Path | None = None


def run(request: Request) -> int:
    """Do it, and return the exit code: 0 done, 1 a cell failed, 2 refused."""
    try:
        _check(request)
        if request.notebook:
            for number in _numbers(request):
                folder = request.out or Path()
                path = notebooks.write(number, folder, worked=request.worked)
                typer.echo(f"Notebook written to {path}")
            return 0
        if request.number is None:
            _list()
            return 0
        return terminal.run(request.number, worked=request.worked, console=_console(), ask=_ask)
    except PullbackError as error:
        return failures.say(CALLER, error)


def _check(request: Request) -> None:
    if request.number is not None:
        catalogue.entry_of(request.number)
    elif request.worked and not request.notebook:
        raise checks.options_without_lesson("--worked")
    if request.out is not None and not request.notebook:
        raise checks.out_without_notebook()


def _numbers(request: Request) -> list[int]:
    if request.number is not None:
        return [request.number]
    return [entry.number for entry in catalogue.lessons()]


def _console() -> Console:
    if sys.stdout.isatty():
        return Console(width=min(_WIDTH, shutil.get_terminal_size().columns))
    return Console(width=_WIDTH)


def _ask(prompt: str) -> str:
    if sys.stdin.isatty():
        return input(prompt)
    print(prompt, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        print()
        raise EOFError
    print(line.rstrip("\n"))
    return line


def _list() -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "lesson", "what it is about", "minutes"):
        table.add_column(name, justify="right" if name in ("", "minutes") else "left")
    for entry in catalogue.lessons():
        table.add_row(str(entry.number), entry.title, entry.line, str(entry.minutes))
    console = _console()
    console.print(table)
    console.print(
        "\n`pullback learn 6` runs lesson 6 here (--worked: with solutions, nothing asked)."
        "\n`pullback learn 6 --notebook` writes its notebook (--worked: run, with solutions)."
    )
