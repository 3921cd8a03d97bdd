"""Running the cells of a lesson in this process, as a script of their own."""

from __future__ import annotations

import linecache
from types import CodeType
from typing import Any

from .source import Cell, Source


class Runner:
    """One namespace in which the cells run, in order.

    Tracebacks and ``pb.trace`` find the lines of a cell under ``lesson``, the file's own name
    without its folder: to them a lesson is a program of the learner.
    """

    def __init__(self, source: Source) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._file = f"{source.name}.py"
        remember(self._file, source.text)
        self._answers = 0

    def run(self, cell: Cell) -> None:
        """Run a cell; what it raises is raised."""
        above = "\n" * (cell.line - 1)
        exec(compile(above + cell.text, self._file, "exec"), self.names)

    def run_answer(self, text: str) -> None:
        """Run what the learner wrote."""
        self._answers += 1
        name = f"answer-{self._answers}.py"
        code: CodeType = compile(text, name, "exec")
        remember(name, text)
        exec(code, self.names)


def remember(name: str, text: str) -> None:
    """Make ``text`` the lines of the file ``name``, which does not exist."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
