"""Notebooks of a lesson: fresh, with stubs to fill; or worked, with solutions and outputs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from .._checks import lessons as checks
from .catalogue import entry_of, source_of
from .source import Source
from .stub import stub_of

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_SECONDS = 120


def notebook(number: int, *, worked: bool = False) -> dict[str, Any]:
    """The notebook as the mapping that its file holds (nbformat 4.5), nothing executed.

    Fresh: a stub in place of each solution, and a cell to write each prediction into.
    """
    cells = _cells(source_of(number), worked)
    for k, cell in enumerate(cells):
        cell["id"] = f"cell-{k}"
    return {
        "cells": cells,
        "metadata": {"kernelspec": _KERNEL, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def executed(number: int, folder: Path) -> dict[str, Any]:
    """The worked notebook, run from top to bottom in ``folder`` by a kernel of its own.

    Raises:
        UnsupportedError: nbclient, nbformat or ipykernel is not installed.
    """
    for name in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            raise checks.no_notebook_tools(name)
    nbclient, nbformat = importlib.import_module("nbclient"), importlib.import_module("nbformat")
    book = nbformat.from_dict(notebook(number, worked=True))
    client = nbclient.NotebookClient(
        book,
        timeout=_SECONDS,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # the times of this run
    found: dict[str, Any] = json.loads(nbformat.writes(book))
    return found


def write(number: int, folder: Path, *, worked: bool = False) -> Path:
    """Write the notebook into ``folder`` and return its path.

    Raises:
        ArgumentError: the file is there already (it may hold answers), or the folder is a file.
        UnsupportedError: a worked one is asked for, and the tools to run it are not installed.
    """
    if folder.exists() and not folder.is_dir():
        raise checks.out_is_a_file(folder)
    slug = entry_of(number).slug
    path = folder / f"{slug}{'_worked' if worked else ''}.ipynb"
    if path.exists():
        raise checks.notebook_is_there(path)
    folder.mkdir(parents=True, exist_ok=True)
    content = executed(number, folder) if worked else notebook(number)
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _cells(source: Source, worked: bool) -> list[dict[str, Any]]:
    found = []
    for cell in source.cells:
        if cell.is_text:
            found.append({"cell_type": "markdown", "metadata": {}, "source": cell.text})
            if cell.role == "predict" and not worked:
                found.append(
                    _code(f'lesson.predict("{cell.key}", "")  # {cell.letters}', "predict")
                )
        else:
            stubbed = cell.role == "solution" and not worked
            found.append(_code(stub_of(cell.text) if stubbed else cell.text, cell.role))
    return found


def _code(text: str, role: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {} if role == "code" else {"tags": [role]}
    if role == "proof":
        metadata["jupyter"] = {"source_hidden": True}
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": [],
        "source": text,
    }
