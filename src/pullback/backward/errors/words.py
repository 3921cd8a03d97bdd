"""The words that several diagnoses share: places, lists of places, what trace would add."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from ..events import UserCall

TO_CHANGE = "line to change"
_LONGEST = 60
_TOLD = 6


def at(call: UserCall | None) -> str:
    """``train.py:12``."""
    if call is None or not call.file:
        return "a line that is not known"
    return f"{PurePath(call.file).name}:{call.line}"


def spelled(call: UserCall) -> str:
    """A call as it is written, or the function where the source is not at hand."""
    return call.code or call.function


def quoted(call: UserCall | None) -> str:
    """``train.py:12  b += 1``."""
    if call is None:
        return at(call)
    text = spelled(call)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return f"{at(call)}  {text}".rstrip()


def listing(parts: Sequence[str]) -> str:
    """``a, b and c``, the first few of them."""
    shown = list(parts[:_TOLD])
    if len(parts) > _TOLD:
        return f"{', '.join(shown)} and {len(parts) - _TOLD} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def fix(*parts: str | Iterable[str]) -> str:
    """Lines of a fix: a string is prose, a list is code."""
    lines: list[str] = []
    for part in parts:
        lines += [part] if isinstance(part, str) else [f"    {line}" for line in part if line]
    return "\n".join(line for line in lines if line)


TRACE = "with pb.trace(): around the forward pass would name"
