"""A lesson's source, a Python file in jupytext's percent format, cut into cells.

A cell begins with ``# %%``; ``[markdown]`` at the end of that line makes it text. The words in
between say what the cell is for, and under which key::

    # %% predict lands [markdown]     a question; its options are lines "- a) ..."
    # %% reveal lands                 code that ends in lesson.reveal("lands", a=..., b=...)
    # %% exercise first-row [markdown]
    # %% solution first-row           code that defines the answer
    # %% check first-row              code that calls lesson.check("first-row", answer)
    # %% yours                        code with tensors that the learner may replace by their own
    # %% proof                        code that asserts what the text says; run, but not shown
    # %% code doubled                 plain code, with a key
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .._checks import lessons as checks

_HEAD = re.compile(r"# %%(?P<words>[^\[\n]*)(?P<markdown>\[markdown\])?\s*$")
_OPTION = re.compile(r"^- (?P<letter>[a-z])\) (?P<text>.+(?:\n  .+)*)", re.MULTILINE)

_TEXT_ROLES = ("text", "predict", "exercise")
_CODE_ROLES = ("code", "reveal", "solution", "check", "yours", "proof")
# What must follow a cell, with the same key, before another cell of its own kind.
_FOLLOWED_BY = {"predict": "reveal", "exercise": "solution", "solution": "check"}


@dataclass(frozen=True)
class Cell:
    """``role``: what it is for; ``line``: of its first line of ``text`` in the source, from 1."""

    role: str
    key: str
    text: str
    line: int

    @property
    def is_text(self) -> bool:
        return self.role in _TEXT_ROLES

    @cached_property
    def options(self) -> dict[str, str]:
        """Letter to text, of a prediction."""
        return {m["letter"]: " ".join(m["text"].split()) for m in _OPTION.finditer(self.text)}

    @property
    def letters(self) -> str:
        """``a, b or c``"""
        *first, last = self.options
        return f"{', '.join(first)} or {last}"


@dataclass(frozen=True)
class Source:
    """The cells of a lesson, in order; ``text`` is the whole file."""

    name: str
    text: str
    cells: tuple[Cell, ...]

    def keys(self, role: str) -> list[str]:
        return [cell.key for cell in self.cells if cell.role == role]

    def cell(self, role: str, key: str) -> Cell:
        return next(cell for cell in self.cells if (cell.role, cell.key) == (role, key))


def parse(text: str, name: str) -> Source:
    """Cut ``text`` into cells.

    Raises:
        ArgumentError: an unknown kind of cell, a prediction without its reveal, an exercise
            without its solution or check, or a key that is used twice.
    """
    cells = tuple(_cells(text, name))
    _in_order(cells, name)
    return Source(name, text, cells)


def _cells(text: str, name: str) -> Iterator[Cell]:
    lines = text.splitlines()
    heads = [k for k, line in enumerate(lines) if line.startswith("# %%")]
    for start, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        match = _HEAD.match(lines[start])
        if match is None:
            raise checks.source(name, start + 1, "a cell's head is `# %% KIND KEY [markdown]`.")
        role, key = _role(match, name, start + 1)
        body = lines[start + 1 : end]
        if role in _TEXT_ROLES:
            body = [_uncommented(line, name, start + 2 + k) for k, line in enumerate(body)]
        leading = next((k for k, line in enumerate(body) if line.strip()), 0)
        yield Cell(role, key, "\n".join(body).strip("\n"), start + 2 + leading)


def _role(match: re.Match[str], name: str, line: int) -> tuple[str, str]:
    words = match["words"].split()
    markdown = match["markdown"] is not None
    role = words[0] if words else ("text" if markdown else "code")
    key = words[1] if len(words) > 1 else ""
    allowed = _TEXT_ROLES if markdown else _CODE_ROLES
    if role not in allowed or len(words) > 2:
        kind = "text" if markdown else "code"
        raise checks.source(
            name, line, f"{' '.join(words)!r} is no kind of {kind}; there is {', '.join(allowed)}."
        )
    needs_key = role in _FOLLOWED_BY or role in _FOLLOWED_BY.values()
    if needs_key and not key:
        raise checks.source(name, line, f"a {role} cell needs a key: `# %% {role} KEY`.")
    return role, key


def _uncommented(line: str, name: str, number: int) -> str:
    if line.startswith("# "):
        return line[2:]
    if line.strip() in ("", "#"):
        return ""
    raise checks.source(name, number, "a line of text begins with `# `.")


def _in_order(cells: tuple[Cell, ...], name: str) -> None:
    seen: set[tuple[str, str]] = set()
    open_: dict[str, Cell] = {}
    for cell in cells:
        place = (cell.role, cell.key)
        if cell.key and place in seen:
            raise checks.source(name, cell.line, f"there are two {cell.role} cells {cell.key!r}.")
        seen.add(place)
        if cell.role in _FOLLOWED_BY.values():
            before = open_.pop(cell.role, None)
            if before is None or before.key != cell.key:
                raise checks.source(name, cell.line, f"{cell.role} {cell.key!r} has no question.")
        follower = _FOLLOWED_BY.get(cell.role)
        if follower and (waiting := open_.get(follower)):
            raise checks.source(name, waiting.line, f"no {follower} follows {waiting.key!r}.")
        if follower:
            open_[follower] = cell
        if cell.role == "predict" and len(cell.options) < 2:
            raise checks.source(name, cell.line, "a prediction has options: `- a) ...`.")
    for follower, waiting in open_.items():
        raise checks.source(name, waiting.line, f"no {follower} follows {waiting.key!r}.")
