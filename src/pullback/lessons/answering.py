"""An exercise in the terminal: the learner types, edits or names a file, until it is right."""

from __future__ import annotations

import codeop
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from .printing import show_code, show_error
from .running import Runner
from .source import Source
from .stub import names_of, stub_of

_HELP = (
    "Write Python here (a blank line ends a def), or: e opens your editor, f FILE reads a file, "
    "s shows the solution, Enter goes on, q leaves."
)
_FILE = re.compile(r"f\s+(?P<path>[^=\s].*)")


class LeaveError(Exception):
    """The learner wants to leave the lesson."""


def statement(first: str, console: Console, ask: Callable[[str], str]) -> str | None:
    """As at Python's own prompt: a statement that is open goes on, a def to a blank line."""
    lines = [first]
    while lines[-2:] != ["", ""]:
        try:
            if codeop.compile_command("\n".join(lines)) is not None:
                return "\n".join(lines)
        except (SyntaxError, ValueError, OverflowError) as error:
            show_error(console, error)
            return None
        lines.append(ask("... "))
    console.print("That statement was not finished; begin it again.")
    return None


class Answering:
    """Take answers and check them until one is right, or the learner goes on or asks for ours.

    ``ask`` shows a prompt and returns a line, "" where there is none.
    """

    def __init__(
        self,
        source: Source,
        key: str,
        runner: Runner,
        console: Console,
        ask: Callable[[str], str],
    ) -> None:
        self._solution, self._check = source.cell("solution", key), source.cell("check", key)
        self._names = names_of(self._solution.text)
        self._draft = stub_of(self._solution.text)
        self._key, self._runner, self._console, self._ask = key, runner, console, ask

    def run(self) -> None:
        self._runner.run_answer(self._draft)
        show_code(self._console, self._draft)
        self._console.print(_HELP)
        while text := self._ask(">>> "):
            if text.strip() == "s":
                show_code(self._console, self._solution.text)
                self._runner.run(self._solution)
                self._passes()
                return
            if self._take(text) and self._passes():
                return

    def _take(self, text: str) -> bool:
        """Run what was entered; whether it is about the answer, so that it should be checked."""
        code = self._code_of(text)
        if code is None:
            return False
        try:
            self._runner.run_answer(code)
        except Exception as error:  # the learner's own code
            show_error(self._console, error)
            return False
        return any(re.search(rf"\b{name}\b", code) for name in self._names)

    def _code_of(self, text: str) -> str | None:
        if text.strip() == "e":
            return self._edited()
        if match := _FILE.fullmatch(text.strip()):
            return self._read(Path(match["path"]).expanduser())
        return statement(text, self._console, self._ask)

    def _passes(self) -> bool:
        try:
            self._runner.run(self._check)
        except Exception as error:  # the learner's own tensors
            show_error(self._console, error)
            return False
        return bool(self._runner.names["lesson"].outcomes[self._key].ok)

    def _edited(self) -> str | None:
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answer.py"
            path.write_text(self._draft + "\n", encoding="utf-8")
            try:
                subprocess.run([*shlex.split(editor), str(path)], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                show_error(self._console, error, f"The editor {editor!r} did not run: ")
                self._console.print("Set EDITOR to one that does, or name a file: f answer.py")
                return None
            self._draft = path.read_text(encoding="utf-8")
        return self._draft

    def _read(self, path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            show_error(self._console, error, f"{path} cannot be read: ")
            return None
