"""What scripts write for the pages is what the pages show."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
IMAGE = re.compile(r"!\[[^\]]*\]\((?P<path>[^)]+)\)")


def images_in(page: Path) -> set[Path]:
    found = IMAGE.finditer(page.read_text(encoding="utf-8"))
    return {(page.parent / match["path"]).resolve() for match in found}


def test_the_pictures_are_those_that_pages_refer_to(tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "make_images.py"))
    script["main"](tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    if not any(map(shutil.which, script["CHROMIUM"])):
        made.add("explorer.png")
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    assert {DOCS / "images" / name for name in made} == set().union(*map(images_in, pages))
    assert {path.name for path in (DOCS / "images").iterdir()} == made
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert {name: size for name, size in sizes.items() if not 1_000 < size < 120_000} == {}


def test_the_commands_are_those_of_their_help() -> None:
    page = runpy.run_path(str(DOCS / "make_commands.py"))["page"]()
    assert (DOCS / "reference" / "commands.md").read_text(encoding="utf-8") == page
    assert "--argnums" in page
