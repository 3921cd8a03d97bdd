"""``pb.why`` on the diagnosis corpus: code, line, fix, and what the fix brings."""

from __future__ import annotations

import linecache
from pathlib import Path
from typing import Any

import pytest
import torch

import pullback as pb
from tests.backward.corpus.whys import CASES, Case


def run(source: str, folder: Path) -> dict[str, Any]:
    """Run a program from a file of its own, as a user would."""
    path = folder / f"program{len(list(folder.iterdir()))}.py"
    path.write_text(source)
    linecache.checkcache(str(path))
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    exec(compile(source, str(path), "exec"), names)
    return names


def marked_line(source: str) -> int | None:
    lines = [k for k, text in enumerate(source.splitlines(), 1) if text.endswith("# <-")]
    return lines[0] if lines else None


def told(verdict: pb.Verdict) -> str:
    parts = [verdict.text, verdict.fix, *(f"{a}: {b}" for a, b in verdict.evidence)]
    return "\n".join(parts)


@pytest.mark.parametrize("name", CASES)
def test_code_and_line(name: str, tmp_path: Path) -> None:
    case: Case = CASES[name]
    verdict = run(case.source, tmp_path)["verdict"]
    assert verdict.code == case.code, told(verdict)
    assert case.says in told(verdict)
    line = marked_line(case.source)
    if line is not None:
        assert f"program0.py:{line}" in told(verdict)
    assert verdict.fix or verdict.code == "arrived"
    assert str(verdict).startswith(case.code.replace("_", " "))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].expected])
def test_the_fix_brings_the_gradient(name: str, tmp_path: Path) -> None:
    case: Case = CASES[name]
    after = run(case.fixed, tmp_path)
    grad = after["x"].grad
    assert grad is not None
    torch.testing.assert_close(
        grad.reshape(-1).double(), torch.tensor(case.expected, dtype=torch.float64),
        rtol=1e-5, atol=1e-7 if case.code != "underflow" else 1e-26,
    )  # fmt: skip
    asked = pb.why(after["x"], after.get("out"))
    if case.code != "arrived" and not case.stays:
        assert asked.code not in (case.code, "nonfinite"), told(asked)


@pytest.mark.parametrize("name", CASES)
def test_asking_changes_nothing(name: str, tmp_path: Path) -> None:
    names = run(CASES[name].source, tmp_path)
    x, out = names["x"], names.get("out")
    if not (x.is_leaf or x.retains_grad):
        return
    before = None if x.grad is None else (x.grad, x.grad.clone(), x.grad._version)
    pb.why(x, out)
    if before is None:
        assert x.grad is None
    else:
        assert x.grad is before[0]
        assert torch.equal(x.grad.nan_to_num(), before[1].nan_to_num())
        assert x.grad._version == before[2]


def test_the_tensor_is_called_what_the_program_calls_it(tmp_path: Path) -> None:
    program = """
import torch
import pullback as pb
net = torch.nn.Sequential(torch.nn.Linear(2, 1)).requires_grad_(False)
k = 0
texts = [
    pb.why(net[0].weight).fix,
    pb.why(net[-1].bias).fix,
    pb.why(net[k].bias).fix,
    pb.why(next(net.parameters())).fix,
]
"""
    texts = [fix.split("\n")[1].strip() for fix in run(program, tmp_path)["texts"]]
    assert texts[:3] == [
        "net[0].weight.requires_grad_(True)",
        "net[-1].bias.requires_grad_(True)",
        "net[k].bias.requires_grad_(True)",
    ]
    assert "next" not in texts[3]
