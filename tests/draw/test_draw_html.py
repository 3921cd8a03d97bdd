"""The structure of the HTML document."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pullback.draw import (
    Arrow,
    Box,
    Code,
    Diagram,
    Grid,
    Heading,
    Heatmap,
    Outline,
    OutlineRow,
    Page,
    Sentence,
    Table,
)
from pullback.draw.html import to_html

VOID = {"meta", "br"}
HOSTILE = "<script>alert('x')</script><img src=x onerror=y> {{ 7 * 7 }} &amp; \x1b"


class Reader(HTMLParser):
    """Collects tags, attributes and texts, and refuses tags that do not match."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def said(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def full_page(text: str = "name") -> Page:
    diagram = Diagram(
        text, (Box("a", (text,)), Box("b", (text,), "leaf")), (Arrow("a", "b", text),)
    )
    return Page(
        text,
        (
            Heading(text),
            Sentence(text, ((text, text),)),
            Sentence("bare"),
            Heading(text, 3),
            Table(text, (text, "n"), ((text, "12"),)),
            Outline((text, ""), (OutlineRow(0, (text, "1")), OutlineRow(40, (text, "x"), text))),
            Heatmap(text, np.eye(2), text, text, text),
            Grid((Heatmap("a", np.ones((1, 1))), Heatmap("b", np.full((1, 1), 4.0)))),
            diagram,
            Code(text),
        ),
    )


def test_the_reader_above_refuses_what_does_not_match() -> None:
    with pytest.raises(AssertionError):
        Reader("<p><b></p></b>")


def test_a_page_has_its_parts() -> None:
    read = Reader(to_html(full_page()))
    assert read.said("h1") == ["name"]
    assert read.said("h2") == read.said("h3") == ["name"]
    assert (read.count("details"), read.count("dt"), read.count("dd")) == (1, 1, 1)
    assert read.said("p") == ["Contents", "name", "bare"]
    assert read.count("svg") == 4
    assert (read.count("table"), read.count("pre")) == (2, 1)
    assert read.said("small") == ["(40)"]


def test_every_contents_link_has_its_anchor() -> None:
    read = Reader(to_html(Page("t", tuple(Heading(text) for text in ("A b", "A b", "?", "é")))))
    links = [attrs["href"] for tag, attrs in read.tags if tag == "a"]
    anchors = [f"#{attrs['id']}" for _, attrs in read.tags if "id" in attrs]
    assert links == anchors == ["#a-b", "#a-b-2", "#section", "#é"]


def test_a_page_of_one_section_needs_no_contents() -> None:
    assert Reader(to_html(Page("t", (Heading("only"),)))).count("nav") == 0


def test_nothing_is_fetched_and_nothing_runs() -> None:
    document = to_html(full_page())
    assert not any(
        word in document for word in ("http", "src=", "url(", "@import", "<script", "//")
    )
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', document))


def test_hostile_text_is_inert_everywhere() -> None:
    plain, hostile = Reader(to_html(full_page())), Reader(to_html(full_page(HOSTILE)))
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in plain.tags}
    assert hostile.said("h1") == [HOSTILE.replace("\x1b", "␛")]
    handlers = [name for _, attrs in hostile.tags for name in attrs if name.startswith("on")]
    assert handlers == []


def test_numbers_are_set_flush_right_with_their_column_name() -> None:
    read = Reader(to_html(Page("t", (Table("", ("leaf", "norm"), (("w", "1.5"), ("b", "2"))),))))
    marked = [tag for tag, attrs in read.tags if attrs.get("class") == "num"]
    assert marked == ["th", "td", "td"]


def test_an_outline_draws_one_guide_per_level() -> None:
    rows = (
        OutlineRow(0, ("a",)),
        OutlineRow(1, ("b",)),
        OutlineRow(2, ("c",)),
        OutlineRow(1, ("d",)),
    )
    read = Reader(to_html(Page("t", (Outline(("",), rows),))))
    guides = [attrs["class"] for tag, attrs in read.tags if tag == "i"]
    assert guides == ["tee", "rail", "elbow", "elbow"]


def test_a_shared_grid_colors_on_one_scale() -> None:
    def strengths(shared: bool) -> list[str | None]:
        grid = Grid((Heatmap("a", np.ones((1, 1))), Heatmap("b", np.full((1, 1), 4.0))), shared)
        read = Reader(to_html(Page("t", (grid,))))
        return [attrs["fill-opacity"] for _, attrs in read.tags if attrs.get("class") == "pb-cell"]

    assert strengths(True) == ["0.25", "1"]
    assert strengths(False) == ["1", "1"]
