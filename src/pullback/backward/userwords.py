"""A rewrite in the user's own words: the traced expression with its operand guarded."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .events import UserCall
from .operations import Guard, Operation

_NAMESPACES = re.compile(r"(torch|F|nn|pb)(\.\w+)*")
_INVENTED = {"a": "u", "b": "w"}


class Rewrite(NamedTuple):
    """``lines`` of code, the last of which is an expression; ``replaces`` is what it stands for:
    the user's expression, or the operation on ``x`` and ``y`` where that is not known."""

    lines: tuple[str, ...]
    replaces: str
    users: bool


def rewrite_of(
    operation: Operation, guard: Guard, kept: str, call: UserCall | None, saved: Mapping[str, Any]
) -> Rewrite:
    """The guarded operation as lines to write; ``kept`` is the condition in ``a`` and ``b``."""
    tree, places, users = _parsed(operation, call) or _placeholders(operation, saved)
    names, lines = _named(tree, places)
    source = ast.unparse(tree)
    condition = _filled(kept, names, saved)
    outer = _filled(guard.outer, names, saved) if guard.outer else condition
    safe = f"torch.where({condition}, {names[guard.at]}, {guard.safe})"
    plain = _with_operands(tree, places, names)
    guarded = _with_operands(tree, places, {**names, guard.at: safe})
    otherwise = _otherwise(guard, plain, names, saved)
    lines.append(f"torch.where({outer}, {guarded}, {otherwise})")
    return Rewrite(tuple(lines), call.code if users and call else source, users)


def _otherwise(guard: Guard, plain: str, names: Mapping[str, str], saved: Mapping[str, Any]) -> str:
    if guard.otherwise is None:
        return f"({plain}).detach()"
    return _filled(guard.otherwise, names, saved)


Places = dict[str, ast.expr]


def _parsed(operation: Operation, call: UserCall | None) -> tuple[ast.expr, Places, bool] | None:
    if call is None or not call.code:
        return None
    try:
        tree = ast.parse(call.code, mode="eval").body
    except SyntaxError:
        return None
    if isinstance(tree, ast.BinOp) and type(tree.op).__name__ == operation.sign:
        pairs = zip(operation.sides, (tree.left, tree.right), strict=True)
        places = {side: part for side, part in pairs if side}
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute):
        places = _of_call(operation, tree, tree.func)
    else:
        return None
    return (tree, places, True) if set(places) >= set(operation.operands) else None


def _of_call(operation: Operation, tree: ast.Call, func: ast.Attribute) -> Places:
    if func.attr != operation.name:
        return {}
    of_module = _NAMESPACES.fullmatch(ast.unparse(func.value)) is not None
    given = list(tree.args) if of_module else [func.value, *tree.args]
    if any(isinstance(part, ast.Starred) for part in given):
        return {}
    return dict(zip(operation.operands, given, strict=False))


def _placeholders(operation: Operation, saved: Mapping[str, Any]) -> tuple[ast.expr, Places, bool]:
    text = _filled(operation.call, {"a": "x", "b": "y"}, saved)
    tree = ast.parse(text, mode="eval").body
    names = {"x": "a", "y": "b"}
    places: Places = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            places.setdefault(names[node.id], node)
    return tree, places, False


def _named(tree: ast.expr, places: Places) -> tuple[dict[str, str], list[str]]:
    """A name for each operand: its own where it is one, else one that a line before it makes."""
    taken = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names: dict[str, str] = {}
    lines: list[str] = []
    for letter, part in places.items():
        if _is_plain(part):
            names[letter] = ast.unparse(part)
        else:
            names[letter] = _INVENTED[letter] + "_" * (_INVENTED[letter] in taken)
            lines.append(f"{names[letter]} = {ast.unparse(part)}")
    return names, lines


def _is_plain(part: ast.expr) -> bool:
    """Whether to write it twice is to read it twice: nothing is computed."""
    if isinstance(part, ast.UnaryOp):
        return isinstance(part.operand, ast.Constant)
    return isinstance(part, (ast.Name, ast.Attribute, ast.Constant))


class _Replace(ast.NodeTransformer):
    def __init__(self, given: dict[int, ast.expr]) -> None:
        self._given = given

    def visit(self, node: ast.AST) -> Any:
        found = self._given.get(id(node))
        return found if found is not None else self.generic_visit(node)


def _with_operands(tree: ast.expr, places: Places, texts: Mapping[str, str]) -> str:
    """``tree`` with other text at the places of its operands; ``tree`` itself stays as it is."""
    markers = {letter: f"operand_{letter}_of_this_call" for letter in places}
    given: dict[int, ast.expr] = {
        id(part): ast.Name(markers[letter], ast.Load()) for letter, part in places.items()
    }
    copied = _Replace(given).visit(ast.fix_missing_locations(_shallow(tree)))
    source = ast.unparse(copied)
    for letter, marker in markers.items():
        source = source.replace(marker, texts[letter])
    return source


def _shallow(tree: ast.expr) -> ast.expr:
    """A copy of a call down to its operands, which keep their identity."""
    if isinstance(tree, ast.BinOp):
        return ast.BinOp(tree.left, tree.op, tree.right)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute):
        func = ast.Attribute(tree.func.value, tree.func.attr, tree.func.ctx)
        return ast.Call(func, list(tree.args), list(tree.keywords))
    return tree


def _filled(text: str, names: Mapping[str, str], saved: Mapping[str, Any]) -> str:
    """``text`` with the operands' names, and with the numbers that the node saved."""
    numbers = {k: repr(v) for k, v in saved.items() if not isinstance(v, torch.Tensor)}
    words = {**numbers, **names}
    return re.sub(r"(?<![.\w])[A-Za-z_]\w*(?!\s*=[^=])", lambda m: words.get(m[0], m[0]), text)
