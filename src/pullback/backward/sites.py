"""Where in the user's program a torch call stands: its file, its line, its expression."""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .. import _torch
from . import modules
from .events import UserCall

_is_ours = lru_cache(maxsize=20_000)(_torch.is_own_file)
_is_library_file = lru_cache(maxsize=20_000)(_torch.is_library_file)
# Frames of decorators: the function that they wrap is what was called.
_WRAPPERS = {"wrapper", "inner", "_fn", "_no_grad_wrapper", "decorate_context"}


class Site(NamedTuple):
    """The first frame outside of torch and pullback, and the library function that it called.

    ``entered`` is None where the program called the torch function itself.
    """

    frame: FrameType | None
    entered: CodeType | None


def site(depth: int = 1) -> Site:
    """No stack is captured: one walk outwards to the first frame of the user's."""
    frame: FrameType | None = sys._getframe(depth)
    entered = None
    while frame is not None and _is_library_file(frame.f_code.co_filename):
        code = frame.f_code
        if code.co_name not in _WRAPPERS and not _is_ours(code.co_filename):
            entered = code
        frame = frame.f_back
    return Site(frame, entered)


def call_at(found: Site, function: str) -> UserCall:
    """``function`` as called at a site, in the module that is running."""
    if found.frame is None:
        return UserCall(function, "", 0, "", modules.current())
    frame = found.frame
    return call_in(frame.f_code, frame.f_lasti, frame.f_lineno, function, modules.current())


def call_in(
    code: CodeType, instruction: int, line: int, function: str = "", module: str = ""
) -> UserCall:
    """The call at an instruction of ``code``, which stands at ``line`` if its place is unknown."""
    at, text = _expression(code, instruction)
    return UserCall(function, code.co_filename, at or line, text, module)


def function_name(func: Callable[..., Any]) -> str:
    """``exp``; for a property its own name, ``mT``."""
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__", "__delete__"):
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name)


_expressions: dict[tuple[CodeType, int], tuple[int, str]] = {}


def _expression(code: CodeType, instruction: int) -> tuple[int, str]:
    """The line of an instruction, and the source text of exactly its expression."""
    key = (code, instruction)
    if key not in _expressions:
        if len(_expressions) > 100_000:
            _expressions.clear()
        position = next(itertools.islice(code.co_positions(), instruction // 2, None), None)
        _expressions[key] = _source(code.co_filename, position or (None, None, None, None))
    return _expressions[key]


def _source(
    filename: str, position: tuple[int | None, int | None, int | None, int | None]
) -> tuple[int, str]:
    line, end_line, start, end = position
    if line is None:
        return 0, ""
    text = linecache.getline(filename, line).rstrip("\n")
    if start is None or end is None or not text:
        return line, text.strip()
    raw = text.encode()  # columns count bytes, not characters
    if end_line == line:
        return line, raw[start:end].decode(errors="replace")
    return line, raw[start:].decode(errors="replace").rstrip() + " ..."
