"""The commands, run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pullback.cli import app

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the demo printed, and its page."""
    out = tmp_path_factory.mktemp("demo")
    result = RUNNER.invoke(app, ["demo", "--out", str(out / "new" / "folder")])
    assert result.exit_code == 0, result.output
    return result.output, (out / "new" / "folder" / "report.html").read_text(encoding="utf-8")


def test_the_demo_prints_the_numbers_of_the_tutorial(demo: tuple[str, str]) -> None:
    printed = re.sub(r"\s+", " ", demo[0])
    for text in (
        "1 node saved tensors",
        "At this point, row i of out depends on inp[:, i] and on nothing else of inp, in each of its 5 rows.",
        "second == 2 * first: True",
        "after zeroing == first: True",
        "inp.grad[:, 0]: [363.0, 300.0, 300.0, 300.0] largest other entry: 0.0",
        "uniform 1 312.6 yes",
        "first row 1 315.75 yes",
        "last row 1 300 yes",
        "Row sums of J lie in [300, 363]",
        "At this point, row i of out depends on x[i, :] and on nothing else of x, in each of its 8 rows.",
    ):
        assert text in printed, text


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "xlink:href")]


def links(page: str) -> Links:
    parser = Links()
    parser.feed(page)
    return parser


def test_the_report_is_self_contained(demo: tuple[str, str]) -> None:
    page = demo[1]
    found = links(page)
    assert all(link.startswith("#") for link in found.found)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "script" not in found.tags
    assert found.tags.count("svg") >= 12


def test_the_link_check_can_fail() -> None:
    assert links('<a href="https://x.org">').found == ["https://x.org"]


def test_the_demo_refuses_a_file_as_folder(tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("")
    result = RUNNER.invoke(app, ["demo", "--out", str(file)])
    assert result.exit_code == 2
    assert re.sub(r"\s+", " ", result.output).strip() == (
        f"pullback demo: --out {file} is a file; name a folder."
    )


def test_doctor_lists_versions_and_facts() -> None:
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 0
    for text in ("torch ", "python ", "sequence numbers of nodes", "batched backward"):
        assert text in result.output
    assert " NO " not in result.output


def test_doctor_says_what_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from pullback import doctor

    broken = doctor.Capability(
        "derivatives.yaml", False, "KeyError: x", "records quote no formulas"
    )
    monkeypatch.setattr(doctor, "capabilities", lambda: [broken])
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "NO      records quote no formulas KeyError: x" in result.output


def test_the_command_is_installed_and_fast_to_refuse() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pullback"), "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "No such command 'nonsense'" in done.stderr
