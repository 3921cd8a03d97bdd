"""The explorer's module and its hosts: a page of its own, a frame in a notebook.

``module`` is one ES module without dependencies. It is kept in parts, each with one idea, that
import each other; put one after the other, without their imports, they are that module.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from ..html import page_css, template, views
from ..page import Page

# In the order of the layers: a part imports only parts above it.
PARTS = (
    "numbers",
    "colors",
    "model",
    "groups",
    "layout",
    "page",
    "arrows",
    "heatmap",
    "weights",
    "graph",
    "node",
    "player",
    "pattern",
    "explorer",
)
_IMPORT = re.compile(r"^import\s[^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|class|const|let)", re.MULTILINE)
_FRAME_HEIGHT = 640


@cache
def module() -> str:
    """The whole explorer as one ES module; it exports ``mount(element, document, options)``."""
    parts = [_IMPORT.sub("", _resource(f"{name}.js")) for name in PARTS]
    bodies = [_EXPORT.sub("", part) for part in parts]
    return "\n".join([*bodies, "export { mount };\n"])


@cache
def style() -> str:
    return _resource("explorer.css")


def to_html(
    document: Mapping[str, Any], page: Page, options: Mapping[str, Any] | None = None
) -> str:
    """One self-contained page: the explorer of ``document``, and ``page`` for readers without
    scripts."""
    return template("explorer/page.html.j2").render(
        title=page.title,
        css=Markup(style()),
        module=Markup(module()),
        document=Markup(script_json(document)),
        options=Markup(script_json(options or {})),
        blocks=views(page),
        plain_css=page_css(),
    )


def framed(document: str) -> str:
    """A page in a frame: its styles and scripts do not touch the notebook's."""
    return (
        f'<iframe sandbox="allow-scripts" title="Backward pass" style="width: 100%; border: 0; '
        f'height: {_FRAME_HEIGHT}px" srcdoc="{html.escape(document)}"></iframe>'
    )


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _resource(name: str) -> str:
    return files("pullback.draw.explorer").joinpath(name).read_text("utf-8")
