"""A heatmap as text: aligned numbers where they fit, shades where they do not."""

from itertools import zip_longest

import numpy as np

from ._printable import printable
from .matrix import FloatMatrix, describe, finite_limit, shrink
from .numbers import number
from .page import Grid, Heatmap

LEGIBLE = 12
_SHADES = "░▒▓█"
_MAX_SHADED_ROWS = 32
_MAX_SHADED_COLUMNS = 64


def heatmap_lines(heatmap: Heatmap, width: int, limit: float | None = None) -> list[str]:
    """Set a heatmap; `limit` is the modulus that gets the darkest shade."""
    values = heatmap.values
    facts = describe(values, printable(heatmap.unit))
    caption = [f"{printable(heatmap.title)}  ({facts})" if heatmap.title else facts]
    if values.size == 0:
        return caption
    if max(values.shape) <= LEGIBLE:
        numbers = _number_lines(heatmap)
        if max(map(len, numbers)) <= width:
            return caption + numbers
    limit = finite_limit(values) if limit is None else limit
    axes = [name for name in (heatmap.row_axis, heatmap.column_axis) if name]
    down = f"{printable(axes[0])} down, " if len(axes) > 1 else ""
    across = [f"{down}{printable(axes[-1])} across"] if axes else []
    return caption + across + _shade_lines(values, width, limit)


def grid_lines(grid: Grid, width: int) -> list[str]:
    """Set small multiples side by side as far as the width goes."""
    limit = finite_limit(*(block.values for block in grid.blocks)) if grid.shared else None
    panels = [heatmap_lines(block, width, limit) for block in grid.blocks]
    lines: list[str] = []
    for band in _bands(panels, width):
        sizes = [max(map(len, panel)) for panel in band]
        rows = zip_longest(*band, fillvalue="")
        lines += [""] if lines else []
        lines += [
            "    ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip()
            for row in rows
        ]
    return lines


def _bands(panels: list[list[str]], width: int) -> list[list[list[str]]]:
    bands: list[list[list[str]]] = []
    used = 0
    for panel in panels:
        size = max(map(len, panel)) + 4
        if not bands or used + size - 4 > width:
            bands.append([])
            used = 0
        bands[-1].append(panel)
        used += size
    return bands


def _number_lines(heatmap: Heatmap) -> list[str]:
    values = heatmap.values
    rows, columns = printable(heatmap.row_axis), printable(heatmap.column_axis)
    corner = rf"{rows} \ {columns}" if rows else columns
    left = [corner, *(str(i) for i in range(values.shape[0]))]
    cells = [[str(j) for j in range(values.shape[1])]]
    cells += [[number(value) for value in row] for row in values]
    margin = max(map(len, left))
    widths = [max(len(row[j]) for row in cells) for j in range(values.shape[1])]
    return [
        f"{name:>{margin}}  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True))
        for name, row in zip(left, cells, strict=True)
    ]


def _shade_lines(values: FloatMatrix, width: int, limit: float) -> list[str]:
    shrunk = shrink(values, _MAX_SHADED_ROWS, max(1, min(_MAX_SHADED_COLUMNS, width - 2)))
    body = ["│" + "".join(_shade(value, limit) for value in row) + "│" for row in shrunk.values]
    legend = f"shades of |value|: blank 0, {_SHADES} in quarters up to {number(limit)}"
    if not np.isfinite(shrunk.values).all():
        legend += ", ? nan or inf"
    return [*body, legend, *([shrunk.note] if shrunk.note else [])]


def _shade(value: float, limit: float) -> str:
    if not np.isfinite(value):
        return "?"
    if value == 0:
        return " "
    quarter = int(np.ceil(len(_SHADES) * abs(value) / limit)) if limit else 1
    return _SHADES[min(max(quarter, 1), len(_SHADES)) - 1]
