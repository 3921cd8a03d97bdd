"""For the reference pages: the examples of a docstring as code, wherever in it they stand."""

from __future__ import annotations

import re
from typing import Any

import griffe

# From a prompt to the blank line that ends its output.
EXAMPLE = re.compile(
    r"^(?P<margin> *)>>> .*(?:\n(?P=margin)(?=.*\S).*)*", re.MULTILINE
)


class FencedExamples(griffe.Extension):
    """Put a fence around every interactive example, so that Markdown takes none for a quote."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """``text`` with a ``pycon`` fence around each of its examples."""

    def fence(found: re.Match[str]) -> str:
        margin = found["margin"]
        return f"{margin}```pycon\n{found[0]}\n{margin}```"

    return EXAMPLE.sub(fence, text).replace("<BLANKLINE>", "")
