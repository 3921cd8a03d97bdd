"""A lesson as its own cells see it: ``lesson.predict``, ``reveal``, ``check``, ``show``."""

from __future__ import annotations

import importlib
import textwrap
from typing import Any

from .._checks import lessons as checks
from .catalogue import Entry, entry_of, source_of
from .checking import Exercise, Outcome
from .showing import show as show_value
from .source import Cell, Source

_WIDTH = 96


def open_lesson(number: int) -> Lesson:
    """The lesson of that number, with nothing predicted and nothing answered yet.

    Raises:
        ArgumentError: there is no such lesson.
    """
    return Lesson(entry_of(number), source_of(number), exercises_of(number))


def exercises_of(number: int) -> dict[str, Exercise]:
    """The exercises of a lesson by key, from ``checks/lessonNN.py``."""
    module = importlib.import_module(f"{__package__}.checks.lesson{number:02d}")
    found: dict[str, Exercise] = module.EXERCISES
    return found


class Lesson:
    """What was predicted, revealed and answered so far.

    - ``predictions``: key to the letter chosen; ``revealed``: key to the letter that holds.
    - ``outcomes``: key of an exercise to the `Outcome` of its last check.
    """

    def __init__(self, entry: Entry, source: Source, exercises: dict[str, Exercise]) -> None:
        self.entry, self.source, self.exercises = entry, source, exercises
        self.predictions: dict[str, str] = {}
        self.revealed: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}

    def predict(self, key: str, choice: str) -> None:
        """Note a prediction: a letter, or "" for none yet."""
        question = self._question("predict", key)
        options = question.options
        letter = checks.prediction(key, choice, list(options))
        if not letter:
            return _say(f"Not answered yet: write {question.letters} between the quotes.")
        self.predictions[key] = letter
        return _say(f"You say {letter}) {_plain(options[letter])}.")

    def reveal(self, key: str, **truths: Any) -> None:
        """Say which option holds: ``truths`` gives for each letter whether it does."""
        options = self._question("reveal", key).options
        checks.truths_fit_options(key, list(truths), list(options))
        holding = [letter for letter, holds in truths.items() if bool(holds)]
        if len(holding) != 1:
            among = " and ".join(holding) or "none"
            return _say(f"With these tensors the options cannot be told apart: {among} would hold.")
        letter = self.revealed[key] = holding[0]
        said = self.predictions.get(key)
        verdict = {None: "", letter: " You saw it coming."}.get(said, f" You said {said}).")
        return _say(f"It is {letter}) {_plain(options[letter])}.{verdict}")

    def check(self, key: str, answer: Any, *own: Any) -> None:
        """Judge an answer, also on the learner's ``own`` tensors, and say what came out."""
        if key not in self.exercises:
            raise checks.no_such_key("check", "exercise", key, list(self.exercises))
        outcome = self.outcomes[key] = self.exercises[key].check(answer, own)
        _say(str(outcome))

    def show(self, what: Any, title: str = "") -> None:
        """Show a record, a sensitivity, a plan, a figure, or tensors by name: as a picture in a
        notebook, as text in a terminal."""
        show_value(what, title)

    def summary(self) -> None:
        """Say how many predictions held and how many exercises are answered."""
        asked = self.source.keys("predict")
        held = sum(self.predictions.get(k) == self.revealed.get(k, "") for k in asked)
        answered = sum(outcome.ok for outcome in self.outcomes.values())
        _say(
            f"Lesson {self.entry.number}: {held} of {len(asked)} predictions held, "
            f"{answered} of {len(self.exercises)} exercises answered."
        )

    def _question(self, caller: str, key: str) -> Cell:
        known = self.source.keys("predict")
        if key not in known:
            raise checks.no_such_key(caller, "prediction", key, known)
        return self.source.cell("predict", key)


def _plain(option: str) -> str:
    return option.replace("`", "").rstrip(".")


def _say(text: str) -> None:
    """Long sentences are wrapped; lines that are laid out keep their form."""
    for line in text.splitlines():
        laid_out = line.startswith("  ")
        print(line if laid_out else textwrap.fill(line, _WIDTH, break_long_words=False))
