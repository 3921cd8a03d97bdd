"""``pullback learn``: the list, a lesson answered line by line, the notebooks, the refusals."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pullback.cli import app
from pullback.lessons import terminal
from pullback.lessons.catalogue import ENTRIES, lessons

from .helpers import NUMBERS

RUNNER = CliRunner()
SIZE = "def jacobian_size(out_shape, inp_shape):"


def learn(*words: str, typed: str | None = None, code: int = 0) -> str:
    result = RUNNER.invoke(app, ["learn", *words], input=typed)
    assert result.exit_code == code, result.output
    return result.output


def answered(*lines: str) -> Callable[[str], str]:
    """One line per prompt that is not the pause before a section; then the end of the input."""
    left = iter(lines)

    def ask(prompt: str) -> str:
        if "Enter --" in prompt:
            return ""
        line = next(left, None)
        if line is None:
            raise EOFError
        return line

    return ask


def run(number: int, *lines: str, worked: bool = False) -> tuple[str, int]:
    out = io.StringIO()
    stdout, sys.stdout = sys.stdout, out
    try:
        console = Console(file=out, width=100)
        code = terminal.run(number, worked=worked, console=console, ask=answered(*lines))
    finally:
        sys.stdout = stdout
    return out.getvalue(), code


def test_the_list_names_every_lesson_with_its_minutes() -> None:
    text = learn()
    for entry in lessons():
        row = next(r for r in text.splitlines() if r.split()[:1] == [str(entry.number)])
        assert entry.title in row
        assert row.endswith(str(entry.minutes))
    assert "pullback learn 6 --notebook" in text
    assert len(lessons()) <= len(ENTRIES)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_worked_lesson_asks_nothing_and_passes_every_check(number: int) -> None:
    text, code = run(number, worked=True)
    assert code == 0
    assert "This cell stopped" not in text
    assert "Your prediction" not in text
    assert "exercises answered" in text
    told = text.rpartition("predictions held, ")[2].split()
    assert told[0] == told[2]


def test_an_input_that_ends_goes_on_as_if_enter_were_pressed() -> None:
    text = learn("1", typed="")
    assert "0 of 4 predictions held, 0 of 2 exercises answered" in text
    assert "assert " not in text


def test_a_learner_predicts_answers_wrong_and_answers_right() -> None:
    text, code = run(
        1,
        *("b", "z", "c"),  # the second prediction twice: z is no option
        "",
        "c)",
        SIZE,
        "    return sum(out_shape) + sum(inp_shape)",
        "",
        "import math",
        "jacobian_size = lambda a, b: math.prod(a) * math.prod(b)",
        "mine = torch.ones(2, 2)",
        "",
        "",
    )
    assert code == 0
    assert "It is b) w = 1. You saw it coming." in text
    assert "'z' is none of a/b/c." in text
    assert "You said c)." in text
    assert "Not yet." in text
    assert "Hint: J has a row per output entry" in text
    assert "Right. Tried on 5 inputs." in text
    assert "in (2, 2), out (2, 2)" in text
    assert "2 of 4 predictions held, 1 of 2 exercises answered" in text


def test_s_shows_the_solution_and_q_leaves() -> None:
    text, code = run(1, "", "", "", "", "s", "", "q")
    assert code == 0
    assert "torch.Size(out_shape).numel()" in text
    assert "Right." in text
    assert text.rstrip().endswith("Left lesson 1. `pullback learn 1` starts it again.")


def test_an_answer_is_read_from_a_file_or_written_in_an_editor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(f"import math\n\n{SIZE}\n    return math.prod(out_shape + inp_shape)\n")
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text()\n"
        "assert '...  # your code' in text\n"
        "path.write_text(text.replace('...', 'return sum(out_shape) + 0'))\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    text, _ = run(1, "", "", "", "", f"f {tmp_path / 'none.py'}", "e", f"f {answer}")
    assert f"{tmp_path / 'none.py'} cannot be read: FileNotFoundError" in text
    assert text.index("Not yet.") < text.index("Right. Tried on 5 inputs.")
    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    text, _ = run(1, "", "", "", "", "e")
    assert "The editor '/nowhere/editor' did not run" in text
    assert "Set EDITOR to one that does, or name a file: f answer.py" in text


def test_errors_of_the_learner_are_told_in_a_line() -> None:
    text, code = run(1, "", "", "", "", "1 +* 2", "jacobian_size = nothing", "x = (1 +", "", "")
    assert code == 0
    assert "SyntaxError: invalid syntax" in text
    assert "NameError: name 'nothing' is not defined" in text
    assert "That statement was not finished; begin it again." in text
    assert "Traceback" not in text


def test_tensors_of_the_learner_that_do_not_fit_stop_a_cell_and_not_the_lesson() -> None:
    text, code = run(1, "", "", "", "", "", "mine = torch.ones(2, 2, 2)", "oops", "", "")
    assert code == 1
    assert "NameError: name 'oops' is not defined" in text
    assert "This cell stopped: RuntimeError" in text
    assert "Lesson 1: 0 of 4 predictions held" in text


def test_control_c_leaves() -> None:
    def ask(prompt: str) -> str:
        raise KeyboardInterrupt

    console = Console(file=io.StringIO())
    assert terminal.run(1, console=console, ask=ask) == 0
    assert "Left lesson 1." in console.file.getvalue()  # type: ignore[attr-defined]


def test_notebooks_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    text = learn("6", "--notebook", "--out", str(tmp_path / "new"))
    path = tmp_path / "new" / "06_weighing.ipynb"
    assert text == f"Notebook written to {path}\n"
    assert json.loads(path.read_text(encoding="utf-8"))["nbformat"] == 4
    assert "may hold your answers" in learn("6", "--notebook", "--out", str(path.parent), code=2)
    learn("--notebook", "--out", str(tmp_path / "all"))
    assert len(list((tmp_path / "all").glob("*.ipynb"))) == len(NUMBERS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["99"], f"pullback learn: there is no lesson 99; there are {', '.join(map(str, NUMBERS))}. `pullback learn` lists them."),
        (["0", "--notebook"], "there is no lesson 0"),
        (["--worked"], "pullback learn: --worked goes with the number of a lesson, as in `pullback learn 6 --worked`."),
        (["6", "--out", "x"], "pullback learn: --out is the folder of a notebook; add --notebook, or leave --out away."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_remedy(words: list[str], said: str) -> None:
    assert said in learn(*words, code=2)


def test_a_lesson_quotes_its_own_lines() -> None:
    """Under ``pb.trace`` the cells are a program of the learner's, with a name and lines."""
    from pullback.lessons.running import Runner
    from pullback.lessons.source import parse

    text = (
        "# %%\nimport torch\nimport pullback as pb\nx = torch.ones(2, requires_grad=True)\n"
        "# %%\nwith pb.trace():\n    y = x.exp()\nrecord = pb.record(y, torch.ones(2))\n"
    )
    source = parse(text, "sample")
    runner = Runner(source)
    for cell in source.cells:
        runner.run(cell)
    assert "sample.py:7  x.exp()" in str(runner.names["record"])
