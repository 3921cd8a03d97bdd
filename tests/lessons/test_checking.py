"""Judges: what is compared, what is told, and which misconception is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pullback.cotangents import rows
from pullback.lessons.checking import Case, Exercise, Misconception, called, right, same_function
from pullback.lessons.lesson import exercises_of
from pullback.lessons.values import difference, shown

CASES = [
    Case("x = [1, 2]", lambda: (torch.tensor([1.0, 2.0]),)),
    Case("x = [3]", lambda: (torch.tensor([3.0]),)),
]
DOUBLE = Exercise(
    same_function(
        lambda own: [*CASES, *(Case("your x", lambda t=t: (t,)) for t in own)],
        lambda x: 2 * x,
        (
            Misconception(lambda x: x * x, "that is the square."),
            Misconception(lambda x: x[1] * x, "that uses entry 1 only."),
        ),
        hint="twice x.",
    ),
    crashes=(("of no use", "do not raise."),),
)


def no_use(x: Any) -> Any:
    raise ValueError("of no use\nand more")


def test_outcomes_say_what_came_what_is_right_and_why() -> None:
    assert str(DOUBLE.check(lambda x: x + x)) == "Right. Tried on 2 inputs."
    assert str(DOUBLE.check(lambda x: x + x, (torch.ones(1),))) == "Right. Tried on 3 inputs."
    assert str(DOUBLE.check(lambda x: x**2)) == (
        "Not yet.\n"
        "On x = [1, 2]:\n  it gave   [1, 4]\n  right is  [2, 4]\n"
        "  They differ first at [0]: 1 against 2.\n"
        "Hint: that is the square."
    )
    assert DOUBLE.check(lambda x: 3 * x).text == "twice x."
    assert DOUBLE.check(lambda x: x[1] * x).text == "that uses entry 1 only."
    assert DOUBLE.check(lambda x: x[1] * x[1] * 7).text == "twice x."


def test_errors_of_an_answer_are_told_with_their_own_words() -> None:
    outcome = DOUBLE.check(no_use)
    assert outcome.counterexample == "On x = [1, 2], it raised ValueError: of no use"
    assert outcome.text == "do not raise."
    assert DOUBLE.check(lambda: 1).text.startswith("read the error's last line")
    assert "the answer is a function; this is a int" in DOUBLE.check(3).counterexample


def test_a_crash_where_the_idea_fails_too_is_named_after_the_idea() -> None:
    exercise = Exercise(
        same_function(
            lambda own: [CASES[1], CASES[0]],
            lambda x: 2 * x,
            (Misconception(lambda x: x[1] * x, "that uses entry 1 only."),),
            hint="twice x.",
        )
    )
    assert exercise.check(lambda x: x[1] * x).text == "that uses entry 1 only."


@pytest.mark.parametrize("answer", [None, ..., lambda x: None, lambda x: ...])
def test_a_stub_is_not_answered_yet(answer: Any) -> None:
    outcome = DOUBLE.check(answer)
    assert outcome.state == "unanswered"
    assert str(outcome).startswith("Not answered yet: write your answer in place of the `...`")


def test_a_function_that_forgets_to_return_is_told_so() -> None:
    def forgets(x: Any) -> None:
        x.sum()

    assert str(DOUBLE.check(forgets)) == (
        "Not answered yet: the function gives back None. It gives back what follows `return`."
    )


def test_inputs_are_made_anew_for_each_call() -> None:
    """An answer that writes into its argument does not change what is right."""

    def in_place(x: Any) -> Any:
        x *= 2
        return x

    assert DOUBLE.check(in_place).ok


def test_warnings_of_an_answer_do_not_reach_the_learner() -> None:
    def reads(x: Any) -> Any:
        y = (x.requires_grad_() * 2).detach().requires_grad_() * 1
        return y if y.grad is None else None

    assert DOUBLE.check(reads).ok


SAME = [
    (2, torch.tensor(2.0)),
    (2.0, torch.tensor(2)),
    ([1, 2], torch.tensor([1.0, 2.0])),
    (np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])),
    ([torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)], torch.tensor([1.0, 2.0])),
    (torch.tensor([1.0, 2.0]), (1.0, 2.0)),
    ([1, 2], (1.0, 2.0)),
    (torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0])),
    (torch.tensor([1.0, 2.0]).to_sparse(), torch.tensor([1.0, 2.0])),
    ({"a": 1.0}, {"a": torch.tensor(1.0)}),
    (True, True),
    ("x", "x"),
    (torch.ones(0, 2), torch.zeros(0, 2)),
    (torch.tensor([1.0, 1e-6]), torch.tensor([1.0, 1.1e-6])),
]
OTHER = [
    (torch.ones(2, 1), torch.ones(2), "The shape is (2, 1); it should be (2,)."),
    (1.0, torch.tensor(2.0), "They differ: 1 against 2."),
    ([1.0, 3.0], (1.0, 2.0), "At position 1: They differ: 3 against 2."),
    ([1.0], (1.0, 2.0), "It should be 2 values; it is 1."),
    (3, (1.0, 2.0), "It should be 2 values; it is a int."),
    ({"a": 1.0}, {"b": 1.0}, "The keys are ['a']; they should be ['b']."),
    ({"a": 1.0}, {"a": 2.0}, "At 'a': They differ: 1 against 2."),
    ("text", torch.ones(1), "It gave a str, not a Tensor."),
    (True, torch.tensor(1.0), "It gave a bool, not a Tensor."),
    (False, True, "False is not True."),
    (torch.tensor([float("nan")]), torch.tensor([1.0]), "They differ first at [0]: nan against 1."),
    (torch.tensor(1.0 + 1e-3), torch.tensor(1.0), "They differ: 1.001 against 1."),
    (torch.tensor(1 + 1e-7, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), "They differ: 1 against 1."),
]  # fmt: skip


@pytest.mark.parametrize(("came", "expected"), SAME)
def test_the_same_value_in_another_form_is_the_same(came: Any, expected: Any) -> None:
    assert difference(came, expected) == ""


@pytest.mark.parametrize(("came", "expected", "said"), OTHER)
def test_other_values_are_told_apart(came: Any, expected: Any, said: str) -> None:
    assert difference(came, expected) == said


def test_values_are_shown_in_few_characters() -> None:
    assert shown(torch.tensor([[1.0, 0.5]])) == "[[1, 0.5]]"
    assert shown(torch.ones(50)) == "a tensor of shape (50,)"
    assert shown((1.0, torch.ones(1))) == "(1, [1])"
    assert shown({"a": 2}) == "{'a': 2}"
    assert shown("x") == "'x'"


def test_called_and_right_are_what_a_judge_is_made_of() -> None:
    exercise = Exercise(lambda answer, own: right(str(called(answer, (2,), "On 2, it"))))
    assert str(exercise.check(lambda x: x + 1)) == "Right. 3"


def test_an_own_output_without_entries_is_passed_over() -> None:
    exercise = exercises_of(6)["first-row"]
    assert exercise.check(lambda out: rows(out, {0: 1.0}), (torch.ones(3, 0),)).ok
