"""A broken program, the verdict that it deserves, and the same program mended."""

from __future__ import annotations

import ast
import linecache
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import torch
from torch import Tensor

import pullback as pb

MARK = "# <- here"


@dataclass(frozen=True)
class Case:
    """One minimal program.

    ``broken`` raises an error of the kind ``code``; the line to change carries ``MARK``. ``mended``
    holds one of the ways that the verdict's fix offers (unless ``in_prose``), runs, and leaves in ``answer`` what
    ``expected`` computes from its variables by other means. ``says`` stands in the verdict's text,
    its evidence or its fix.
    """

    name: str
    code: str
    broken: str
    mended: str
    expected: Callable[[dict[str, Any]], Tensor]
    says: tuple[str, ...] = ()
    in_prose: bool = False

    def program(self, which: str) -> str:
        return (
            "import torch\nfrom torch import nn\n\n" + dedent(getattr(self, which)).strip() + "\n"
        )

    def marked_line(self) -> int:
        """The number of the line that is to be changed."""
        lines = self.program("broken").splitlines()
        marked = [number for number, line in enumerate(lines, 1) if line.endswith(MARK)]
        assert len(marked) == 1, f"{self.name}: one line carries the mark"
        return marked[0]


def run_program(source: str, folder: Path, name: str = "program") -> dict[str, Any]:
    """Run ``source`` as a script of its own."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    linecache.checkcache(str(path))
    space: dict[str, Any] = {"__name__": "__main__"}
    torch.manual_seed(0)
    exec(compile(source, str(path), "exec"), space)
    return space


def failure(case: Case, folder: Path, *, traced: bool = True) -> BaseException:
    """What the broken program raises."""
    try:
        with warnings.catch_warnings(), pb.trace() if traced else nullcontext():
            warnings.simplefilter("error")
            run_program(case.program("broken"), folder, case.name)
    except (Exception, Warning) as error:
        return error
    raise AssertionError(f"{case.name} raises nothing")


def line_to_change(verdict: pb.Verdict) -> str:
    return dict(verdict.evidence).get("line to change", "")


def blocks_of_fix(verdict: pb.Verdict) -> list[set[str]]:
    """The code of a fix, a set of lines for each of the ways that it offers."""
    blocks: list[set[str]] = []
    inside = False
    for line in verdict.fix.splitlines():
        if line.startswith("    "):
            if not inside:
                blocks.append(set())
            blocks[-1].add(plain(line))
        inside = line.startswith("    ")
    return blocks


def code_lines(source: str) -> set[str]:
    return {plain(line) for line in source.splitlines()}


def plain(line: str) -> str:
    """A line as Python would print it, without its margin and its comment."""
    try:
        return ast.unparse(ast.parse(line.strip()))
    except SyntaxError:
        return line.strip()
