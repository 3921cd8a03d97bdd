"""What the caller of a public function calls its tensors, where that can be read safely."""

from __future__ import annotations

import ast
import itertools
import linecache
import sys
from inspect import CO_OPTIMIZED
from types import CodeType, FrameType
from typing import Protocol

from torch import Tensor

from ._torch import is_library_file

_PROXY_LOCALS = (3, 13)
_REMEMBERED = 10_000
_first_arguments: dict[tuple[CodeType, int], tuple[str | None, str]] = {}


class Names(Protocol):
    """What somebody calls tensors."""

    def of(self, tensor: Tensor) -> str | None: ...


class CallerNames:
    """Names from the frame that called into pullback.

    Variables are read at module level (scripts, notebooks), where a frame's namespace is the
    module itself. Inside functions reading them would make CPython before 3.13 hold a second
    reference to every local until the function returns; there, only the expression that was
    passed is read, from the source.
    """

    def __init__(self, function: str) -> None:
        self._function = function.rpartition(".")[2]
        self._frame = _caller()
        self._names: dict[int, str] | None = None

    def of(self, tensor: Tensor) -> str | None:
        if self._names is None:
            self._names = _variables(self._frame)
        return self._names.get(id(tensor))

    def first_argument(self, *, paths: bool = False) -> str | None:
        """The first argument of the call, if it was written as a plain name (with ``paths``, also
        as one that ends in attributes and plain subscripts: ``net[0].weight``)."""
        frame = self._frame
        if frame is None:
            return None
        key = (frame.f_code, frame.f_lasti)
        if key not in _first_arguments:
            if len(_first_arguments) > _REMEMBERED:
                _first_arguments.clear()
            _first_arguments[key] = _first_argument(*key)
        name, function = _first_arguments[key]
        if name is None or function != self._function:
            return None
        return name if paths or name.isidentifier() else None


def _caller() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_library_file(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _variables(frame: FrameType | None) -> dict[int, str]:
    if frame is None:
        return {}
    if frame.f_code.co_flags & CO_OPTIMIZED and sys.version_info < _PROXY_LOCALS:
        return {}
    found: dict[int, str] = {}
    for name, value in frame.f_locals.items():
        if isinstance(value, Tensor) and not name.startswith("_"):
            found.setdefault(id(value), name)
    return found


def _first_argument(code: CodeType, instruction: int) -> tuple[str | None, str]:
    """The name or path that is the first argument of the call, and what is called.

    Through a functools.partial, say, the call in the source is another one.
    """
    call = _call_at(code, instruction)
    if call is None or not call.args:
        return None, ""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    first = call.args[0]
    return (ast.unparse(first) if _is_path(first) else None), called


def _is_path(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        plain = isinstance(node.slice, ast.Constant | ast.Name | ast.UnaryOp)
        return plain and _is_path(node.value)
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


def _call_at(code: CodeType, instruction: int) -> ast.Call | None:
    position = next(itertools.islice(code.co_positions(), instruction // 2, None), None)
    first, last, start, end = position or (None, None, None, None)
    if first is None or last is None or start is None or end is None:
        return None
    lines = [linecache.getline(code.co_filename, k).encode() for k in range(first, last + 1)]
    if not all(lines):
        return None
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    try:
        expression = ast.parse(b"".join(lines).decode(), mode="eval").body
    except (SyntaxError, UnicodeDecodeError):
        return None
    return expression if isinstance(expression, ast.Call) else None
