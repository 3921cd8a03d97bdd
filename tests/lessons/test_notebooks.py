"""The notebooks: valid, the same cells as jupytext reads, executed by a kernel, never overwritten."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

import pullback as pb
from pullback.lessons import notebooks
from pullback.lessons.catalogue import entry_of, source_of

from .helpers import NUMBERS
from .warm_kernel import kernels


def text_of(cell: Any) -> str:
    streams = [o for o in cell["outputs"] if o["output_type"] == "stream"]
    return "".join("".join(output["text"]) for output in streams)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with kernels(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.mark.parametrize("number", NUMBERS)
def test_the_worked_notebook_runs_in_a_kernel_and_every_check_passes(
    number: int, tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first by the kernel that is installed, the others by kernels forked from a warm one."""
    if number != NUMBERS[0]:
        monkeypatch.setenv("JUPYTER_PATH", str(warm))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter client, in this process
        path = notebooks.write(number, tmp_path, worked=True)
    book = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(book)
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert not [o for o in cell["outputs"] if o["output_type"] == "error"]
        if "check" in cell["metadata"].get("tags", []):
            assert text_of(cell).startswith("Right."), text_of(cell)
        if "reveal" in cell["metadata"].get("tags", []):
            assert re.search(r"^It is [a-z]\) ", text_of(cell), re.MULTILINE)
    pictures = [o for c in code for o in c["outputs"] if "image/png" in o.get("data", {})]
    assert pictures, "a lesson has a picture"


@pytest.mark.parametrize("number", NUMBERS)
def test_the_fresh_notebook_has_no_solution_and_no_output(number: int, tmp_path: Path) -> None:
    book = json.loads(notebooks.write(number, tmp_path).read_text(encoding="utf-8"))
    nbformat.validate(book)
    source = source_of(number)
    texts = ["".join(cell["source"]) for cell in book["cells"]]
    for cell in source.cells:
        if cell.role == "solution":
            assert cell.text not in texts
        else:
            assert cell.text in texts
        if cell.role == "predict":
            written = [t for t in texts if t.startswith(f'lesson.predict("{cell.key}", "")')]
            assert len(written) == 1
    assert not any(cell.get("outputs") for cell in book["cells"])


@pytest.mark.parametrize("number", NUMBERS)
def test_jupytext_reads_the_same_cells(number: int) -> None:
    source = source_of(number)
    read = jupytext.reads(source.text, fmt="py:percent")
    pairs = [("markdown" if c.is_text else "code", c.text) for c in source.cells]
    assert [(c.cell_type, c.source) for c in read.cells] == pairs


def test_a_notebook_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = notebooks.write(1, tmp_path)
    path.write_text("my answers")
    with pytest.raises(pb.ArgumentError, match="may hold your answers; it was left as it is"):
        notebooks.write(1, tmp_path)
    assert path.read_text() == "my answers"
    assert path.name == f"{entry_of(1).slug}.ipynb"


def test_a_file_is_no_folder_for_notebooks(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(pb.ArgumentError, match="is a file; name a folder"):
        notebooks.write(1, taken)


def test_without_jupyter_a_worked_notebook_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pb.UnsupportedError, match=r"pip install 'pullback\[notebook\]'"):
        notebooks.write(1, tmp_path, worked=True)
    assert list(tmp_path.iterdir()) == []
    assert notebooks.write(1, tmp_path).exists()
