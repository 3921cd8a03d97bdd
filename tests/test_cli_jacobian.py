"""``pullback jacobian``, run as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from typer.testing import CliRunner

import pullback as pb
from pullback.cli import app
from pullback.commands import stages as stages_module
from pullback.commands.jacobian import statistics
from pullback.commands.stages import Stages, seconds_text

RUNNER = CliRunner()
PROBLEM = '''
"""A user's file."""
import torch
from beside import SCALE
MAIN = __name__ == "__main__"


def residual(x, k=SCALE):
    return (x[1:] - x[:-1]) ** 2 * k


def residual_sample():
    return torch.linspace(0, 1, 12, dtype=torch.float64) ** 2


def weighed(a, b):
    return {"p": a * b, "q": (a[0] * b).sum()}


def sample():
    return torch.arange(1.0, 5.0), torch.arange(2.0, 6.0)


def fails(x):
    return inner(x.sin())


def inner(y):
    return y @ torch.ones(99)


fails_sample = torch.ones(4)


class Clamps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-1, 1)


def crooked(x):
    return Clamps.apply(x)


crooked_sample = whole_sample = fails_sample
whole = lambda x: x.sum() * x
linear = torch.nn.Linear(4, 3)
linear_sample = torch.ones(4)
constant = 3
integers = lambda x: x
integers_sample = torch.arange(4)
nothing_sample = ()
nothing = lambda: torch.ones(1)


def of_a_dict(params):
    return params["w"] * params["b"]


def without_data(x):
    return x


def without_data_sample():
    raise KeyError("data.csv")


def zeros(x):
    return torch.stack([x[0] * x[1], x[2].log()])


zeros_sample = torch.zeros(3)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the command runs: a user's file, a neighbor of it, and no trace of them afterwards."""
    (tmp_path / "problem.py").write_text(PROBLEM)
    (tmp_path / "beside.py").write_text("SCALE = 2.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name in ("problem", "beside", "broken", "taken", "quits", "tokenize_"):
            del sys.modules[name]


def call(*words: str, code: int = 0) -> str:
    """What the command printed, white space as one space, refusals included."""
    result = RUNNER.invoke(app, ["jacobian", *words])
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output).strip()


def differences(n: int = 12) -> Any:
    """The Jacobian of ``residual`` at its sample, by hand: 2 k (x[i+1] - x[i]) on two diagonals."""
    x = np.linspace(0, 1, n) ** 2
    d = 4 * np.diff(x)
    J = np.zeros((n - 1, n))
    J[np.arange(n - 1), np.arange(n - 1)] = -d
    J[np.arange(n - 1), np.arange(1, n)] = d
    return J


@pytest.mark.parametrize("layout", ["csr", "coo"])
def test_npz_is_read_by_scipy(layout: str) -> None:
    call("problem.py:residual", "--out", "new/J.npz", "--layout", layout)
    J = scipy.sparse.load_npz("new/J.npz")
    assert J.format == layout
    assert J.nnz == 22
    np.testing.assert_allclose(J.toarray(), differences(), rtol=1e-14)


def test_mtx_is_read_by_scipy_to_the_last_digit() -> None:
    call("problem.py:residual", "--out", "J.mtx")
    call("problem.py:residual", "--out", "J.npz")
    assert (scipy.io.mmread("J.mtx").toarray() == scipy.sparse.load_npz("J.npz").toarray()).all()


@pytest.mark.parametrize(("layout", "kind"), [("csr", torch.sparse_csr), ("coo", torch.sparse_coo)])
def test_pt_is_read_by_torch(layout: str, kind: torch.layout) -> None:
    call("problem.py:residual", "--out", "J.pt", "--layout", layout)
    J = torch.load("J.pt", weights_only=True)
    assert J.layout is kind
    np.testing.assert_allclose(J.to_dense().numpy(), differences(), rtol=1e-14)


def test_strided_has_the_shape_of_jacrev() -> None:
    call("problem.py:weighed", "--out", "J.pt", "--layout", "strided", "--argnums", "0,1")
    found = torch.load("J.pt", weights_only=True)
    a, b = torch.arange(1.0, 5.0), torch.arange(2.0, 6.0)
    expected = torch.func.jacrev(lambda a, b: {"p": a * b, "q": (a[0] * b).sum()}, (0, 1))(a, b)
    torch.testing.assert_close(found, expected)


def test_stored_zeros_are_written_and_counted() -> None:
    printed = call("problem.py:zeros", "--out", "J.npz")
    J = scipy.sparse.load_npz("J.npz")
    assert J.nnz == 3
    assert "3 entries stored, 2 of them zero here, 1 not finite; largest |entry| 0" in printed


@pytest.mark.parametrize("layout", ["csr", "coo", "strided"])
def test_statistics_count_what_is_there(layout: str) -> None:
    dense = torch.tensor([[0.0, -7.5, 0.0], [2.0, 0.0, float("nan")]])
    kinds = {"csr": dense.to_sparse_csr(), "coo": dense.to_sparse().coalesce(), "strided": dense}
    stored, zero = (6, 3) if layout == "strided" else (3, 0)
    assert statistics(kinds[layout], layout) == (
        f"  {stored} entries stored, {zero} of them zero here, 1 not finite; largest |entry| 7.5"
    )


def test_statistics_of_nothing() -> None:
    assert statistics(torch.zeros(0, 3).to_sparse().coalesce(), "coo") == (
        "  0 entries stored, 0 of them zero here"
    )


def test_the_plan_and_the_times_are_printed() -> None:
    printed = call("problem.py:residual", "--verify")
    assert printed.startswith(
        "residual of problem.py, at residual_sample() of problem.py x: (12,) float64, differentiated study "
    )
    for text in (
        r"Plan 11 × 12: 1 product instead of 11, mode rev, lifted 1 VJP of the part that varies; at least 2 products without lifting; each value is one entry of a product",
        r"⠙⢦",
        r"color [\d.]+ m?s",
        r"evaluate [\d.]+ m?s engine replay; a second call takes [\d.]+ m?s 22 entries stored, 0 of them zero here; largest \|entry\| 0\.6942",
        r"verify [\d.]+ m?s the matrix agrees with autograd on random vectors, here and near by",
    ):
        assert re.search(text, printed), (text, printed)


def test_nothing_is_written_unasked(folder: Path) -> None:
    before = {p.name for p in folder.iterdir()}
    call("problem.py:residual")
    assert {p.name for p in folder.iterdir()} - {"__pycache__"} == before


def test_a_picture_lies_beside_the_matrix_or_where_it_is_asked_for(folder: Path) -> None:
    call("problem.py:residual", "--out", "J.npz")
    assert (folder / "J.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    call("problem.py:residual", "--out", "K.npz", "--spy", "pictures/spy.svg")
    assert "<svg" in (folder / "pictures" / "spy.svg").read_text()
    assert not (folder / "K.png").exists()


@pytest.mark.parametrize("mode", ["fwd", "rev", "mixed", "dense"])
def test_every_mode_gives_the_matrix_and_a_picture(mode: str) -> None:
    printed = call("problem.py:residual", "--mode", mode, "--out", "J.npz")
    assert f"mode {mode}" in printed
    np.testing.assert_allclose(scipy.sparse.load_npz("J.npz").toarray(), differences(), rtol=1e-14)


def test_a_plan_file_is_made_and_used_again() -> None:
    first = call("problem.py:residual", "--plan", "plan.npz")
    assert "plan written to plan.npz" in first
    assert pb.Plan.load("plan.npz").num_products == 1
    again = call("problem.py:residual", "--plan", "plan.npz", "--out", "J.npz")
    assert "plan read from plan.npz" in again
    assert "study" not in again
    np.testing.assert_allclose(scipy.sparse.load_npz("J.npz").toarray(), differences(), rtol=1e-14)


def test_a_plan_file_that_does_not_fit_is_refused() -> None:
    call("problem.py:residual", "--plan", "plan.npz")
    assert call("problem.py:residual", "--plan", "plan.npz", "--mode", "fwd", code=2) == (
        "residual of problem.py, at residual_sample() of problem.py x: (12,) float64, differentiated "
        "pullback jacobian: --plan plan.npz is there already, and of mode rev, not fwd. Name a file "
        "that is not there, and the plan of mode fwd is made and written to it; or leave --mode out."
    )
    refused = call("problem.py:whole", "--plan", "plan.npz", code=2)
    assert "pullback jacobian: the plan was made for `x` of shape (12,)" in refused


def test_verify_finds_a_plan_that_is_wrong(folder: Path) -> None:
    x = torch.ones(4)
    narrow = pb.plan_jacobian(lambda x: x.sum() * x, x, pattern=torch.eye(4, dtype=torch.bool))
    narrow.save("plan.npz")
    assert "mode" in call("problem.py:whole", "--plan", "plan.npz")
    said = call("problem.py:whole", "--plan", "plan.npz", "--verify", code=1)
    assert "pullback jacobian: verify: the plan is wrong at entry (" in said


def saved(value: Any) -> str:
    torch.save(value, "x.pt")
    return "x.pt"


X = torch.linspace(0, 1, 12, dtype=torch.float64) ** 2


@pytest.mark.parametrize(
    "point", [X, (X,), [X, 2.0], {"x": X}, {"k": 2.0, "x": X}], ids=lambda p: type(p).__name__
)
def test_every_form_of_a_point(point: Any) -> None:
    printed = call("problem.py:residual", "--at", saved(point), "--out", "J.npz")
    assert "residual of problem.py, at x.pt x: (12,) float64, differentiated" in printed
    np.testing.assert_allclose(scipy.sparse.load_npz("J.npz").toarray(), differences(), rtol=1e-14)


def test_a_dict_by_name_passes_other_values() -> None:
    call("problem.py:residual", "--at", saved({"x": X, "k": 6.0}), "--out", "J.npz")
    J = scipy.sparse.load_npz("J.npz").toarray()
    np.testing.assert_allclose(J, 3 * differences(), rtol=1e-14)


def test_a_dict_that_names_no_parameters_is_the_argument() -> None:
    w, b = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0])
    call("problem.py:of_a_dict", "--at", saved({"w": w, "b": b}), "--out", "J.npz")
    # Leaves stand in the order in which the dict was filled, as everywhere in pytrees.
    J = scipy.sparse.load_npz("J.npz").toarray()
    np.testing.assert_array_equal(J, np.hstack([np.diag(b), np.diag(w)]))


def test_a_module_and_a_value_as_sample() -> None:
    printed = call("problem.py:linear", "--out", "J.npz")
    assert "linear of problem.py, at linear_sample of problem.py" in printed
    assert scipy.sparse.load_npz("J.npz").shape == (3, 4)


def test_the_shared_sample_is_the_second_choice() -> None:
    assert "at sample() of problem.py" in call("problem.py:weighed", "--argnums", "1")


REFUSALS = {
    "problem.py": "'problem.py' names no function of a file; write FILE.py:FUNC, such as problem.py:residual.",
    ":f": "':f' names no function of a file; write FILE.py:FUNC, such as :f:residual.",
    "missing.py:f": "there is no file missing.py; give the path of FILE.py.",
    ".:f": "FILE.py . is a folder; name a file.",
    "problem.py:constant": "'constant' of problem.py is an int, which cannot be called. Name a function, or an object such as an nn.Module.",
    "problem.py:integers": "`x` has dtype int64, and only floating point and complex tensors can be differentiated. Convert it with .float() or .double(), or close over it: lambda x: func(x, x).",
    "problem.py:nothing": "nothing_sample of problem.py gives no arguments; give a tensor, or a tuple of all arguments.",
    "problem.py:residual --argnums one": "--argnums is 'one'; it must be a position such as 0, or several such as 0,2.",
    "problem.py:residual --argnums ,": "--argnums is ','; it must be a position such as 0, or several such as 0,2.",
    "problem.py:residual --mode up": "`--mode` is 'up'; it must be 'auto' or 'fwd' or 'rev' or 'mixed' or 'dense'.",
    "problem.py:residual --layout csc": "`--layout` is 'csc'; it must be 'csr' or 'coo' or 'strided'.",
    "problem.py:residual --out J.csv": "--out J.csv ends in '.csv'; the ending chooses the format, and must be .npz, .pt or .mtx.",
    "problem.py:residual --out J": "--out J ends in 'nothing'; the ending chooses the format, and must be .npz, .pt or .mtx.",
    "problem.py:residual --out .": "--out . is a folder; name a file.",
    "problem.py:residual --spy a.txt": "--spy a.txt ends in '.txt'; the ending chooses the format, and must be .png, .svg or .pdf.",
    "problem.py:residual --out J.npz --layout strided": "--layout strided does not fit --out J.npz: .npz holds sparse matrices. Write --out J.pt, or choose --layout csr or coo.",
    "problem.py:residual --out a.npz --plan a.npz": "--plan and --out both name a.npz; give each its own.",
    "problem.py:residual --at a.pt --out a.pt": "--at and --out both name a.pt; give each its own.",
    "problem.py:residual --at a.pt": "there is no file a.pt; give the path of --at.",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSALS)
def test_refusals(words: str, folder: Path) -> None:
    before = {p.name for p in folder.iterdir()}
    assert call(*words.split(), code=2) == f"pullback jacobian: {REFUSALS[words]}"
    assert {p.name for p in folder.iterdir()} - {"__pycache__"} == before


def test_a_function_that_is_not_there_is_answered_with_those_that_are() -> None:
    said = call("problem.py:residuum", code=2)
    assert said.startswith(
        "pullback jacobian: problem.py defines no 'residuum'. Functions that it defines: residual, residual_sample, weighed, "
    )
    assert "Linear" not in said


def test_no_point() -> None:
    Path("alone.py").write_text("def f(x):\n    return x\n")
    assert call("alone.py:f", code=2) == (
        "pullback jacobian: at which point? Pass --at x.pt, a file written by torch.save(x, 'x.pt'), "
        "or define in alone.py a function f_sample() or sample() that returns the arguments of f: a "
        "tensor, or a tuple of all of them."
    )


class Trap:
    """Unpickling one writes a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_a_point_file_is_never_executed(folder: Path) -> None:
    said = call("problem.py:residual", "--at", saved(Trap()), code=2)
    assert said.startswith("pullback jacobian: --at x.pt cannot be read: UnpicklingError:")
    assert said.endswith(
        "of a tensor, a tuple or list of arguments, or a dict: torch.save(x, 'x.pt')."
    )
    assert not (folder / "executed").exists()


def test_a_file_of_junk_is_no_point() -> None:
    Path("x.pt").write_bytes(b"junk" * 20)
    assert "--at x.pt cannot be read" in call("problem.py:residual", "--at", "x.pt", code=2)


def test_a_point_of_half_precision_is_written_for_torch_alone() -> None:
    at = saved(X.bfloat16())
    said = call("problem.py:residual", "--at", at, "--out", "J.npz", code=2)
    assert said.endswith(
        "pullback jacobian: the entries are of dtype bfloat16, which SciPy's sparse matrices do not "
        "hold, so J.npz cannot be written. Write --out J.pt, or give a point of float32 or float64."
    )
    call("problem.py:residual", "--at", at, "--out", "J.pt")
    assert torch.load("J.pt", weights_only=True).dtype is torch.bfloat16


def test_the_users_exception_ends_with_the_users_lines() -> None:
    said = call("problem.py:fails", code=1)
    assert "Traceback (your lines): File" in said
    lines = re.findall(r'File "([^"]*)", line \d+, in (\w+)', said)
    assert [(Path(file).name, name) for file, name in lines] == [
        ("problem.py", "fails"),
        ("problem.py", "inner"),
    ]
    assert re.search(r"RuntimeError: [^:]*size[^:]*\[?4", said)
    assert "No line of yours" not in said


def test_traceback_shows_the_library_too() -> None:
    result = RUNNER.invoke(app, ["jacobian", "problem.py:fails", "--traceback"])
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


def test_an_exception_in_the_sample() -> None:
    said = call("problem.py:without_data", code=1)
    assert said.endswith("KeyError: 'data.csv'")
    assert "without_data_sample" in said


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("def f(x)\n    return x\n", "SyntaxError: expected ':'"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported(text: str, end: str) -> None:
    Path("broken.py").write_text(text)
    said = call("broken.py:f", code=1)
    assert said.endswith(end)
    assert "importlib" not in said
    assert "No line of yours" not in said
    assert "broken" not in sys.modules


def test_a_refusal_of_the_function_is_told_in_words() -> None:
    said = call("problem.py:crooked", code=2)
    assert "pullback jacobian: the backward is not linear in its cotangent" in said
    assert "Traceback" not in said


def test_the_file_is_a_module_beside_its_neighbors_and_not_main() -> None:
    call("problem.py:residual")
    assert sys.modules["problem"].MAIN is False
    assert "beside" in sys.modules


def test_a_file_named_as_a_module_that_is_there_does_not_replace_it() -> None:
    Path("numpy.py").write_text(
        "import torch\ndef f(x):\n    return x * x\nsample = torch.ones(3)\n"
    )
    assert "Plan 3 × 3" in call("numpy.py:f")
    assert sys.modules["numpy"] is np


def test_help_names_every_option_and_the_exit_codes() -> None:
    text = re.sub(r"[│\s]+", " ", call("--help"))
    for word in (
        "--at", "--out", "--plan", "--spy", "--layout", "--mode", "--argnums", "--verify",
        "FUNC_sample() or sample()", "Exit code: 0 done",
    ):  # fmt: skip
        assert word in text


def test_the_command_prints_where_the_terminal_lacks_braille() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pullback"), "jacobian", "problem.py:residual"],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "latin-1", "PATH": ""},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"Plan 11 \xd7 12" in done.stdout
    assert b"????" in done.stdout


def test_seconds() -> None:
    for seconds, text in (
        (0.0, "0.0 ms"), (0.00994, "9.9 ms"), (0.00996, "10 ms"), (0.994, "994 ms"),
        (0.996, "1.00 s"), (9.99, "9.99 s"), (9.996, "10.0 s"), (99.96, "100 s"),
    ):  # fmt: skip
        assert seconds_text(seconds) == text


class FakeTerminal:
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "lasts", "moves"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_moving_line_only_on_a_terminal_and_only_when_it_lasts(
    terminal: bool,
    lasts: bool,
    moves: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = FakeTerminal()
    made = stages_module.Console
    monkeypatch.setattr(
        stages_module, "Console", lambda stderr: made(file=screen, force_terminal=terminal)
    )
    stages = Stages(patience=0.02 if lasts else 60)
    with stages.stage("color", "color: choosing"):
        time.sleep(0.3 if lasts else 0)
    assert ("color: choosing" in screen.text) is moves
    assert re.fullmatch(r"color     [\d.]+ m?s\n", capsys.readouterr().out)


def test_a_stage_that_fails_stops_its_line_and_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages = Stages(patience=0.0)
    with pytest.raises(KeyError), stages.stage("color", "color"):
        raise KeyError("x")
    assert capsys.readouterr().out == ""
    assert stages.seconds == {}
