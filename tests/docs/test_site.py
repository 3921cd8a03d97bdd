"""The site builds strictly, links to nothing that is missing, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import pullback

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page refers to (``links`` to follow, ``loads`` as it is shown), and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if "href" in found:
            only_named = found.get("rel") in ("canonical", "next", "prev")
            (self.links if tag == "a" or only_named else self.loads).add(found["href"])
        if "src" in found:
            self.loads.add(found["src"])


def broken(site: Path) -> list[str]:
    """The references within a site, from page to target, that lead nowhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute: they count from the root of a server
            continue
        for reference in sorted(page.links | page.loads):
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (
                parts.fragment and unquote(parts.fragment) not in {*anchors, "__consent"}
            ):
                found.append(f"{path.relative_to(site)}: {reference}")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_reference_leads_somewhere(site: Path) -> None:
    assert len(list(site.rglob("*.html"))) > 30
    assert broken(site) == []


def test_what_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<p id="here">', encoding="utf-8")
    text = (
        '<a href="there.html#here"><a href="there.html#gone"><a href="gone.html"><img src="no.png">'
    )
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert broken(tmp_path) == [
        "page.html: gone.html",
        "page.html: no.png",
        "page.html: there.html#gone",
    ]


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        loads = Page(path.read_text(encoding="utf-8")).loads
        assert [url for url in loads if urlsplit(url).netloc] == [], path


def test_every_public_name_has_an_entry(site: Path) -> None:
    names = {
        f"pullback.{name}"
        for name, value in vars(pullback).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    names |= {
        f"pullback.cotangents.{name}"
        for name, value in vars(pullback.cotangents).items()
        if isinstance(value, types.FunctionType)
        and not name.startswith("_")
        and value.__module__ == "pullback.cotangents"
    }
    pages = (site / "reference").glob("*.html")
    told = set().union(*(Page(page.read_text(encoding="utf-8")).anchors for page in pages))
    assert {"pullback.vjp", "pullback.cotangents.rows"} <= names
    assert names - told == set()


def test_docstrings_come_through_markdown_whole(site: Path) -> None:
    """Examples as code, not as quotes; tables as tables."""
    for path in (site / "reference").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "<blockquote>" not in text, path
        assert not re.search(r"<p>[^<]*(====|\|--|&gt;&gt;&gt;)", text), path
