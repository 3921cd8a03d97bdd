"""Heatmaps and sparsity patterns as matplotlib figures, without pyplot: no state, no window."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ._printable import printable
from .braille import Places, block_counts, block_row_bounds, places_facts
from .matrix import FloatMatrix, Shrunk, describe, finite_limit, shrink
from .numbers import count, number
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
_MOST_SQUARES = 80
_LEAST_BLOCKS, _MOST_BLOCKS = 24, 384
_HALF_SQUARE = 0.42
_MARK = "#2b3a4f"
_PAPER = "#f7f7f4"
_EDGE = "#c9cbc6"
_TINTS = (
    BLUE,
    ORANGE,
    "#2a8c82",
    "#8a4f9e",
    "#c79a1b",
    "#5fa3d9",
    "#a8324a",
    "#7f9431",
    "#df8fb0",
    "#6b4a35",
    "#74c7a5",
    "#767a96",
)
_BLANK, _NEUTRAL = "#ffffff", "#b9bcc0"
# The two last entries are for -2 (no place at all) and -1 (no color).
_TINT_TABLE = np.array([to_rgb(tint) for tint in (*_TINTS, _BLANK, _NEUTRAL)])
_GOLDEN = 0.6180339887
# The emptiest block that holds a place is still told from an empty one.
_FILLING = LinearSegmentedColormap.from_list("filling", ("#b7c4d6", "#6a87ab", _MARK))
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
    _name_axes(axes, (heatmap.title, heatmap.row_axis, heatmap.column_axis), notes, values.shape)
    if max(values.shape) <= _LEGIBLE:
        _write_values(axes, values, end)


def _extent(shrunk: Shrunk) -> tuple[float, float, float, float]:
    """Return the edges of the image in entries of the whole matrix, which the ticks count."""
    rows, columns = shrunk.values.shape
    return (-0.5, columns * shrunk.column_step - 0.5, rows * shrunk.row_step - 0.5, -0.5)


def _name_axes(
    axes: Axes, names: tuple[str, str, str], notes: Sequence[str], shape: tuple[int, ...]
) -> None:
    title, row_axis, column_axis = map(_drawable, names)
    below = "\n".join(_drawable_lines(note) for note in notes)
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.set_xlabel(f"{column_axis}\n{below}", fontsize=9, parse_math=False)
    axes.set_ylabel(row_axis, fontsize=9, parse_math=False)
    tall = 2 * shape[1] < shape[0] and _is_compact(shape)
    for axis, size, thin in ((axes.yaxis, shape[0], False), (axes.xaxis, shape[1], tall)):
        if size <= _LEGIBLE:
            axis.set_ticks(range(size))
        else:
            axis.set_major_locator(MaxNLocator(nbins=4 if thin else 7, integer=True))
            axis.set_major_formatter(FuncFormatter(lambda index, _: count(round(index))))
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


@dataclass(frozen=True, slots=True)
class Tints:
    """A color, -1 for none, of every one of the ``by``: "columns" or "rows"."""

    colors: npt.NDArray[np.int64]
    by: str


def spy_figure(
    places: Places, title: str = "", tints: Tints | None = None, axes: Axes | None = None
) -> Figure:
    """Draw the marked places of a matrix, in `axes` or alone in a figure of their own.

    Up to 80 rows and columns every place is a square; beyond, an image shows how full the blocks
    of entries are or, with `tints`, the color of one entry of each.
    """
    if axes is None:
        axes = _figure(_spy_size(places.shape), "").add_subplot()
    # Two lines: a tall matrix has no room for one.
    notes = [places_facts(places).replace(", density", "\ndensity")]
    if tints is not None:
        notes.append(_color_count(tints.colors))
    if 0 in places.shape:
        axes.set_title(_drawable(title), loc="left", fontsize=10, parse_math=False)
        _say_empty(axes, notes[0])
    else:
        if max(places.shape) <= _MOST_SQUARES:
            _draw_squares(axes, places, tints)
        else:
            notes += _draw_blocks(axes, places, tints)
        axes.set_aspect("equal" if _is_compact(places.shape) else "auto")
        _name_axes(axes, (title, "row", "column"), notes, places.shape)
        for side in axes.spines.values():
            side.set(color=_EDGE, linewidth=0.8)
    whole = axes.figure
    return whole if isinstance(whole, Figure) else whole.figure


def _is_compact(shape: tuple[int, ...]) -> bool:
    return 1 / 3 <= shape[0] / shape[1] <= 3


def _spy_size(shape: tuple[int, int]) -> tuple[float, float]:
    ratio = max(1 / 3, min(3.0, max(1, shape[1]) / max(1, shape[0])))
    return max(4.6, 1.2 + 4.6 * min(1.0, ratio)), 1.2 + 4.6 * min(1.0, 1 / ratio)


def _color_count(colors: npt.NDArray[np.int64]) -> str:
    number_of_colors = len(np.unique(colors[colors >= 0]))
    neutral = int((colors < 0).sum())
    text = f"{number_of_colors} color{'s' * (number_of_colors != 1)}"
    return f"{text}, {neutral} neutral (gray)" if neutral else text


def _draw_squares(axes: Axes, places: Places, tints: Tints | None) -> None:
    m, n = places.shape
    counts = np.full(m, n) if places.indptr is None else np.diff(places.indptr)
    rows = np.repeat(np.arange(m), counts)
    columns = np.tile(np.arange(n), m) if places.indices is None else places.indices
    centers = np.stack([columns, rows], axis=1)[:, np.newaxis, :]
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * _HALF_SQUARE
    faces: Any = _MARK
    if tints is not None:
        faces = _rgb(tints.colors[columns if tints.by == "columns" else rows])
    axes.add_collection(PolyCollection(list(centers + corners), facecolors=faces, linewidths=0))
    axes.set(xlim=(-0.5, n - 0.5), ylim=(m - 0.5, -0.5), facecolor=_PAPER)


def _draw_blocks(axes: Axes, places: Places, tints: Tints | None) -> list[str]:
    """Draw an image of blocks, and say what a cell of it is."""
    m, n = places.shape
    steps = _block_steps(axes, places.shape)
    shares = block_counts(places, *steps) / block_counts(Places(places.shape), *steps)
    edges = (-0.5, shares.shape[1] * steps[1] - 0.5, shares.shape[0] * steps[0] - 0.5, -0.5)
    place: dict[str, Any] = {"extent": edges, "interpolation": "nearest"}
    if tints is not None:
        axes.imshow(_rgb(_block_colors(places, tints, steps)), **place)
        meaning = "color of one nonzero in blocks of"
    else:
        filled = shares[shares > 0]
        least, most = (filled.min(), filled.max()) if filled.size else (1.0, 1.0)
        # A scale of one value is drawn in the color of its upper end.
        norm = LogNorm(vmin=least if least < most else most / 2, vmax=most)
        image = axes.imshow(np.ma.masked_equal(shares, 0), cmap=_FILLING, norm=norm, **place)
        if least < most:
            _share_bar(axes, image, least, most)
        meaning = "filled shares of blocks of"
    axes.set(xlim=(-0.5, n - 0.5), ylim=(m - 0.5, -0.5))
    if steps == (1, 1):
        return []
    return [f"cells: {meaning} {count(steps[0])} × {count(steps[1])} entries"]


def _block_steps(axes: Axes, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the block size, square in a matrix drawn to scale, that no pixel is too coarse for."""
    room = axes.get_window_extent()
    rows, columns = (
        max(1, -(-size // max(_LEAST_BLOCKS, min(_MOST_BLOCKS, int(0.8 * pixels)))))
        for size, pixels in zip(shape, (room.height, room.width), strict=True)
    )
    return (max(rows, columns),) * 2 if _is_compact(shape) else (rows, columns)


def _share_bar(axes: Axes, image: AxesImage, least: float, most: float) -> None:
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03)
    ticks = [least, (least * most) ** 0.5, most]
    bar.set_ticks(ticks, labels=[f"{number(float(f'{100 * t:.2g}'))} %" for t in ticks])
    bar.ax.tick_params(labelsize=8)
    bar.ax.minorticks_off()
    bar.outline.set(color=_EDGE, linewidth=0.8)
    bar.set_label("filled share", fontsize=9, color=_SOFT)


def _block_colors(places: Places, tints: Tints, steps: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the color of the last place in each block, and -2 where there is none."""
    last_rows, last_columns = (
        np.minimum(np.arange(step, size + step, step), size) - 1
        for size, step in zip(places.shape, steps, strict=True)
    )
    found = np.full((last_rows.size, last_columns.size), -2, dtype=np.int64)
    if places.indptr is None or places.indices is None:
        by_columns = tints.by == "columns"
        found[:] = tints.colors[last_columns if by_columns else last_rows[:, np.newaxis]]
        return found
    for row, (start, stop) in enumerate(block_row_bounds(places.indptr, steps[0])):
        columns = places.indices[start:stop]
        if tints.by == "columns":
            colors = tints.colors[columns]
        else:
            first = row * steps[0]
            counts = np.diff(places.indptr[first : first + steps[0] + 1])
            colors = np.repeat(tints.colors[first : first + steps[0]], counts)
        found[row, columns // steps[1]] = colors
    return found


def _rgb(colors: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the tints of colors: the palette's first, then hues spread by the golden ratio."""
    chosen = _TINT_TABLE[np.minimum(colors, len(_TINTS) - 1)]
    spread = np.stack(
        [colors * _GOLDEN % 1, 0.45 + 0.3 * (colors % 2), 0.85 - 0.15 * (colors % 3)], axis=-1
    )
    return np.where((colors < len(_TINTS))[..., np.newaxis], chosen, hsv_to_rgb(spread))


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
