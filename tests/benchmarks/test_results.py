"""What RESULTS.md holds, and what the README says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def table(title: str) -> dict[str, dict[str, str]]:
    """The first table under a title: row to column to cell."""
    lines = RESULTS.partition(f"### {title}\n")[2].lstrip().splitlines()
    rows = [line.strip("|").split("|") for line in lines[: lines.index("")]]
    head = [cell.strip() for cell in rows[0]]
    return {
        row[0].strip(): dict(zip(head[1:], (c.strip() for c in row[1:]), strict=True))
        for row in rows[2:]
    }


def seconds(cell: str) -> float | None:
    found = re.match(r"([\d.]+) (ns|µs|ms|s)\b", cell)
    return None if found is None else float(found[1]) * UNITS[found[2]]


def mean_of(title: str, column: str) -> float:
    return float(table(title)["geometric mean"][column].partition(" ")[0])


def test_the_lift_that_was_chosen_is_no_slower_than_coloring_the_whole() -> None:
    """On every problem of the benchmark, as measured."""
    slower = {}
    for problem, cells in table("One evaluation").items():
        plain, lifted = seconds(cells["plain"]), seconds(cells["lifted"])
        if plain is not None and lifted is not None and lifted > 1.1 * plain:
            slower[problem] = lifted / plain
    assert slower == {}


@pytest.mark.parametrize(
    ("title", "column", "said"),
    [
        ("One evaluation", "asdex ÷ pullback", r"([\d.]+) times as fast as asdex's in the geom"),
        ("One evaluation", "pullback ÷ by hand", r"by hand \([\d.]+ to [\d.]+ times its time, "
                                                 r"([\d.]+) in the mean"),
        ("Set-up: capture, detection, coloring", "asdex ÷ pullback",
         r"Planning is ([\d.]+) times as fast as asdex's"),
        ("From a function to its first matrix", "asdex ÷ pullback",
         r"a first matrix comes ([\d.]+) times sooner"),
    ],
)  # fmt: skip
def test_the_readme_says_what_was_measured(title: str, column: str, said: str) -> None:
    found = re.search(said, README)
    assert found is not None, said
    assert float(found[1]) == pytest.approx(mean_of(title, column), abs=0.06)
