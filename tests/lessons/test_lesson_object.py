"""What the cells of a lesson call: predictions, reveals, checks, summary, pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import pullback as pb
from pullback.lessons import open_lesson


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_prediction_is_noted_and_met_by_its_reveal(capsys: pytest.CaptureFixture[str]) -> None:
    lesson = open_lesson(1)
    lesson.predict("implicit", " B) ")
    assert printed(capsys) == "You say b) w = 1.\n"
    lesson.reveal("implicit", a=False, b=torch.tensor(True), c=False)
    assert printed(capsys) == "It is b) w = 1. You saw it coming.\n"
    lesson.predict("implicit", "a")
    printed(capsys)
    lesson.reveal("implicit", a=False, b=True, c=False)
    assert printed(capsys) == "It is b) w = 1. You said a).\n"
    lesson.reveal("shape", a=False, b=True, c=False)
    assert printed(capsys) == "It is b) (5, 4), with the values 1 and 4.\n"
    lesson.summary()
    assert printed(capsys) == "Lesson 1: 0 of 4 predictions held, 0 of 2 exercises answered.\n"


def test_options_that_cannot_be_told_apart_are_said_to_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lesson = open_lesson(1)
    lesson.reveal("implicit", a=True, b=True, c=False)
    lesson.reveal("implicit", a=False, b=False, c=False)
    assert printed(capsys) == (
        "With these tensors the options cannot be told apart: a and b would hold.\n"
        "With these tensors the options cannot be told apart: none would hold.\n"
    )
    assert lesson.revealed == {}


REFUSALS = [
    (lambda x: x.predict("implicit", "z"), "lesson.predict: the prediction 'implicit' is 'z'; it is one of the letters a, b or c, such as \"a\"."),
    (lambda x: x.predict("implicit", 3), "lesson.predict: the prediction 'implicit' is an int; it is one of the letters a, b or c, such as \"a\"."),
    (lambda x: x.predict("none", "a"), "lesson.predict: this lesson has no prediction 'none'; it has 'implicit', 'shape', 'refused', 'size'."),
    (lambda x: x.reveal("none"), "lesson.reveal: this lesson has no prediction 'none'; it has 'implicit', 'shape', 'refused', 'size'."),
    (lambda x: x.check("none", 1), "lesson.check: this lesson has no exercise 'none'; it has 'size', 'entry'."),
    (lambda x: x.reveal("implicit", a=True), "lesson.reveal: the prediction 'implicit' offers a, b, c, but the truth of a is given; give each of them, as in a=first == second, b=first != second."),
    (lambda x: open_lesson(99), "learn: there is no lesson 99; there are "),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), REFUSALS, ids=[said[:60] for _, said in REFUSALS])
def test_what_a_lesson_does_not_have_is_refused(call, said: str) -> None:
    with pytest.raises(pb.ArgumentError, match=f"^{re.escape(said)}"):
        call(open_lesson(1))


def test_pictures_are_text_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lesson = open_lesson(1)
    inp = torch.eye(2, requires_grad=True)
    out = (inp + 1).pow(2)
    lesson.show(pb.record(out, torch.ones_like(out), inputs={"inp": inp}))
    assert "deposit for inp (2, 2)" in printed(capsys)
    lesson.show(pb.sensitivity(out, {"inp": inp}, {"all": torch.ones_like(out)}))
    assert "all: inp (2, 2)" in printed(capsys)
    lesson.show({"first": torch.ones(2, 2), "second": torch.zeros(2, 2)}, "Two tensors")
    text = printed(capsys)
    assert text.startswith("Two tensors\n")
    assert "second (2, 2)" in text
    lesson.show(torch.ones(2, 2))
    assert "all 1" in printed(capsys)
    plan = pb.plan_jacobian(lambda x: x * x, torch.ones(3))
    lesson.show(plan.pattern)
    assert printed(capsys).rstrip() == str(plan.pattern).rstrip()


def test_a_figure_in_a_terminal_is_a_file_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    x = torch.ones(2, requires_grad=True)
    open_lesson(1).show(pb.record((x * x).sum(), inputs={"x": x}).plot())
    path = Path(printed(capsys).removeprefix("The picture is in ").strip())
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.is_relative_to(tmp_path)
