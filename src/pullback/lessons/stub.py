"""What a learner finds where the solution was: its names and signatures, and room to fill."""

from __future__ import annotations

import ast

_KEPT = (ast.Import, ast.ImportFrom, ast.AnnAssign)
BEGIN, END = "# your code", "# end of your code"


def stub_of(solution: str) -> str:
    """The solution with what the learner has to find out taken away.

    Lines from ``# your code`` to ``# end of your code`` become ``...``. Without such lines, every
    function keeps its signature and docstring, every assignment to names the names, every import
    stays; other statements go.

    >>> print(stub_of("def weigh(out):\\n    return out * 0\\n\\n\\nv = weigh(out)"))
    def weigh(out):
        ...  # your code
    <BLANKLINE>
    <BLANKLINE>
    v = ...  # your code
    """
    if any(line.strip() == BEGIN for line in solution.splitlines()):
        return _without_marked(solution)
    return _without_bodies(solution)


def names_of(solution: str) -> tuple[str, ...]:
    """The names that a solution binds at its top level.

    >>> names_of("def weigh(out):\\n    return out\\nv, w = 1, 2")
    ('weigh', 'v', 'w')
    """
    found: list[str] = []
    for node in ast.parse(solution).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            names = [n for target in node.targets for n in ast.walk(target)]
            found += [n.id for n in names if isinstance(n, ast.Name)]
    return tuple(dict.fromkeys(found))


def _without_marked(solution: str) -> str:
    kept: list[str] = []
    inside = False
    for line in solution.splitlines():
        if line.strip() == BEGIN:
            inside = True
            kept.append(f"{line[: len(line) - len(line.lstrip())]}...  {BEGIN}")
        elif line.strip() == END:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _without_bodies(solution: str) -> str:
    """Replace from the last line on, so that line numbers above stay true."""
    lines = solution.splitlines()
    for first, last, text in reversed(_replaced(ast.parse(solution).body, lines)):
        lines[first - 1 : last] = text
    return "\n".join(lines)


def _replaced(body: list[ast.stmt], lines: list[str]) -> list[tuple[int, int, list[str]]]:
    found: list[tuple[int, int, list[str]]] = []
    for node in body:
        if isinstance(node, ast.ClassDef):
            found += _replaced(node.body, lines)
        elif isinstance(node, ast.FunctionDef):
            inner = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if inner:
                room = f"{' ' * inner[0].col_offset}...  {BEGIN}"
                first = _first_line(lines, inner[0].lineno)
                found.append((first, node.end_lineno or node.lineno, [room]))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Tuple):
            target = node.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            names, blanks = ", ".join(map(ast.unparse, parts)), ", ".join(["..."] * len(parts))
            text = f"{' ' * node.col_offset}{names} = {blanks}  {BEGIN}"
            found.append((node.lineno, node.end_lineno or node.lineno, [text]))
        elif not isinstance(node, _KEPT) and not _is_docstring(node):
            found.append((node.lineno, node.end_lineno or node.lineno, []))
    return found


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _first_line(lines: list[str], statement: int) -> int:
    """Comments right above the first statement belong to the solution."""
    while lines[statement - 2].strip().startswith("#"):
        statement -= 1
    return statement
