"""``pullback step``: its orders, and what it does with what it cannot do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import pullback as pb
from pullback.cli import app
from pullback.commands.orders import HELP, obey
from pullback.commands.passes import tutorial

RUNNER = CliRunner()


@pytest.fixture
def stepper() -> pb.Stepper:
    found = tutorial()
    return pb.step(found.outputs, found.cotangents, inputs=found.inputs)


def test_the_orders_walk_the_tutorial(stepper: pb.Stepper) -> None:
    assert obey(stepper, "n").splitlines() == [
        "TBackward0 #0  exercise.py:9  (inp + 10).pow(3).t()",
        "  received (5, 4), norm 2",
        "  sent (4, 5), norm 2 to PowBackward0 #1",
        "next: PowBackward0 #1",
    ]
    assert obey(stepper, "c").splitlines() == [
        "to PowBackward0 #1:",
        "  (4, 5), norm 2 from TBackward0 #0",
    ]
    first, *values = obey(stepper, "up").splitlines()
    assert first == "PowBackward0 #1 receives (4, 5), norm 2"
    assert len(values) == 4
    assert obey(stepper, "up 0").startswith("TBackward0 #0 received (5, 4), norm 2\n")
    assert obey(stepper, "up 3") == "inp (leaf) #3 receives nothing"
    assert obey(stepper, "u norm 10").endswith("next: AddBackward0 #2")
    assert obey(stepper, "b 2") == "next: TBackward0 #0"
    assert obey(stepper, "c").endswith("from the cotangent of output 0")
    assert obey(stepper, "u op pow").endswith("next: PowBackward0 #1")
    assert obey(stepper, "u op pow") == "No such node is left.\nnext: PowBackward0 #1"
    assert obey(stepper, "u nonfinite").endswith("It was not met.\nthe pass is over")
    told = obey(stepper, "f")
    assert "[363.,   0.,   0.,   0.,   0.]" in told
    assert told.endswith("1 deposit; no .grad was touched.")
    assert obey(stepper, "c") == "the pass is over"
    assert obey(stepper, "s") == str(stepper)
    assert obey(stepper, "h") == HELP


@pytest.mark.parametrize(
    ("order", "factor"), [("e *2", 2.0), ("e * -0.5", -0.5), ("e zero", 0.0), ("e slot 0 *3", 3.0)]
)
def test_an_edit_scales(stepper: pb.Stepper, order: str, factor: float) -> None:
    obey(stepper, "u op pow")
    assert obey(stepper, order).endswith(" (edited)")
    expected = torch.zeros(4, 5)
    expected[:, 0] = factor * torch.tensor([363.0, 300, 300, 300])
    assert torch.equal(stepper.finish()["inp"], expected)


def test_an_edit_of_numbers(stepper: pb.Stepper) -> None:
    obey(stepper, "e " + " ".join(map(str, range(20))))
    assert torch.equal(stepper.upstream(), torch.arange(20.0).reshape(5, 4))
    obey(stepper, f"e {list(range(20))}")
    assert torch.equal(stepper.upstream(), torch.arange(20.0).reshape(5, 4))
    obey(stepper, "e 1e-3")
    assert torch.equal(stepper.upstream(), torch.full((5, 4), 1e-3))
    obey(stepper, "e nan")
    assert stepper.upstream().isnan().all()


FORM_OF_E = "write it so: e *2, e zero, e 1 0 0.5, or e slot 1 *2"


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("x", "there is no 'x' here; h lists what there is."),
        ("n many", "write it so: n, or n 3"),
        ("u", "write it so: u nonfinite, u norm 10, u op Exp, u line 12, or u line model.py:12"),
        ("u norm ten", "write it so: u norm 10"),
        ("up x", "write it so: up, up 3, or up 3 0: the number of a node, and of its slot"),
        ("e", FORM_OF_E),
        ("e *x", FORM_OF_E),
        ("e ,", FORM_OF_E),
        (
            "e 1 1j",
            "2 numbers were given, but the cotangent has 20; give so many, in C order, or one for all.",
        ),
        ("e 1j", FORM_OF_E),
        ("e __import__('os')", FORM_OF_E),
        ("b", "stepper.back: nothing has been done yet: this is the start of the pass."),
    ],
)
def test_what_cannot_be_done_is_said(stepper: pb.Stepper, order: str, text: str) -> None:
    with pytest.raises(pb.PullbackError, match=f"^{re.escape(text)}$"):
        obey(stepper, order)
    assert stepper.node is stepper.nodes[0]
    assert stepper.upstream().sum() == 4


def test_a_transcript_of_a_pipe() -> None:
    """Errors end nothing; the end of the input does."""
    result = RUNNER.invoke(app, ["step"], input="u op pow\nwhat\n\ne 1 2\ne *2\nf\n")
    assert result.exit_code == 0
    assert "(step) what\nthere is no 'what' here; h lists what there is.\n" in result.output
    assert "(step) e 1 2\n2 numbers were given" in result.output
    assert "[726.,   0.,   0.,   0.,   0.]" in result.output
    assert result.output.endswith("(step) \n")


def test_q_leaves_at_once() -> None:
    result = RUNNER.invoke(app, ["step"], input="q\nn\n")
    assert result.exit_code == 0
    assert "TBackward0 #0\n  received" not in result.output


PROGRAM = """
import torch
class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, grad):
        raise ValueError("mine")
def fails(x):
    return Fails.apply(x).sum()
def broken(x):
    return x @ torch.ones(7)
def sample():
    return torch.ones(2)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_a_backward_that_fails_ends_nothing(program: Path) -> None:
    result = RUNNER.invoke(app, ["step", f"{program}:fails"], input="n\nn\nc\nb\ns\n")
    assert result.exit_code == 0
    assert 'raise ValueError("mine")\nValueError: mine' in result.output
    assert "to FailsBackward #1:\n" in result.output
    assert result.output.count("next: SumBackward0 #0") == 1


def test_the_exit_codes_of_what_cannot_begin(program: Path) -> None:
    failed = RUNNER.invoke(app, ["step", f"{program}:broken"])
    assert failed.exit_code == 1
    assert "return x @ torch.ones(7)" in failed.output
    refused = RUNNER.invoke(app, ["step", f"{program}:nothing"])
    assert refused.exit_code == 2
    assert refused.output.startswith("pullback step: ")
    assert RUNNER.invoke(app, ["step", "nowhere.py:f"]).exit_code == 2


def test_at_a_point_in_a_file(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    program.write_text("def f(state):\n    return (state * state).sum()\n")
    torch.save(torch.tensor([3.0, 4.0]), path)
    done = subprocess.run(
        [sys.executable, "-m", "pullback", "step", f"{program}:f", "--at", str(path)],
        input="f\n",
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stderr == ""
    assert "state: (2,), norm 10\ntensor([6., 8.])\n" in done.stdout


def test_complex_numbers_where_they_fit() -> None:
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    out: Tensor = z * 1
    stepper = pb.step(out, torch.ones_like(out))
    obey(stepper, "e 1+2j 3")
    assert stepper.upstream().tolist() == [1 + 2j, 3]
