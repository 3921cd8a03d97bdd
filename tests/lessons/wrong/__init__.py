"""Answers whose verdict is known: one module per lesson, with ``WRONG`` and ``RIGHT``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wrong:
    """A wrong answer to exercise ``key``, and a phrase of the hint that it must get."""

    key: str
    name: str
    answer: Any
    phrase: str


@dataclass(frozen=True)
class Right:
    """Another right answer than the lesson's own solution."""

    key: str
    name: str
    answer: Any
