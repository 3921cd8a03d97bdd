"""Escaped markup: every attribute and every text goes through here."""

from markupsafe import Markup, escape

from ._printable import printable


def tag(name: str, *children: Markup | str, **attributes: str | float) -> Markup:
    """Return an element. A trailing underscore in an attribute name is dropped, others are hyphens.

    >>> tag("text", "a < b", x=1.50, class_="tick")
    Markup('<text x="1.5" class="tick">a &lt; b</text>')
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
    )
    inner = "".join(text(child) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>" if inner else f"<{name}{written}/>")


def text(content: Markup | str) -> Markup:
    """Escape a string; markup passes."""
    return content if isinstance(content, Markup) else escape(printable(content))


def _attribute(value: str | float) -> Markup:
    return escape(printable(value)) if isinstance(value, str) else Markup(f"{value:.6g}")
