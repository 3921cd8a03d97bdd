"""Every lesson runs, offline and soon; every prediction has one computed answer."""

from __future__ import annotations

import time

import pytest

from pullback.lessons import Lesson
from pullback.lessons.catalogue import ENTRIES, source_of

from .helpers import NUMBERS, OfflineError, refuse_sockets, run_fresh, run_worked

SECONDS = 30


@pytest.fixture(scope="module")
def worked() -> dict[int, tuple[Lesson, float]]:
    return {}


def worked_lesson(number: int, seen: dict[int, tuple[Lesson, float]]) -> tuple[Lesson, float]:
    if number not in seen:
        with pytest.MonkeyPatch.context() as patch:
            refuse_sockets(patch)
            wall, busy = time.perf_counter(), time.process_time()
            lesson = run_worked(number)
            # The lesser of the two, so that other work on the machine does not count.
            taken = min(time.perf_counter() - wall, time.process_time() - busy)
            seen[number] = (lesson, taken)
    return seen[number]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solutions_pass_and_it_takes_no_longer_than_it_may(
    number: int, worked: dict[int, tuple[Lesson, float]]
) -> None:
    lesson, seconds = worked_lesson(number, worked)
    assert set(lesson.outcomes) == set(lesson.exercises) == set(source_of(number).keys("exercise"))
    assert {key: str(o) for key, o in lesson.outcomes.items() if not o.ok} == {}
    assert seconds < SECONDS


@pytest.mark.parametrize("number", NUMBERS)
def test_every_prediction_is_revealed_by_computation(
    number: int, worked: dict[int, tuple[Lesson, float]]
) -> None:
    """Exactly one option held, and which one depends on values: no truth is written down."""
    lesson, _ = worked_lesson(number, worked)
    assert set(lesson.revealed) == set(source_of(number).keys("predict"))
    for cell in source_of(number).cells:
        if cell.role == "reveal":
            assert "True" not in cell.text.partition("lesson.reveal")[2], cell.key
            assert "False" not in cell.text.partition("lesson.reveal")[2], cell.key


@pytest.mark.parametrize("number", NUMBERS)
def test_without_answers_it_runs_and_says_so(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson = run_fresh(number)
    printed = capsys.readouterr().out
    source = source_of(number)
    assert {o.state for o in lesson.outcomes.values()} <= {"unanswered"}
    assert set(lesson.outcomes) == set(source.keys("exercise"))
    asked = len(source.keys("exercise")) + len(source.keys("predict"))
    assert printed.count("Not answered yet") == asked
    assert set(lesson.revealed) == set(source.keys("predict"))


def test_the_predictions_of_all_lessons_do_not_share_one_letter(
    worked: dict[int, tuple[Lesson, float]],
) -> None:
    letters = [letter for n in NUMBERS for letter in worked_lesson(n, worked)[0].revealed.values()]
    most = max(letters.count(letter) for letter in set(letters))
    assert most <= 0.6 * len(letters)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_asks_shows_and_ends_with_its_summary(number: int) -> None:
    source = source_of(number)
    roles = [cell.role for cell in source.cells]
    assert roles.count("predict") >= 2
    assert roles.count("exercise") >= 1
    assert "yours" in roles
    assert source.cells[0].text.startswith(f"# {number}. {ENTRIES[number - 1].title}\n")
    assert source.cells[-1].text == "lesson.summary()"


def test_the_catalogue_is_numbered_from_one() -> None:
    assert [entry.number for entry in ENTRIES] == list(range(1, 14))
    assert all(entry.slug.startswith(f"{entry.number:02d}_") for entry in ENTRIES)


def test_a_lesson_that_asks_for_a_socket_would_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    refuse_sockets(monkeypatch)
    with pytest.raises(OfflineError):
        socket.create_connection(("127.0.0.1", 9))
