"""Heatmaps as matplotlib figures, made without pyplot: no state, no window."""

from collections.abc import Sequence
from functools import cache
from math import isfinite

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator

from ._printable import printable
from .matrix import FloatMatrix, Shrunk, describe, finite_limit, shrink
from .numbers import number
from .page import Heatmap
from .palette import BLUE, ORANGE, WHITE_TEXT_FROM, strength

_PER_ROW = 4
_LEGIBLE = 12
# A panel is about 200 pixels wide: more cells than pixels would drop some unseen.
_MOST_CELLS = 128
# Beyond this, the difference of the scale's two ends overflows inside matplotlib.
_WIDEST = 1e300
_INK = "#1c1f24"
_SOFT = "#5c636d"
_BROKEN = "#e2e2dc"
_COLORS = LinearSegmentedColormap.from_list("blue-white-orange", (BLUE, "#ffffff", ORANGE))


def heatmaps_figure(heatmaps: Sequence[Heatmap], title: str = "", shared: bool = False) -> Figure:
    """Draw heatmaps side by side, four in a row; with `shared` all use one color scale.

    Values that are not finite are hatched. Matrices of more than 128 rows or columns are
    summarized by blocks, and the panel says so.
    """
    limit = finite_limit(*(heatmap.values for heatmap in heatmaps)) if shared else None
    across = min(_PER_ROW, max(1, len(heatmaps)))
    down = max(1, -(-len(heatmaps) // across))
    figure = _figure((1 + 3.7 * across, 0.4 + 3.4 * down), title)
    for place, heatmap in enumerate(heatmaps):
        axes = figure.add_subplot(down, across, place + 1)
        _draw_heatmap(figure, axes, heatmap, limit)
    return figure


def _figure(size: tuple[float, float], title: str) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    if title:
        heading = figure.suptitle(_drawable(title), x=0.01, ha="left", fontweight="bold")
        heading.set_parse_math(False)
    return figure


def _draw_heatmap(figure: Figure, axes: Axes, heatmap: Heatmap, limit: float | None) -> None:
    values = heatmap.values
    notes = [describe(values, heatmap.unit)]
    if values.size == 0:
        axes.set_title(_drawable(heatmap.title), loc="left", fontsize=10, parse_math=False)
        _say_empty(axes, notes[0])
        return
    end = min((finite_limit(values) if limit is None else limit) or 1.0, _WIDEST)
    shrunk = shrink(values, _MOST_CELLS, _MOST_CELLS)
    if shrunk.note:
        notes.append(f"cells: largest of {shrunk.row_step} × {shrunk.column_step} entries")
    axes.patch.set(facecolor=_BROKEN, hatch="////", edgecolor=_SOFT)
    image = axes.imshow(
        np.ma.masked_invalid(shrunk.values).clip(-end, end),
        cmap=_COLORS,
        vmin=-end,
        vmax=end,
        aspect="equal" if 1 / 3 <= values.shape[0] / values.shape[1] <= 3 else "auto",
        interpolation="nearest",
        extent=_extent(shrunk),
    )
    figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03).ax.tick_params(labelsize=8)
    _name_axes(axes, heatmap, "\n".join(notes))
    if max(values.shape) <= _LEGIBLE:
        _write_values(axes, values, end)


def _extent(shrunk: Shrunk) -> tuple[float, float, float, float]:
    """Return the edges of the image in entries of the whole matrix, which the ticks count."""
    rows, columns = shrunk.values.shape
    return (-0.5, columns * shrunk.column_step - 0.5, rows * shrunk.row_step - 0.5, -0.5)


def _name_axes(axes: Axes, heatmap: Heatmap, notes: str) -> None:
    axes.set_title(_drawable(heatmap.title), loc="left", fontsize=10, parse_math=False)
    axes.set_xlabel(
        f"{_drawable(heatmap.column_axis)}\n{_drawable_lines(notes)}",
        fontsize=9,
        parse_math=False,
    )
    axes.set_ylabel(_drawable(heatmap.row_axis), fontsize=9, parse_math=False)
    for axis, size in (
        (axes.yaxis, heatmap.values.shape[0]),
        (axes.xaxis, heatmap.values.shape[1]),
    ):
        if size <= _LEGIBLE:
            axis.set_ticks(range(size))
        else:
            axis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.tick_params(labelsize=8, length=2)


def _write_values(axes: Axes, values: FloatMatrix, end: float) -> None:
    longest = max(len(number(value)) for value in values.flat)
    size = min(9.0, 270 / (values.shape[1] * (longest + 1)))
    if size < 4:
        return
    for (i, j), value in np.ndenumerate(values):
        strong = isfinite(value) and strength(value, end) >= WHITE_TEXT_FROM
        axes.text(
            j,
            i,
            number(value),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if strong else _INK,
            bbox=None if isfinite(value) else {"facecolor": _BROKEN, "edgecolor": "none", "pad": 1},
        )


def _say_empty(axes: Axes, note: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, note, ha="center", va="center", color=_SOFT, transform=axes.transAxes)


def _drawable(text: str) -> str:
    """Replace the characters that the figure's font lacks, each of which would be a warning."""
    known = _characters()
    return "".join(char if ord(char) in known else "\ufffd" for char in printable(text))


def _drawable_lines(text: str) -> str:
    return "\n".join(_drawable(line) for line in text.split("\n"))


@cache
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())
