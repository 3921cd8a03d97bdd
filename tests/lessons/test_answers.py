"""Checks, tried with answers whose verdict is known: other right ones, and every wrong one."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from pullback.lessons.checking import Outcome
from pullback.lessons.lesson import exercises_of

from .helpers import NUMBERS, answers
from .wrong import Right, Wrong

SENTENCE = 36  # characters: shorter strings are parts of inputs and of errors

WRONG = [(n, w) for n in NUMBERS for w in answers(n).WRONG]
RIGHT = [(n, r) for n in NUMBERS for r in answers(n).RIGHT]


def label(value: Any) -> str | None:
    return f"{value.key}-{value.name}" if isinstance(value, Wrong | Right) else None


_told: dict[int, Outcome] = {}


def told(number: int, wrong: Wrong) -> Outcome:
    """What a wrong answer is told; a check may run for seconds, and two tests ask."""
    if id(wrong) not in _told:
        _told[id(wrong)] = exercises_of(number)[wrong.key].check(wrong.answer)
    return _told[id(wrong)]


@pytest.mark.parametrize(("number", "wrong"), WRONG, ids=label)
def test_a_wrong_answer_gets_its_hint_and_a_counterexample(number: int, wrong: Wrong) -> None:
    outcome = told(number, wrong)
    assert outcome.state == "wrong"
    assert wrong.phrase in outcome.text
    assert outcome.counterexample
    assert "Traceback" not in str(outcome)


@pytest.mark.parametrize(("number", "other"), RIGHT, ids=label)
def test_any_right_answer_is_accepted(number: int, other: Right) -> None:
    outcome = exercises_of(number)[other.key].check(other.answer)
    assert outcome.ok, str(outcome)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_exercise_has_wrong_and_other_right_answers(number: int) -> None:
    for key in exercises_of(number):
        assert sum(w.key == key for w in answers(number).WRONG) >= 4, key
        assert sum(r.key == key for r in answers(number).RIGHT) >= 2, key


@pytest.mark.parametrize("number", NUMBERS)
def test_wrong_answers_of_other_kinds_are_told_too(number: int) -> None:
    """Whatever is handed in, an outcome comes back."""
    for exercise in exercises_of(number).values():
        for junk in (3, "text", object(), lambda *_: object(), lambda: 1, lambda *_: "text", [1]):
            assert exercise.check(junk).state == "wrong"
        assert exercise.check(...).state == "unanswered"
        assert exercise.check(None).state == "unanswered"


def hints_in(module: Any) -> Iterator[str]:
    """The sentences of a module of judges that are neither its documentation nor its praise."""
    tree = ast.parse(inspect.getsource(module))
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            left_out.add(id(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("right", "Case"):
            left_out |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.keyword) and node.arg == "praise":
            left_out.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.strip()
            if id(node) not in left_out and len(text) >= SENTENCE and text.endswith("."):
                yield text


@pytest.mark.parametrize("number", NUMBERS)
def test_every_hint_is_given_to_a_wrong_answer(number: int) -> None:
    exercises = exercises_of(number)
    given = [told(number, wrong).text for wrong in answers(number).WRONG]
    hints = list(hints_in(importlib.import_module(f"pullback.lessons.checks.lesson{number:02d}")))
    assert len(hints) >= 2 * len(exercises)
    assert [hint for hint in hints if not any(hint in text for text in given)] == []
