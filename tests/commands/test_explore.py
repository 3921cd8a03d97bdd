"""``pullback explore``: what it makes of a file, and how it starts and stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pullback.commands.explore import Request, run, seen_at, tutorial


def test_the_arguments_are_leaves_by_the_names_of_the_parameters() -> None:
    def residual(state: Tensor, rate: Tensor, index: Tensor) -> Tensor:
        return (state * rate)[index]

    given = torch.arange(4.0)
    seen = seen_at(residual, (given, torch.tensor(2.0), torch.tensor([0, 2])))
    assert list(seen.record.deposits) == ["state", "rate"]
    assert seen.record.deposits["state"].tolist() == [2.0, 0.0, 2.0, 0.0]
    assert not given.requires_grad


def test_parameters_of_a_module_are_leaves_too() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    seen = seen_at(model, (torch.ones(1, 2),))
    assert {leaf.label for leaf in seen.record.leaves} == {"input", "0.weight", "0.bias"}
    assert all(p.grad is None for p in model.parameters())


def test_several_outputs_and_those_without_a_graph() -> None:
    seen = seen_at(lambda x: {"a": x.exp(), "b": x > 0, "c": x.sum()}, (torch.ones(2),))
    assert [output.shape for output in seen.record.outputs] == [(2,), ()]


def test_the_tutorial_can_be_edited() -> None:
    document = tutorial().record.document()
    assert document["title"] == "out"
    seen = tutorial()
    assert seen.record.document()["basis"]["kind"] == "elements"


PROGRAM = """
import torch
def f(x):
    return (x * x).sin()
def f_sample():
    return torch.ones(2, 3)
def text(x):
    return "no tensor"
def text_sample():
    return torch.ones(2)
def broken(x):
    return x @ torch.ones(7)
def broken_sample():
    return torch.ones(2)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_a_function_without_a_tensor_is_refused(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Request(f"{program}:text", opened=False)) == 2
    assert capsys.readouterr().err == (
        "pullback explore: the function returned a str, and no tensor; return the tensors whose "
        "backward is to be seen.\n"
    )


def test_a_function_that_fails_shows_its_own_line(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Request(f"{program}:broken", opened=False)) == 1
    assert "return x @ torch.ones(7)" in capsys.readouterr().err


def test_a_missing_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Request("nowhere.py:f", opened=False)) == 2
    assert capsys.readouterr().err.startswith("pullback explore: ")


@pytest.mark.parametrize("target", ["", "f"])
def test_it_serves_until_ctrl_c(program: Path, target: str) -> None:
    command = [sys.executable, "-u", "-m", "pullback", "explore", "--no-browser"]
    command += [f"{program}:{target}"] if target else []
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, the shell has told its children to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", line)
        assert found, line
        with urllib.request.urlopen(found[0], timeout=30) as answer:
            assert b'id="explorer"' in answer.read()
        os.kill(started.pid, signal.SIGINT)
        _, errors = started.communicate(timeout=30)
        assert (started.returncode, errors) == (0, "")
    finally:
        started.kill()
        started.communicate()
