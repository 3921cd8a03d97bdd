"""The page model: what is to be shown, with no word on how any medium shows it."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .matrix import as_matrix

BoxKind: TypeAlias = Literal["output", "node", "leaf", "note"]


@dataclass(frozen=True, slots=True)
class Heading:
    """A section title; level 2 is a section of the page, 3 and 4 lie inside it."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Sentence:
    """A claim, and the (name, value) pairs that prove it."""

    text: str
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under column names; every row has one cell per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        _check_widths("Table", self.columns, self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """A matrix to be colored, kept as a read-only float64 copy.

    An array that is not 2-D is laid out by `as_matrix`, and axis names left at their defaults
    then say how. Complex entries are shown by their modulus.
    """

    title: str
    values: npt.NDArray[Any]
    row_axis: str = "row"
    column_axis: str = "column"
    unit: str = ""

    def __post_init__(self) -> None:
        given = np.asarray(self.values)
        matrix, row_axis, column_axis = as_matrix(given)
        object.__setattr__(self, "values", matrix)
        if given.ndim != 2 and (self.row_axis, self.column_axis) == ("row", "column"):
            object.__setattr__(self, "row_axis", row_axis)
            object.__setattr__(self, "column_axis", column_axis)
        if np.iscomplexobj(given) and not self.unit:
            object.__setattr__(self, "unit", "(modulus)")


@dataclass(frozen=True, slots=True)
class Grid:
    """Small multiples; with `shared` they are colored on one scale and may be compared."""

    blocks: tuple[Heatmap, ...]
    shared: bool = True


@dataclass(frozen=True, slots=True)
class OutlineRow:
    """One line of an outline: the first cell is its label, `depth` says how far it is nested."""

    depth: int
    cells: tuple[str, ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """A tree in reading order: a row's parent is the nearest row above it of smaller depth."""

    columns: tuple[str, ...]
    rows: tuple[OutlineRow, ...]

    def __post_init__(self) -> None:
        _check_widths("Outline", self.columns, tuple(row.cells for row in self.rows))


@dataclass(frozen=True, slots=True)
class Box:
    """A vertex of a diagram: `key` names it for arrows, `lines` are what the reader sees."""

    key: str
    lines: tuple[str, ...]
    kind: BoxKind = "node"


@dataclass(frozen=True, slots=True)
class Arrow:
    """A directed edge between the boxes with these keys."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Diagram:
    """Boxes joined by arrows, without cycles."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text whose lines and spaces are kept as they are."""

    text: str


Block: TypeAlias = Heading | Sentence | Table | Heatmap | Grid | Outline | Diagram | Code


@dataclass(frozen=True, slots=True)
class Page:
    """A titled sequence of blocks."""

    title: str
    blocks: tuple[Block, ...]


def _check_widths(what: str, columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    for index, cells in enumerate(rows):
        if len(cells) != len(columns):
            raise ValueError(
                f"{what}: row {index} has {len(cells)} cells, but there are "
                f"{len(columns)} columns; give one cell per column, empty ones included."
            )
