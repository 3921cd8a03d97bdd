"""The names that a code object reads, from its bytecode."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import NamedTuple


class CodeReads(NamedTuple):
    """``attributes`` holds the identifiers among the string constants too: ``getattr`` and
    ``attrgetter`` take them. ``imports`` are (name, level) as in the import statement."""

    globals: tuple[str, ...]
    attributes: frozenset[str]
    imports: tuple[tuple[str, int], ...]
    written: tuple[str, ...]


class _Names:
    def __init__(self) -> None:
        self.globals: dict[str, None] = {}
        self.attributes: set[str] = set()
        self.imports: dict[tuple[str, int], None] = {}
        self.written: dict[str, None] = {}

    def add(self, code: CodeType, outer: frozenset[str]) -> None:
        """``outer``: the free names that lie outside the outermost code object."""
        last: list[object] = [None, None]
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                last = [last[1], step.argval]
            elif step.opcode in dis.hasname:
                self._add_name(step.opname, step.argval, last[0])
            elif step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in outer:
                self.written[step.argval] = None
        for constant in _constants(code):
            if isinstance(constant, CodeType):
                self.add(constant, outer.intersection(constant.co_freevars))
            elif isinstance(constant, str):
                self.attributes.update(p for p in constant.split(".") if p.isidentifier())

    def _add_name(self, opname: str, name: str, level: object) -> None:
        if opname == "IMPORT_NAME":
            self.imports[name, level if isinstance(level, int) else 0] = None
        elif opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            self.written[name] = None
        elif opname.startswith(("STORE_", "DELETE_")):
            pass
        elif "GLOBAL" in opname or opname == "LOAD_NAME":
            self.globals[name] = None
        else:
            self.attributes.add(name)


def _constants(code: CodeType) -> Iterator[object]:
    stack: list[object] = list(code.co_consts)
    while stack:
        constant = stack.pop()
        if isinstance(constant, (tuple, frozenset)):
            stack.extend(constant)
        else:
            yield constant


@lru_cache(maxsize=4096)
def reads_of(code: CodeType) -> CodeReads:
    """What ``code`` and the code objects inside it (lambdas, local functions, classes) read."""
    names = _Names()
    names.add(code, frozenset(code.co_freevars))
    return CodeReads(
        tuple(names.globals),
        frozenset(names.attributes),
        tuple(names.imports),
        tuple(names.written),
    )
