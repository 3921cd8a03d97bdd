"""Fixes of writes in place, put into random programs line by line, until the gradient is right.

The oracle is the program itself, at points nearby: what it computes, whatever autograd can follow.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pullback as pb

from .corpus.case import run_program

_MOST_FIXES = 8
POINT = [0.3, 0.5, 0.8]
STEP = 1e-6
_PLACE = re.compile(r"program\.py:(\d+)")


def random_program(seed: int) -> str:
    """Some fifteen lines that compute, take views, and write in place."""
    draw = random.Random(seed)
    names, views = ["a"], []
    lines = [
        "import torch",
        f"x = torch.tensor({POINT}, dtype=torch.float64, requires_grad=True)",
        "a = x * 1",
    ]
    for step in range(12):
        old, other, new = draw.choice(names), draw.choice(names), f"t{step}"
        kind = draw.randrange(7)
        if kind < 3:
            how = draw.choice(
                ["(-{0}).exp()", "{0}.tanh()", "{0} * {1}", "torch.sigmoid({0})", "{0} / {1}"]
            )
            lines.append(f"{new} = {how.format(old, other)}")
            names.append(new)
        elif kind == 3:
            lines.append(f"{new} = {old}[:2]")
            views.append(new)
        elif kind == 4 and views:
            lines.append(f"{draw.choice(views)}.mul_(1.25)")
        else:
            how = draw.choice(
                [
                    "{0} += 0.5",
                    "{0} *= {1}",
                    "{0}.add_({1})",
                    "{0}[0] = 0.75",
                    "{0}[1:] += {1}[:2].clone()",
                ]
            )
            lines.append(how.format(old, other))
    lines.append(f"loss = {' + '.join(f'{name}.sum()' for name in names)}")
    return "\n".join([*lines, "loss.backward()", "answer = x.grad"]) + "\n"


def meant(source: str, folder: Path) -> Tensor:
    """Central differences of the loss."""
    forward = source.partition("loss.backward()")[0]

    def loss(point: list[float]) -> float:
        near = run_program(forward.replace(str(POINT), str(point)), folder, "near")
        return float(near["loss"].detach())

    found = []
    for k in range(len(POINT)):
        ahead, behind = list(POINT), list(POINT)
        ahead[k] += STEP
        behind[k] -= STEP
        found.append((loss(ahead) - loss(behind)) / (2 * STEP))
    return torch.tensor(found, dtype=torch.float64)


def gradient(source: str, folder: Path) -> Tensor:
    found: Any = run_program(source, folder)["answer"]
    assert isinstance(found, Tensor)
    return found


def mended(source: str, verdict: pb.Verdict) -> str:
    """The program with the first way of the fix in it: its code, in the place that it names."""
    lines = source.splitlines()
    text = verdict.fix.splitlines()
    start = next(k for k, line in enumerate(text) if line.startswith("    "))
    code = [line[4:] for line in text[start:]]
    code = code[: next((k for k, line in enumerate(text[start:]) if line[:4].strip()), len(code))]
    place = _PLACE.search(text[start - 1])
    assert place is not None, verdict.fix
    lines[int(place[1]) - 1 : int(place[1])] = code
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(40))
def test_the_fixes_lead_to_the_gradient_that_was_meant(seed: int, tmp_path: Path) -> None:
    source = random_program(seed)
    expected = meant(source, tmp_path)
    for _ in range(_MOST_FIXES):
        try:
            with pb.trace():
                found = gradient(source, tmp_path)
            break
        except RuntimeError as error:
            verdict = pb.diagnose(error)
        assert verdict.code == "modified_in_place"
        source = mended(source, verdict)
    else:
        raise AssertionError(f"not mended:\n{source}\n{verdict}")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_most_of_the_programs_are_broken_at_first(tmp_path: Path) -> None:
    def fails(seed: int) -> bool:
        try:
            gradient(random_program(seed), tmp_path)
        except RuntimeError:
            return True
        return False

    assert sum(map(fails, range(60))) > 40


def test_a_wrong_fix_is_noticed(tmp_path: Path) -> None:
    source = f"import torch\nx = torch.tensor({POINT}, dtype=torch.float64, requires_grad=True)\nb = x.exp()\nb += 1\nloss = b.sum()\nloss.backward()\nanswer = x.grad\n"
    wrong = pb.Verdict("modified_in_place", "", (), "At program.py:4 write:\n    b = b * 2\n")
    found = gradient(mended(source, wrong), tmp_path)
    assert not torch.allclose(found, meant(source, tmp_path))
