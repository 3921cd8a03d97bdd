"""Every printed example runs: docstrings, and the code blocks of README and docs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import pullback

ROOT = Path(__file__).parents[2]
MODULES = sorted(m.name for m in pkgutil.walk_packages(pullback.__path__, "pullback."))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n+```text\n(?P<output>.*?)```)?", re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_public_names_have_an_example_and_say_what_they_raise() -> None:
    for name in (
        "record",
        "step",
        "explain",
        "find_nonfinite",
        "ledger",
        "why",
        "assert_reaches",
        "assert_no_cut",
        "assert_finite",
        "audit",
        "audit_function",
        "sensitivity",
        "vjp",
        "jvp",
        "JacobianOperator",
        "HessianOperator",
        "trace",
        "plan_jacobian",
        "jacobian",
        "plan_hessian",
        "hessian",
        "gauss_newton",
        "jacobian_of",
        "implicit_vjp",
        "verify",
        "color",
    ):
        text = getattr(pullback, name).__doc__ or ""
        assert ">>>" in text, name
        assert name == "trace" or "Raises:" in text, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_code_blocks_print_what_is_shown(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8"))):
        source = tmp_path / str(number) / "example.py"
        source.parent.mkdir()
        source.write_text(match["code"], encoding="utf-8")
        exec(compile(match["code"], str(source), "exec"), scope)
        printed = capsys.readouterr().out
        if match["output"] is not None:
            assert printed.rstrip() == match["output"].rstrip()
