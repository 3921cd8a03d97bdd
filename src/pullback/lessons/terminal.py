"""A lesson in the terminal: read, predict, see, answer, be checked."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markdown import Markdown

from .answering import Answering, LeaveError, statement
from .catalogue import entry_of, source_of
from .printing import show_code, show_error
from .running import Runner
from .source import Cell

Ask = Callable[[str], str]


def run(number: int, *, worked: bool = False, console: Console, ask: Ask) -> int:
    """Go through a lesson; the exit code: 0 done or left, 1 a cell of the lesson failed.

    ``ask`` shows a prompt and returns a line; with ``worked`` nothing is asked, and every solution
    is shown. Where the input ends, the rest goes on as if Enter were pressed.
    """
    session = _Session(number, worked, console, _patient(ask))
    try:
        return session.run()
    except (LeaveError, KeyboardInterrupt):
        console.print(f"\nLeft lesson {number}. `pullback learn {number}` starts it again.")
        return 0


def _patient(ask: Ask) -> Ask:
    """After the end of the input every line is empty."""
    ended = False

    def line(prompt: str) -> str:
        nonlocal ended
        if ended:
            return ""
        try:
            text = ask(prompt).rstrip()
        except EOFError:
            ended = True
            return ""
        if text.strip() == "q":
            raise LeaveError
        return text

    return line


class _Session:
    def __init__(self, number: int, worked: bool, console: Console, ask: Ask) -> None:
        self._entry, self._source = entry_of(number), source_of(number)
        self._worked, self._console, self._ask = worked, console, ask
        self._runner = Runner(self._source)
        self._failed = False

    def run(self) -> int:
        head = f"Lesson {self._entry.number}, about {self._entry.minutes} minutes"
        self._console.print(head if self._worked else f"{head}. Enter goes on, q leaves.")
        first, *rest = self._source.cells
        self._visit(first)
        for cell in rest:
            if cell.is_text and cell.text.startswith("#") and not self._worked:
                self._ask("\n-- Enter --")
            self._visit(cell)
        return 1 if self._failed else 0

    def _visit(self, cell: Cell) -> None:
        if cell.is_text:
            self._console.print()
            self._console.print(Markdown(cell.text))
            if not self._worked:
                self._ask_for(cell)
        elif cell.role == "proof":
            self._execute(cell)
        elif cell.role not in ("solution", "check") or self._worked:
            show_code(self._console, cell.text)
            self._execute(cell)
            if cell.role == "yours" and not self._worked:
                self._yours()

    def _ask_for(self, cell: Cell) -> None:
        if cell.role == "predict":
            self._predict(cell)
        elif cell.role == "exercise":
            Answering(self._source, cell.key, self._runner, self._console, self._ask).run()

    def _predict(self, cell: Cell) -> None:
        letters = "/".join(cell.options)
        while choice := self._ask(f"Your prediction ({letters}, Enter for none): "):
            letter = choice.strip().strip(")").lower()
            if letter in cell.options:
                self._runner.names["lesson"].predict(cell.key, letter)
                return
            self._console.print(f"{choice!r} is none of {letters}.", markup=False)

    def _yours(self) -> None:
        self._console.print("\nEnter keeps these; or write your own in their place.")
        while text := self._ask(">>> "):
            code = statement(text, self._console, self._ask)
            try:
                self._runner.run_answer(code or "")
            except Exception as error:  # the learner's own code
                show_error(self._console, error)

    def _execute(self, cell: Cell) -> None:
        if cell.role != "proof":
            self._console.print()
        try:
            self._runner.run(cell)
        except Exception as error:  # the learner's own tensors may not fit a cell
            self._failed = True
            show_error(self._console, error, "This cell stopped: ")
