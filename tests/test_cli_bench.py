"""``pullback bench``: what it measures, what it refuses, and that a wrong matrix is not timed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from typer.testing import CliRunner

from pullback.cli import app
from pullback.commands import bench
from pullback.commands.bench_candidates import Candidate, asdex, checked, torch_func
from pullback.commands.bench_problems import PROBLEMS

RUNNER = CliRunner()
FILE = """
import torch

residual = lambda x, k: (x[1:] - x[:-1]) ** 2 * k
residual_sample = (torch.linspace(0, 1, 12, dtype=torch.float64), 3.0)
whole = lambda n: n
whole_sample = (torch.arange(3),)


def fails(x):
    return x @ torch.ones(99)


fails_sample = torch.ones(4)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "benched.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "_FILLED", 0.0)
    yield
    sys.modules.pop("benched", None)


def call(*words: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, ["bench", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_every_candidate_is_measured_or_says_why_not() -> None:
    printed = call("transpose")
    assert "J is 2,000 × 2,000 with 2,000 entries" in printed
    for name in ("forward", "plain", "lifted", "compiled", "jacrev", "jacfwd", "asdex"):
        assert len(re.findall(rf"^ *{name}\b", printed, flags=re.MULTILINE)) == 1, name
    assert "WRONG" not in printed


def test_a_function_of_a_file() -> None:
    printed = call("benched.py:residual", "--peers", "asdex")
    assert "J is 11 × 12 with 22 entries" in printed
    assert "jacrev" not in printed
    assert re.search(r"asdex: (not installed here|only for the built-in problems)", printed)


def test_the_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    call("benched.py:residual", "--peers", "", "--threads", "2")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("heats",),
            "pullback bench: there is no problem 'heats'. Name one of brusselator, burgers, heat, "
            "mlp, transpose, springs, or a function of a file: FILE.py:FUNC.",
        ),
        (
            ("heat", "--peers", "jax"),
            "pullback bench: --peers names 'jax'; there is torch.func and asdex. Separate several "
            "with a comma, and write --peers '' for none.",
        ),
        (("heat", "--threads", "0"), "pullback bench: --threads is 0; it must be at least 1."),
        (
            ("benched.py:whole",),
            "pullback bench: the first argument of whole is int64 tensor; `bench` differentiates "
            "by it, and it must be a tensor of real floating-point numbers.",
        ),
    ],
)
def test_refusals(words: tuple[str, ...], text: str) -> None:
    assert call(*words, code=2).strip() == text


def test_a_function_that_fails_is_shown_by_its_own_lines() -> None:
    printed = call("benched.py:fails", code=1)
    assert "return x @ torch.ones(99)" in printed


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_problems_are_what_numpy_computes(name: str) -> None:
    """The functions use only words that torch shares with the array modules."""
    func, x = PROBLEMS[name].in_torch()
    same, again = PROBLEMS[name].in_jax(np)
    found: Any = same(again)
    assert np.allclose(func(x).numpy(), found, rtol=1e-12, atol=1e-12)


def test_a_wrong_matrix_is_not_timed() -> None:
    right = scipy.sparse.csr_array(np.array([[1.0, 0.0], [0.0, 2.0]]))
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    assert checked(Candidate("peer", lambda: dense), right).run is not None
    assert checked(Candidate("peer", lambda: dense + 1e-6), right).why == (
        "WRONG: an entry is 1.0e-06 from the plain plan's; the largest is 2.0e+00"
    )
    assert checked(Candidate("peer", lambda: dense * float("nan")), right).run is None
    short = checked(Candidate("peer", lambda: dense[:1]), right)
    assert short.why == "WRONG: its shape is (1, 2), the plain plan's (2, 2)"


def test_a_dense_matrix_that_would_not_fit_is_left_out() -> None:
    matrix = scipy.sparse.csr_array((100_000, 100_000))
    found = torch_func(lambda x: x, (torch.ones(1, dtype=torch.float64),), matrix)
    assert {way.why for way in found} == {"left out: a dense matrix of 74.5 GiB"}


def test_asdex_says_why_not() -> None:
    assert asdex(None, scipy.sparse.csr_array((1, 1))).run is None
