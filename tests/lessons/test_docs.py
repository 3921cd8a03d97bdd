"""The page of the lessons lists them as the catalogue does."""

from __future__ import annotations

from pathlib import Path

from pullback.lessons.catalogue import ENTRIES

PAGE = Path(__file__).parents[2] / "docs" / "lessons.md"


def test_the_page_has_a_row_for_every_lesson() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert rows == [f"| {e.number} | {e.title} | {e.line} | {e.minutes} |" for e in ENTRIES]
