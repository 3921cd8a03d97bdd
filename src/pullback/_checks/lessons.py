"""What the lessons ask of a learner's numbers, letters and files; and of a lesson's source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .._errors import ArgumentError, UnsupportedError
from .words import article


def no_such_lesson(number: object, known: Sequence[int]) -> ArgumentError:
    there = ", ".join(map(str, known))
    return ArgumentError(
        f"learn: there is no lesson {number}; there are {there}. `pullback learn` lists them."
    )


def prediction(key: str, choice: object, options: Sequence[str]) -> str:
    """The letter that was chosen; empty for none."""
    text = choice.strip().strip(")").lower() if isinstance(choice, str) else None
    if text is None or (text and text not in options):
        letters = f"{', '.join(options[:-1])} or {options[-1]}"
        given = repr(choice) if isinstance(choice, str) else article(choice)
        raise ArgumentError(
            f"lesson.predict: the prediction {key!r} is {given}; it is one of the letters "
            f'{letters}, such as "{options[0]}".'
        )
    return text


def no_such_key(caller: str, kind: str, key: str, known: Sequence[str]) -> ArgumentError:
    there = ", ".join(map(repr, known)) or "none"
    return ArgumentError(f"lesson.{caller}: this lesson has no {kind} {key!r}; it has {there}.")


def truths_fit_options(key: str, given: Sequence[str], options: Sequence[str]) -> None:
    if sorted(given) != sorted(options):
        raise ArgumentError(
            f"lesson.reveal: the prediction {key!r} offers {', '.join(options)}, but the truth of "
            f"{', '.join(given) or 'none'} is given; give each of them, as in "
            f"a=first == second, b=first != second."
        )


def source(name: str, line: int, problem: str) -> ArgumentError:
    return ArgumentError(f"lesson {name}, line {line}: {problem}")


def notebook_is_there(path: Path) -> ArgumentError:
    return ArgumentError(
        f"learn: {path} is there already, and may hold your answers; it was left as it is. Name "
        f"another folder with --out, or move the file away."
    )


def out_is_a_file(path: Path) -> ArgumentError:
    return ArgumentError(f"learn: --out {path} is a file; name a folder.")


def no_notebook_tools(missing: str) -> UnsupportedError:
    return UnsupportedError(
        f"learn: a worked notebook is run by a Jupyter kernel, and {missing} is not installed: "
        f"pip install 'pullback[notebook]'. The notebook without solutions needs nothing."
    )


def out_without_notebook() -> ArgumentError:
    return ArgumentError(
        "learn: --out is the folder of a notebook; add --notebook, or leave --out away."
    )


def options_without_lesson(option: str) -> ArgumentError:
    return ArgumentError(
        f"learn: {option} goes with the number of a lesson, as in `pullback learn 6 {option}`."
    )
