"""The page as one self-contained HTML document: no script, nothing fetched."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, assert_never

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from ._guides import MAX_GUIDES, guides
from ._printable import printable, printable_lines
from .matrix import finite_limit
from .numbers import looks_numeric
from .page import (
    Block,
    Code,
    Diagram,
    Grid,
    Heading,
    Heatmap,
    Outline,
    Page,
    Sentence,
    Table,
)
from .svg import diagram_svg, heatmap_svg


@dataclass(frozen=True, slots=True)
class _Section:
    """A heading with the anchor that the contents list links to."""

    text: str
    level: int
    anchor: str


def to_html(page: Page) -> str:
    """Lower a page to one HTML document that opens anywhere, light or dark, and prints."""
    sections = _sections(page)
    return template("page.html.j2").render(
        title=page.title, sections=sections, blocks=views(page), css=page_css()
    )


def page_css() -> Markup:
    return Markup(_resource("page.css"))


@cache
def template(name: str) -> Template:
    """A template of this package, by its path in it."""
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.tests["numeric"] = looks_numeric
    return environment.get_template(name)


def _resource(name: str) -> str:
    return files("pullback.draw").joinpath(*name.split("/")).read_text("utf-8")


def _sections(page: Page) -> list[_Section]:
    taken: set[str] = set()
    sections: list[_Section] = []
    for heading in (block for block in page.blocks if isinstance(block, Heading)):
        stem = re.sub(r"\W+", "-", heading.text.lower()).strip("-") or "section"
        anchor, again = stem, 2
        while anchor in taken:
            anchor, again = f"{stem}-{again}", again + 1
        taken.add(anchor)
        sections.append(_Section(heading.text, min(max(heading.level, 2), 4), anchor))
    return sections


def views(page: Page) -> list[tuple[str, Any]]:
    """Every block with the name of the template's part for it."""
    anchored = iter(_sections(page))
    return [
        ("heading", next(anchored)) if isinstance(block, Heading) else _view(block)
        for block in page.blocks
    ]


def _view(block: Block) -> tuple[str, Any]:
    """Return the name of the template's part for a block, and what that part reads."""
    match block:
        case Heading() | Sentence() | Table():
            return type(block).__name__.lower(), block
        case Heatmap():
            return "picture", [Markup(heatmap_svg(block))]
        case Grid():
            limit = finite_limit(*(b.values for b in block.blocks)) if block.shared else None
            return "picture", [Markup(heatmap_svg(b, limit)) for b in block.blocks]
        case Diagram():
            return "diagram", (block.title, Markup(diagram_svg(block)))
        case Outline():
            branches = guides([row.depth for row in block.rows])
            deep = [row.depth if row.depth > MAX_GUIDES else 0 for row in block.rows]
            return "outline", (block.columns, list(zip(block.rows, branches, deep, strict=True)))
        case Code():
            return "code", "\n".join(printable_lines(block.text))
        case _:
            assert_never(block)
