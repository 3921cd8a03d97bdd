"""The page on ``pullback run``: its script, run, tells what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pullback.commands.run import Request, run

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "run-a-script.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_summary_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text(block("python"))
    assert run(Request(script)) == 0
    assert capsys.readouterr().err.strip() == block("text").strip()
