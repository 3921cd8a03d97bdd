"""``pb.diagnose``: every error of the corpus gets its code, its line, and a fix that works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pullback as pb

from .corpus.case import (
    Case,
    code_lines,
    code_of_fix,
    failure,
    line_to_change,
    run_program,
)
from .corpus.errors import CASES

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@EACH
def test_the_verdict_names_the_cause_and_the_line(case: Case, tmp_path: Path) -> None:
    verdict = pb.diagnose(failure(case, tmp_path))
    assert verdict.code == case.code
    assert line_to_change(verdict).startswith(f"{case.name}.py:{case.marked_line()}")
    told = " ".join([verdict.text, *(f"{a} {b}" for a, b in verdict.evidence), verdict.fix])
    assert [words for words in case.says if words not in told] == []
    assert verdict.fix


@EACH
def test_the_fix_mends_the_program(case: Case, tmp_path: Path) -> None:
    mended = case.program("mended")
    if not case.in_prose:
        fix = code_of_fix(pb.diagnose(failure(case, tmp_path)))
        assert fix & code_lines(mended), fix
    space = run_program(mended, tmp_path)
    torch.testing.assert_close(space["answer"], case.expected(space))


@EACH
def test_without_a_trace_the_code_is_the_same(case: Case, tmp_path: Path) -> None:
    assert pb.diagnose(failure(case, tmp_path, traced=False)).code == case.code
