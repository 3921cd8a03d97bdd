"""Results as JSON: every time with its quartiles and rounds, and every reason for a missing one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..options import Options
from ..report import environment
from ..timing import Cell
from .case import Cells, Result


def write(
    folder: Path, matrix: str, results: Sequence[Result], options: Options, against: str
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{matrix}s.json"
    content = {
        "environment": environment(),
        "peers": against,
        "threads": options.threads,
        "quick": options.quick,
        "problems": [as_json(result) for result in results],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def as_json(result: Result) -> dict[str, Any]:
    return {
        "problem": asdict(result.problem),
        "facts": result.facts,
        "set-up": _cells(result.set_up),
        "cold": _cells(result.cold),
        "warm": _cells(result.warm),
        "memory": result.memory,
        "wrong": result.wrong,
    }


def _cells(cells: Cells) -> dict[str, Any]:
    return {name: _cell(cell) for name, cell in cells.items()}


def _cell(cell: Cell) -> Any:
    return cell if isinstance(cell, str) else asdict(cell)
