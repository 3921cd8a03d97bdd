"""The statement around a call in the user's source: what it assigns, and from what."""

from __future__ import annotations

import ast
import linecache
from dataclasses import dataclass
from functools import lru_cache

from .events import UserCall


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a program, as written."""

    text: str
    line: int
    targets: tuple[str, ...]
    reads: frozenset[str]

    @property
    def rebinds(self) -> str | None:
        """The name that it gives to something computed from what had the name before."""
        return next((name for name in self.targets if name in self.reads), None)


def statement_of(call: UserCall) -> Statement | None:
    """The innermost statement of the file of ``call`` that holds its line."""
    lines = linecache.getlines(call.file)
    return _statement("".join(lines), call.line) if lines and call.line else None


@lru_cache(maxsize=512)
def _statement(source: str, line: int) -> Statement | None:
    try:
        tree = _parsed(source)
    except (SyntaxError, ValueError):
        return None
    holding = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not holding:
        return None
    found = max(holding, key=lambda node: (node.lineno, -(node.end_lineno or 0)))
    text = ast.get_source_segment(source, found) or ""
    targets, value = _assignment(found)
    names = [ast.unparse(t) for target in targets for t in _single(target)]
    reads = {ast.unparse(n) for n in ast.walk(value) if _is_name(n)} if value is not None else set()
    if isinstance(found, ast.AugAssign):
        reads.update(names)
    return Statement(text, found.lineno, tuple(names), frozenset(reads))


@lru_cache(maxsize=16)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _assignment(node: ast.stmt) -> tuple[list[ast.expr], ast.expr | None]:
    if isinstance(node, ast.Assign):
        return node.targets, node.value
    if isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        return [node.target], node.value
    return [], None


def _single(target: ast.expr) -> list[ast.expr]:
    return list(target.elts) if isinstance(target, (ast.Tuple, ast.List)) else [target]


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, (ast.Name, ast.Attribute))
