"""The user's own source, read and rewritten: what a line assigns, and how to write it otherwise."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache

from torch import Tensor

from ..events import UserCall

_OUT_OF_PLACE = {
    "zero_": "torch.zeros_like({target})",
    "fill_": "torch.full_like({target}, {arguments})",
    "copy_": "{arguments}.clone()",
}


@lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _module(file: str) -> ast.Module | None:
    return _parsed("".join(linecache.getlines(file)))


def statement_at(call: UserCall) -> ast.stmt | None:
    """The innermost statement that holds a line; of several on it, that with the call's text."""
    held = [
        node
        for node in ast.walk(_module(call.file) or ast.Module([], []))
        if isinstance(node, ast.stmt) and node.lineno <= call.line <= (node.end_lineno or 0)
    ]
    if not held:
        return None
    innermost = [node for node in held if node.lineno == max(n.lineno for n in held)]
    code = _normal(call.code)
    return next((node for node in innermost if code in ast.unparse(node)), innermost[-1])


def _normal(code: str) -> str:
    """Source text as Python would print it."""
    try:
        return ast.unparse(ast.parse(code.strip()))
    except SyntaxError:
        return code


def line_of(call: UserCall) -> str:
    """The statement at a call, on one line; its expression where the source is not at hand."""
    statement = statement_at(call)
    if statement is None or isinstance(statement, _BLOCKS):
        return call.code
    return ast.unparse(statement)


_BLOCKS = (
    ast.For, ast.While, ast.With, ast.If, ast.Try, ast.FunctionDef, ast.ClassDef,
    ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef,
)  # fmt: skip


def assigned_names(call: UserCall) -> list[str]:
    """The names that the statement of a call binds."""
    statement = statement_at(call)
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)):
        targets = [statement.target]
    return [n for target in targets for n in _plain_names(target)]


def _plain_names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, (ast.Tuple, ast.List)):
        for item in target.elts:
            yield from _plain_names(item)
    elif isinstance(target, (ast.Name, ast.Attribute)):
        yield ast.unparse(target)


def names_read(call: UserCall) -> set[str]:
    """The plain and dotted names in the expression of a call."""
    expression = expression_of(call.code)
    if expression is None:
        return set()
    nodes = ast.walk(expression)
    return {ast.unparse(n) for n in nodes if isinstance(n, (ast.Name, ast.Attribute))}


def latest_assignment(name: str, before: UserCall) -> UserCall | None:
    """The last line above a call that binds ``name``."""
    found: UserCall | None = None
    for node in ast.walk(_module(before.file) or ast.Module([], [])):
        if isinstance(node, ast.Assign) and node.lineno < before.line:
            names = [n for target in node.targets for n in _plain_names(target)]
            if name in names and (found is None or node.lineno > found.line):
                found = UserCall("", before.file, node.lineno, ast.unparse(node))
    return found


def writes_to(name: str, near: UserCall) -> list[UserCall]:
    """Statements that write to ``name`` in place, in the function that a call stands in."""
    found = []
    for node in _scope(near):
        if isinstance(node, (ast.AugAssign, ast.Assign, ast.Expr)):
            code = node.value if isinstance(node, ast.Expr) else node
            call = UserCall("", near.file, node.lineno, ast.unparse(code))
            if written_name(call) == name:
                found.append(call)
    return sorted(found, key=lambda call: call.line)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _scope(near: UserCall) -> list[ast.AST]:
    """What stands in the innermost function that holds a line, functions within it left out."""
    scope: ast.AST = _module(near.file) or ast.Module([], [])
    for node in ast.walk(scope):
        if isinstance(node, _FUNCTIONS) and node.lineno <= near.line <= (node.end_lineno or 0):
            scope = node
    found, stack = [], list(ast.iter_child_nodes(scope))
    while stack:
        node = stack.pop()
        if not isinstance(node, _FUNCTIONS):
            found.append(node)
            stack.extend(ast.iter_child_nodes(node))
    return found


class _WithoutCut(ast.NodeTransformer):
    """Takes ``.detach()``, ``.detach_()`` and ``.data`` away."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        method = node.func
        cuts = isinstance(method, ast.Attribute) and method.attr in ("detach", "detach_")
        return method.value if cuts and isinstance(method, ast.Attribute) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        return node.value if node.attr == "data" else node


def without_cut(call: UserCall) -> str:
    """The statement of a call, with its graph left on; empty if nothing there takes it away."""
    line = line_of(call)
    try:
        kept = ast.unparse(_WithoutCut().visit(ast.parse(line)))
    except SyntaxError:
        return ""
    return kept if kept != line else ""


def calls_of(name: str, file: str) -> list[UserCall]:
    """The calls of a function in a file, by the last part of its name."""
    nodes = ast.walk(_module(file) or ast.Module([], []))
    return [
        UserCall(name, file, node.lineno, ast.unparse(node))
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
    ]


def modules_in_place(file: str) -> list[UserCall]:
    """The calls that make a module which works in place: ``nn.ReLU(inplace=True)``."""
    nodes = ast.walk(_module(file) or ast.Module([], []))
    return [
        UserCall("", file, node.lineno, ast.unparse(node))
        for node in nodes
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2][:1].isupper()
        and any(k.arg == "inplace" and ast.unparse(k.value) == "True" for k in node.keywords)
    ]


def expression_of(code: str) -> ast.expr | None:
    try:
        return ast.parse(code.strip(), mode="eval").body
    except SyntaxError:
        return None


def written_name(call: UserCall) -> str:
    """What the program calls the tensor that a call writes to in place; empty if that is no plain
    or dotted name."""
    target = _target(statement_at(call), call)
    while isinstance(target, ast.Subscript):
        target = target.value
    return ast.unparse(target) if isinstance(target, (ast.Name, ast.Attribute)) else ""


def _target(statement: ast.stmt | None, call: UserCall) -> ast.expr | None:
    if isinstance(statement, ast.AugAssign):
        return statement.target
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript):
        return statement.targets[0]
    expression = expression_of(call.code)
    if not isinstance(expression, ast.Call):
        return None
    for keyword in expression.keywords:
        if keyword.arg == "out":
            return keyword.value
        if keyword.arg == "inplace":
            return next(iter(expression.args), None)
    method = expression.func
    if isinstance(method, ast.Attribute) and method.attr.endswith("_"):
        plain = not (isinstance(method.value, ast.Name) and method.value.id in ("torch", "F"))
        return method.value if plain else next(iter(expression.args), None)
    return None


def out_of_place(call: UserCall) -> str:
    """The statement of a write in place, written so that it makes a new tensor; empty if it
    cannot be told."""
    statement = statement_at(call)
    if isinstance(statement, ast.AugAssign) and not isinstance(statement.target, ast.Subscript):
        read = ast.parse(ast.unparse(statement.target), mode="eval").body
        return ast.unparse(
            ast.Assign([statement.target], ast.BinOp(read, statement.op, statement.value), lineno=0)
        )
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
        value = _not_in_place(statement.value)
        return f"{ast.unparse(statement.targets[0])} = {value}" if value else ""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        target, value = written_name(call), _not_in_place(statement.value)
        return f"{target} = {value}" if target and value else ""
    return ""


def _not_in_place(call: ast.Call) -> str:
    """``b.add(1)`` for ``b.add_(1)``, ``F.relu(x)`` for ``F.relu(x, inplace=True)``."""
    kept = [k for k in call.keywords if k.arg not in ("out", "inplace")]
    if len(kept) < len(call.keywords):
        return ast.unparse(ast.Call(call.func, call.args, kept))
    method = call.func
    if not (isinstance(method, ast.Attribute) and method.attr.endswith("_")):
        return ""
    name = method.attr.removesuffix("_")
    arguments = ", ".join(map(ast.unparse, call.args))
    if method.attr in _OUT_OF_PLACE:
        target = ast.unparse(method.value)
        return _OUT_OF_PLACE[method.attr].format(target=target, arguments=arguments)
    if not hasattr(Tensor, name):
        return ""
    return ast.unparse(ast.Call(ast.Attribute(method.value, name), call.args, kept))


_SECOND = {"other", "mat2", "exponent", "tensor2", "vec2", "vec", "batch2", "weight"}


def with_cloned_result(call: UserCall) -> str:
    """The statement of a call, made to keep its result for itself and hand on a copy."""
    expression = expression_of(call.code)
    return _with_clone(call, expression, expression)


def with_cloned_operand(call: UserCall, operand: str) -> str:
    """The statement of a call, made to work on a copy of one operand."""
    expression = expression_of(call.code)
    found: ast.expr | None = None
    if isinstance(expression, ast.BinOp):
        found = expression.right if operand in _SECOND else expression.left
    elif isinstance(expression, ast.Call):
        place = 1 if operand in _SECOND else 0
        arguments = [*_bound(expression), *expression.args]
        found = arguments[place] if place < len(arguments) else None
    elif isinstance(expression, ast.Subscript):
        found = expression.value if operand == "self" else expression.slice
    return _with_clone(call, expression, found)


def through_a_copy(call: UserCall, operand: str) -> str:
    """The statement of a write in place that saves something itself, made to compute on copies
    and write the result: ``b.copy_(b.clone() * w)`` for ``b *= w``."""
    statement = statement_at(call)
    if isinstance(statement, ast.AugAssign):
        target = ast.parse(ast.unparse(statement.target), mode="eval").body
        value: ast.expr = ast.BinOp(target, statement.op, statement.value)
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        target = _target(statement, call) or ast.Name("")
        value = expression_of(_not_in_place(statement.value)) or ast.Name("")
    else:
        return with_cloned_operand(call, operand)  # b[0] = f(b): what is saved is in the value
    code = ast.unparse(value)
    made = UserCall("", "", 0, code)
    copied = code if operand.startswith("result") else with_cloned_operand(made, operand)
    name = ast.unparse(target)
    if not copied or not name:
        return ""
    return f"{name} = {copied}" if isinstance(target, ast.Subscript) else f"{name}.copy_({copied})"


class _Cloned(ast.NodeTransformer):
    """Puts a copy in the place of one part of an expression."""

    def __init__(self, part: ast.expr) -> None:
        self._part = part

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._part:
            return ast.Call(ast.Attribute(self._part, "clone"), [], [])
        return self.generic_visit(node)


def _with_clone(call: UserCall, whole: ast.expr | None, part: ast.expr | None) -> str:
    if whole is None or part is None:
        return ""
    line, code = line_of(call), ast.unparse(whole)
    cloned = ast.unparse(_Cloned(part).visit(whole))
    return line.replace(code, cloned, 1) if code in line else ""


def _bound(call: ast.Call) -> list[ast.expr]:
    """What a method is called on; nothing for functions of a module."""
    method = call.func
    return (
        [method.value] if isinstance(method, ast.Attribute) and not _is_module(method.value) else []
    )


def _is_module(value: ast.expr) -> bool:
    return ast.unparse(value) in ("torch", "F", "nn.functional", "torch.nn.functional", "np")


def _binds_tightly(part: ast.expr) -> bool:
    return isinstance(part, (ast.Name, ast.Attribute, ast.Call, ast.Subscript))


def leaf_made_last(code: str) -> str:
    """An expression whose tensor is made first, and made to require a gradient at the end."""
    expression = expression_of(code)
    if expression is None:
        return ""
    asked = False
    for node in ast.walk(expression):
        if isinstance(node, ast.Call):
            kept = [k for k in node.keywords if k.arg != "requires_grad"]
            method = node.func
            asked = asked or len(kept) < len(node.keywords)
            node.keywords = kept
            if isinstance(method, ast.Attribute) and method.attr == "requires_grad_":
                return ""
    if not asked:
        return ""
    text = ast.unparse(expression)
    tight = _binds_tightly(expression)
    return f"{text}.requires_grad_()" if tight else f"({text}).requires_grad_()"


def arguments_of(code: str) -> list[str]:
    """The arguments of a call, as they are written."""
    expression = expression_of(code)
    if not isinstance(expression, ast.Call):
        return []
    return [ast.unparse(a) for a in (*expression.args, *(k.value for k in expression.keywords))]


def receiver(code: str) -> str:
    """The plain or dotted name whose method is called, or that is the first argument."""
    expression = expression_of(code)
    if not isinstance(expression, ast.Call):
        return ""
    found = next(iter([*_bound(expression), *expression.args]), None)
    return ast.unparse(found) if isinstance(found, (ast.Name, ast.Attribute)) else ""


def in_floating_point(call: UserCall) -> str:
    """The statement of a call that makes whole numbers, told to make floating point ones."""
    expression = expression_of(call.code)
    if not isinstance(expression, ast.Call):
        return ""
    new = _floating(expression)
    return line_of(call).replace(ast.unparse(expression), new, 1) if new else ""


def _floating(expression: ast.Call) -> str:
    method = expression.func
    if isinstance(method, ast.Attribute) and method.attr == "requires_grad_":
        return f"{ast.unparse(method.value)}.float().requires_grad_()"
    names = {keyword.arg for keyword in expression.keywords}
    if "requires_grad" not in names:
        return ""
    kept = [k for k in expression.keywords if k.arg != "dtype"]
    dtype = ast.keyword("dtype", ast.parse("torch.float32", mode="eval").body)
    return ast.unparse(ast.Call(method, expression.args, [dtype, *kept]))
