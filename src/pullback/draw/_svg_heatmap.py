"""A heatmap as SVG: one rectangle per cell, a color bar, index ticks, values where they fit."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from rich.cells import cell_len

from ._markup import tag
from .matrix import FloatMatrix, describe, finite_limit, shrink
from .numbers import number
from .page import Heatmap
from .palette import WHITE_TEXT_FROM, hue, strength

_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_LEGIBLE = 12
_MOST_CELLS = 64
_CHARACTER = 6.6
_TITLE_CHARACTER = 7.4
_BAR_STEPS = 20
_BAR_WIDTH = 160.0


@dataclass(frozen=True, slots=True)
class _Frame:
    """The cells' rectangle: cell (i, j) covers (left + j * w, top + i * h) and w by h more."""

    left: float
    top: float
    w: float
    h: float
    rows: int
    columns: int

    @property
    def right(self) -> float:
        return self.left + self.columns * self.w

    @property
    def bottom(self) -> float:
        return self.top + self.rows * self.h


def heatmap_svg(heatmap: Heatmap, limit: float | None = None) -> str:
    """Draw a heatmap as one inline `<svg>` element, colored after the text around it.

    `limit` is the modulus at either end of the color scale: by default the largest finite one.
    Matrices of more than 64 rows or columns are summarized by blocks, and say so.
    """
    limit = finite_limit(heatmap.values) if limit is None else limit
    shrunk = shrink(heatmap.values, _MOST_CELLS, _MOST_CELLS)
    written = max(heatmap.values.shape) <= _LEGIBLE
    frame = _frame(shrunk.values, written, bool(heatmap.row_axis))
    facts = describe(heatmap.values, heatmap.unit)
    foot = frame.bottom + (36 if heatmap.column_axis else 22)
    faintness = 0.16 if frame.w >= 8 else 0.07
    return _canvas(
        [
            tag("title", f"{heatmap.title}: {facts}" if heatmap.title else facts),
            tag("text", heatmap.title, class_="pb-name", x=0, y=14, font_weight=600),
            tag(
                "g",
                *_cells(shrunk.values, frame, limit),
                stroke="currentColor",
                stroke_opacity=faintness,
            ),
            *_marks(shrunk.values, frame, limit, written),
            *_ticks(frame, shrunk.row_step, shrunk.column_step),
            *_axes(heatmap, frame),
            *_bar(frame.left, foot, limit),
        ],
        [facts, shrunk.note] if shrunk.note else [facts],
        frame,
        foot + 44,
        cell_len(heatmap.title) * _TITLE_CHARACTER,
    )


def _canvas(
    parts: list[Markup], notes: list[str], frame: _Frame, top: float, least: float
) -> Markup:
    """Write the notes from `top` down, and size the picture so that nothing is cut."""
    said = max(cell_len(note) for note in notes) * _CHARACTER
    width = max(least, frame.right + 12, frame.left + max(said, _BAR_WIDTH + 24))
    height = top + 15 * len(notes) - 6
    lines = (
        tag("text", note, class_="pb-fact", x=frame.left, y=top + 15 * row, opacity=0.75)
        for row, note in enumerate(notes)
    )
    return tag(
        "svg",
        *parts,
        *lines,
        role="img",
        class_="pb-heatmap",
        width=width,
        height=height,
        viewBox=f"0 0 {width:.6g} {height:.6g}",
        font_family=_FONT,
        font_size=11.5,
        fill="currentColor",
    )


def _frame(values: FloatMatrix, written: bool, named_rows: bool) -> _Frame:
    rows, columns = values.shape
    left, top = (48.0 if named_rows else 34.0), 40.0
    if written:
        longest = max((len(number(value)) for value in values.flat), default=1)
        return _Frame(left, top, max(34.0, longest * _CHARACTER + 12), 27.0, rows, columns)
    side = min(22.0, max(7.0, 420.0 / max(1, rows, columns)))
    # A long thin matrix keeps cells that can be told apart across its short side.
    return _Frame(
        left,
        top,
        max(side, min(24.0, 60 / max(1, columns))),
        max(side, min(24.0, 60 / max(1, rows))),
        rows,
        columns,
    )


def _cells(values: FloatMatrix, frame: _Frame, limit: float) -> Iterator[Markup]:
    for (i, j), value in np.ndenumerate(values):
        finite = bool(np.isfinite(value))
        yield tag(
            "rect",
            class_="pb-cell" if finite else "pb-cell pb-broken",
            x=frame.left + j * frame.w,
            y=frame.top + i * frame.h,
            width=frame.w,
            height=frame.h,
            fill=hue(value) if finite else "currentColor",
            fill_opacity=round(strength(value, limit), 3) if finite else 0.12,
        )


def _marks(values: FloatMatrix, frame: _Frame, limit: float, written: bool) -> Iterator[Markup]:
    for (i, j), value in np.ndenumerate(values):
        x, y = frame.left + j * frame.w, frame.top + i * frame.h
        if written:
            yield _value(value, x + frame.w / 2, y + frame.h / 2 + 4, limit)
        elif not np.isfinite(value):
            yield _cross(x, y, frame.w, frame.h)


def _cross(x: float, y: float, w: float, h: float) -> Markup:
    path = f"M{x:.6g} {y:.6g}l{w:.6g} {h:.6g}M{x:.6g} {y + h:.6g}l{w:.6g} {-h:.6g}"
    return tag("path", d=path, stroke="currentColor", stroke_opacity=0.4)


def _value(value: float, x: float, y: float, limit: float) -> Markup:
    bold = bool(np.isfinite(value)) and strength(value, limit) >= WHITE_TEXT_FROM
    return tag(
        "text",
        number(value),
        class_="pb-value",
        x=x,
        y=y,
        text_anchor="middle",
        fill="#fff" if bold else "currentColor",
        font_weight=400 if np.isfinite(value) else 700,
    )


def _ticks(frame: _Frame, row_step: int, column_step: int) -> Iterator[Markup]:
    for j in _ticked(frame.columns, max(1, int(-(-30 // frame.w)))):
        x = frame.left + (j + 0.5) * frame.w
        yield _tick(str(j * column_step), x, frame.bottom + 15, "middle")
    for i in _ticked(frame.rows, max(1, int(-(-16 // frame.h)))):
        y = frame.top + (i + 0.5) * frame.h + 4
        yield _tick(str(i * row_step), frame.left - 6, y, "end")


def _ticked(cells: int, apart: int) -> range:
    """Return the ticked cells: every 1st, 2nd, 5th, 10th, 20th... one, at least `apart`."""
    steps = (base * 10**power for power in range(9) for base in (1, 2, 5))
    return range(0, cells, next(step for step in steps if step >= apart))


def _tick(label: str, x: float, y: float, anchor: str) -> Markup:
    return tag("text", label, class_="pb-tick", x=x, y=y, text_anchor=anchor, opacity=0.75)


def _axes(heatmap: Heatmap, frame: _Frame) -> Iterator[Markup]:
    if heatmap.column_axis:
        yield tag("text", heatmap.column_axis, class_="pb-axis", x=frame.left, y=frame.bottom + 31)
    if heatmap.row_axis:
        yield tag("text", heatmap.row_axis, class_="pb-axis", x=0, y=frame.top - 8)


def _bar(left: float, top: float, limit: float) -> Iterator[Markup]:
    step = _BAR_WIDTH / _BAR_STEPS
    for k in range(_BAR_STEPS):
        value = (k + 0.5) / _BAR_STEPS * 2 - 1
        opacity = round(strength(value, 1.0), 3)
        yield tag(
            "rect",
            class_="pb-scale",
            x=left + k * step,
            y=top,
            width=step,
            height=9,
            fill=hue(value),
            fill_opacity=opacity,
        )
    ends = ((number(-limit), 0.0, "start"), ("0", 0.5, "middle"), (number(limit), 1.0, "end"))
    for label, share, anchor in ends if limit else ends[1:2]:
        yield _tick(label, left + share * _BAR_WIDTH, top + 23, anchor)
