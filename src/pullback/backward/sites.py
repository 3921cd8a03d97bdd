"""Where in the user's program a torch call stands: its file, its line, its expression."""

from __future__ import annotations

import contextlib
import functools
import itertools
import linecache
import sys
import warnings
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .. import _torch
from . import modules
from .events import UserCall

_MOST_FILES = 20_000
_MOST_CALLS = 100_000
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
    while frame is not None:
        code = frame.f_code
        owner = _owners.get(code.co_filename) or _owner_of(code.co_filename)
        if owner == _USERS:
            break
        if owner == _TORCHS and code.co_name not in _WRAPPERS:
            entered = code
        frame = frame.f_back
    return Site(frame, entered)


_USERS, _TORCHS, _OURS = 1, 2, 3
_PLUMBING = {
    contextlib.__file__,
    functools.__file__,
    warnings.__file__,
}  # never the line that somebody looks for
_owners: dict[str, int] = {}


def _owner_of(filename: str) -> int:
    if len(_owners) > _MOST_FILES:
        _owners.clear()
    owner = _OURS if filename in _PLUMBING else _USERS
    if _torch.is_library_file(filename):
        owner = _OURS if _torch.is_own_file(filename) else _TORCHS
    _owners[filename] = owner
    return owner


def asked_by_us(depth: int) -> bool:
    """Whether pullback's own code called into torch, ``depth`` frames out or behind torch's."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        owner = _owners.get(name) or _owner_of(name)
        if owner != _TORCHS:
            return owner == _OURS and name not in _PLUMBING
        frame = frame.f_back
    return False


def call_at(found: Site, function: str) -> UserCall:
    """``function`` as called at a site, in the module that is running."""
    frame, module = found.frame, modules.current()
    if frame is None:
        return UserCall(function, "", 0, "", module)
    # By identity: a code object is hashed anew each time, and its line takes long to find.
    key = (id(frame.f_code), frame.f_lasti, function, module)
    known = _calls.get(key)
    if known is None or known[0] is not frame.f_code:
        if len(_calls) > _MOST_CALLS:
            _calls.clear()
        call = call_in(frame.f_code, frame.f_lasti, frame.f_lineno, function, module)
        known = _calls[key] = frame.f_code, call
    return known[1]


def call_in(
    code: CodeType, instruction: int, line: int, function: str = "", module: str = ""
) -> UserCall:
    """The call at an instruction of ``code``, which stands at ``line`` if its place is unknown."""
    at, text = _expression(code, instruction)
    return UserCall(function, code.co_filename, at or line, text, module)


_calls: dict[tuple[int, int, str, str], tuple[CodeType, UserCall]] = {}


def function_name(func: Callable[..., Any]) -> str:
    """``exp``; for a property its own name, ``mT``."""
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__", "__delete__"):
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name)


def _expression(code: CodeType, instruction: int) -> tuple[int, str]:
    """The line of an instruction, and the source text of exactly its expression."""
    position = next(itertools.islice(code.co_positions(), instruction // 2, None), None)
    return _source(code.co_filename, position or (None, None, None, None))


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
