"""``pullback run``: the script stays what it is, and the summary says what happened to gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from pullback.commands.run import Request, run

PLAIN = """
import atexit
import pickle
import sys
import torch
from torch import nn
import neighbour

torch.manual_seed(0)
print(__name__, sys.argv[1:], neighbour.VALUE, sys.argv[0])
net = nn.Linear(3, 2)
optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    net(torch.randn(4, 3)).pow(2).mean().backward()
    optimizer.step()
print(net.weight.tolist())
print("to stderr", file=sys.stderr)


class Kept:
    pass


atexit.register(lambda: print(len(pickle.dumps(Kept()))))
e = torch.ones(3, requires_grad=True).exp()
e += 1
e.sum().backward()
"""


def written(folder: Path, source: str, name: str = "program.py") -> Path:
    (folder / "neighbour.py").write_text("VALUE = 7\n")
    path = folder / name
    path.write_text(dedent(source).lstrip())
    return path


def line_of(path: Path, mark: str) -> str:
    found = [k for k, text in enumerate(path.read_text().splitlines(), 1) if mark in text]
    assert len(found) == 1
    return f"{path.name}:{found[0]}"


def ran(
    folder: Path, source: str, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """The exit code, standard output, and what stands on standard error on one line."""
    code = run(Request(written(folder, source), arguments))
    told = capsys.readouterr()
    return code, told.out, told.err.replace("\n  ", " ")


def test_output_traceback_and_exit_code_are_those_of_python(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    arguments = [str(path), "--quiet", "-x", "3"]
    found = [
        subprocess.run([sys.executable, *how, *arguments], capture_output=True, text=True)
        for how in ([], ["-m", "pullback", "run"])
    ]
    python, pullback = found
    assert pullback.stdout == python.stdout
    assert pullback.stdout.splitlines()[-1].isdigit()
    assert "['--quiet', '-x', '3'] 7" in pullback.stdout
    assert pullback.returncode == python.returncode == 1
    assert pullback.stderr.startswith(python.stderr)
    added = pullback.stderr[len(python.stderr) :]
    assert "modified in place" in added
    assert "e = e + 1" in added
    assert "what happened to the gradients" in added


def test_warnings_are_told_at_the_lines_of_the_script(tmp_path: Path) -> None:
    source = """
    import warnings
    import torch
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    print(y.grad)
    a = torch.tensor(x)
    b = torch.tensor(x)
    for _ in range(2):
        c = torch.tensor(x)
    warnings.warn("of the script's own")
    """
    path = written(tmp_path, source)
    python, pullback = (
        subprocess.run([sys.executable, *how, str(path)], capture_output=True, text=True)
        for how in ([], ["-m", "pullback", "run", "--quiet"])
    )
    assert python.stderr.count("UserWarning") == 5
    assert pullback.stderr == python.stderr


def test_leaves_of_one_iteration_go_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch, weakref
    w = torch.ones(100, requires_grad=True)
    refs = []
    for _ in range(20):
        x = torch.randn(100, requires_grad=True)
        for _ in range(2):
            w.grad = None
            (x * w).sum().backward()
        refs.append(weakref.ref(x))
    del x
    print(sum(ref() is not None for ref in refs))
    """
    _, out, told = ran(tmp_path, source, capsys)
    assert out == "0\n"
    assert "40 calls of the engine, 80 deposits on 21 leaves." in told


def test_a_hook_on_a_leaf_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = """
    import torch
    w = torch.ones(2, requires_grad=True)
    w.register_hook(lambda gradient: print("hook"))
    (w * 2).sum().backward()
    """
    assert ran(tmp_path, source, capsys)[1] == "hook\n"


def test_hooks_after_single_nodes_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    w = torch.ones(2, requires_grad=True)
    y = w * 2
    y.grad_fn.register_hook(lambda sent, received: print("hook"))
    y.sum().backward()
    """
    assert ran(tmp_path, source, capsys)[1] == "hook\n"


def test_a_sound_training_loop_has_nothing_to_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = ran(
        tmp_path, PLAIN.partition("e = torch")[0].replace("atexit.register", ""), capsys
    )
    assert code == 0
    assert "3 calls of the engine, 6 deposits on 2 leaves." in told
    headings = [line for line in told.splitlines() if line.startswith("---")]
    assert headings == []


def test_leaves_that_never_got_a_gradient_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)
            self.gate = nn.Parameter(torch.ones(1))
            self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        def forward(self, x):
            return self.used(x) * self.gate.detach() * self.frozen

    def main():
        net = Net()
        for _ in range(3):
            net(torch.ones(1, 2)).sum().backward()

    main()
    """
    code, _, told = ran(tmp_path, source, capsys)
    assert code == 0
    assert "Never got a gradient: 3 leaves" in told
    cut = line_of(tmp_path / "program.py", "detach()")
    assert (
        f"gate [cut]: No gradient reaches gate: the way from the output to it is cut in {cut}"
        in told
    )
    assert "unused.weight, unused.bias [not_reached]" in told
    assert "frozen" not in told


def test_reads_that_gave_none_point_to_the_cut_or_the_rebinding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch, warnings
    warnings.simplefilter("ignore")
    x = torch.ones(2, requires_grad=True)
    x = x.to(torch.float64)  # rebound
    w = torch.ones(2, requires_grad=True)
    h = w.detach()  # cut
    (x * h).sum().backward()
    print(x.grad)  # first read
    print(w.grad)  # second read
    """
    _, out, told = ran(tmp_path, source, capsys)
    path = tmp_path / "program.py"
    assert out == "None\nNone\n"
    assert "Read .grad and got None: 2 lines" in told
    first, second = line_of(path, "first read"), line_of(path, "second read")
    assert f"{first} (`x.grad`) [rebound]" in told
    assert line_of(path, "# rebound") in told.partition(first)[2].partition(second)[0]
    assert f"{second} (`w.grad`) [cut]" in told
    assert line_of(path, "# cut") in told.partition(second)[2]


def test_a_missing_zero_grad_is_told_and_accumulation_on_purpose_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import sys
    import torch
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for k in range(8):
        net(torch.ones(1, 2)).sum().backward()  # backward
        if k % 2:
            optimizer.step()
            if "zero" in sys.argv:
                optimizer.zero_grad()
    """
    _, _, told = ran(tmp_path, source, capsys)
    where = line_of(tmp_path / "program.py", "# backward")
    assert "Accumulated without zeroing: 2 leaves" in told
    assert f"weight, bias: backward at {where} added to a gradient that a step had used" in told
    assert "3 times" in told
    _, _, told = ran(tmp_path, source, capsys, "zero")
    assert "Accumulated" not in told


def test_where_a_gradient_stopped_being_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    (x.sqrt() * torch.tensor([0.0, 1.0])).sum().backward()  # born
    """
    _, _, told = ran(tmp_path, source, capsys)
    assert f"In backward at {line_of(tmp_path / 'program.py', '# born')}" in told
    assert "[zero_times_infinity]" in told
    assert "1 leaf got a deposit that is not finite (x)" in told


def test_a_gradient_that_becomes_nan_later_is_asked_at_the_next_backward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    x = torch.tensor([1.0], requires_grad=True)
    for value in (1.0, 1.0, 0.0, 0.0):
        with torch.no_grad():
            x.fill_(value)
        x.grad = None
        x.sqrt().sum().backward()
    """
    _, _, told = ran(tmp_path, source, capsys)
    assert "[infinite_derivative]" in told


def test_a_running_sum_of_losses_is_named_with_its_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import sys
    import torch
    def train(keep):
        net = torch.nn.Linear(200, 1)
        total = 0.0
        for _ in range(12):
            loss = net(torch.randn(50, 200)).tanh().pow(2).mean()
            loss.backward(retain_graph=True)
            total = total + (loss if keep else loss.item())  # the sum
    train("keep" in sys.argv)
    """
    _, _, told = ran(tmp_path, source, capsys, "keep")
    assert "Graphs that stay" in told
    assert f"total (add at {line_of(tmp_path / 'program.py', '# the sum')}" in told
    assert "from 7 forward passes" in told
    size = int(told.partition("forward passes, ")[2].partition(" bytes")[0].replace(",", ""))
    assert size >= 7 * 50 * 200 * 4
    _, _, told = ran(tmp_path, source, capsys)
    assert "Graphs that stay" not in told


def test_an_unseen_writer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = """
    import torch
    x = torch.ones(2, requires_grad=True)
    x.sum().backward()
    x.grad.numpy()[0] = 5.0
    x.sum().backward()
    """
    _, _, told = ran(tmp_path, source, capsys)
    assert "Changed by somebody unseen: 1 change" in told


def test_hooks_and_custom_functions_run_as_often_as_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    class Loud(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2
        @staticmethod
        def backward(ctx, v):
            print("backward")
            return v * float("inf")
    x = torch.ones(2, requires_grad=True)
    Loud.apply(x).sum().backward()
    h = x * 2
    h.register_hook(lambda v: print("hook"))
    h.sum().backward()
    """
    _, out, told = ran(tmp_path, source, capsys)
    assert out == "backward\nhook\n"
    assert "would have run once more" in told


def test_gradients_and_random_numbers_are_bitwise_those_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"""
    import sys
    import torch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(3, 4)).pow(2).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
    torch.save([*net.state_dict().values(), torch.rand(3)], {str(tmp_path)!r} + "/" + sys.argv[1])
    """
    ran(tmp_path, source, capsys, "watched.pt")
    names = {"__name__": "__main__"}
    before, sys.argv = sys.argv, ["program.py", "plain.pt"]
    try:
        exec(compile(dedent(source), "plain", "exec"), names)
    finally:
        sys.argv = before
    watched, plain = (torch.load(tmp_path / f"{name}.pt") for name in ("watched", "plain"))
    assert all(torch.equal(a, b) for a, b in zip(watched, plain, strict=True))


@pytest.mark.parametrize(
    ("statement", "code"),
    [("sys.exit()", 0), ("sys.exit(4)", 4), ("sys.exit('no')", 1), ("raise KeyError(1)", 1)],
)
def test_exit_codes(
    statement: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _, told = ran(tmp_path, f"import sys\n{statement}\n", capsys)
    assert found == code
    assert "No backward ran." in told
    assert ("no\n" in told) == ("no" in statement)


def test_a_syntax_error_and_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = ran(tmp_path, "x = (\n", capsys)
    assert code == 1
    assert "SyntaxError" in told
    assert "pullback/commands" not in told
    assert run(Request(tmp_path / "absent.py")) == 2
    assert "absent.py" in capsys.readouterr().err


def test_an_interrupt_ends_the_process_as_python_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append(number))
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    ran(tmp_path, "raise KeyboardInterrupt\n", capsys)
    assert sent == [2]


def test_an_error_that_the_script_caught_is_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    try:
        torch.ones(2, requires_grad=True).backward()
    except RuntimeError as error:
        print("caught")
    """
    code, out, told = ran(tmp_path, source, capsys)
    assert (code, out) == (0, "caught\n")
    assert "Traceback" not in told
    assert "needs cotangent" not in told


def test_quiet_and_a_report_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "import torch\ntorch.ones(1, requires_grad=True).sum().backward()\n")
    assert run(Request(path, (), quiet=True, report=tmp_path / "report.txt")) == 0
    assert capsys.readouterr().err == ""
    assert "1 deposit on 1 leaf" in (tmp_path / "report.txt").read_text()


def test_nothing_stays_in_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pullback.backward import noting, origins

    before = sys.argv, sys.path[0], sys.modules["__main__"]
    ran(tmp_path, "import torch\ntorch.ones(1, requires_grad=True).sum().backward()\n", capsys)
    assert (sys.argv, sys.path[0], sys.modules["__main__"]) == before
    assert origins.on_new_leaf == []
    assert noting.on_new_node == []


def test_annotations_stay_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "def f(a: int) -> float: ...\nprint(f.__annotations__)\n")
    run(Request(path, quiet=True))
    assert capsys.readouterr().out == "{'a': <class 'int'>, 'return': <class 'float'>}\n"


def test_a_checkpoint_computes_as_often_as_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
    import torch
    from torch.utils.checkpoint import checkpoint
    norm = torch.nn.BatchNorm1d(2)
    x = torch.ones(4, 2, requires_grad=True)
    checkpoint(norm, x, use_reentrant=False).sum().backward()
    print(int(norm.num_batches_tracked))
    """
    run(Request(written(tmp_path, source), quiet=True))
    assert capsys.readouterr().out == "2\n"
