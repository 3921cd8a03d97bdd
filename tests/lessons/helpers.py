"""Running lessons in this process, and the answers whose verdict is known."""

from __future__ import annotations

import importlib
import socket
from typing import Any, NoReturn

import pytest

from pullback.lessons import Lesson
from pullback.lessons.catalogue import lessons, source_of
from pullback.lessons.running import Runner
from pullback.lessons.stub import stub_of

NUMBERS = [entry.number for entry in lessons()]


class OfflineError(Exception):
    """Something wanted a socket."""


def refuse_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OfflineError

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def run_worked(number: int) -> Lesson:
    """The lesson after all of its cells, solutions in place."""
    source = source_of(number)
    runner = Runner(source)
    for cell in source.cells:
        if not cell.is_text:
            runner.run(cell)
    lesson: Lesson = runner.names["lesson"]
    return lesson


def run_fresh(number: int) -> Lesson:
    """The lesson as a learner would run it who fills in nothing."""
    source = source_of(number)
    runner = Runner(source)
    for cell in source.cells:
        if cell.role == "predict":
            runner.names["lesson"].predict(cell.key, "")
        elif cell.role == "solution":
            runner.run_answer(stub_of(cell.text))
        elif not cell.is_text:
            runner.run(cell)
    lesson: Lesson = runner.names["lesson"]
    return lesson


def answers(number: int) -> Any:
    return importlib.import_module(f"{__package__}.wrong.lesson{number:02d}")
