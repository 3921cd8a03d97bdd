"""Showing values: pictures where a notebook is at hand, text elsewhere."""

from __future__ import annotations

import importlib
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .. import draw
from .._sensitivity import Sensitivity
from ..backward import views
from ..backward.record import BackwardRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(what: Any, title: str = "") -> None:
    """Show a record, a sensitivity, tensors by name, a figure, or whatever has ``plot()``."""
    if _in_notebook():
        _display(_figure_of(what, title))
    else:
        print(_text_of(what, title))


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _heatmaps(what: Any) -> list[draw.Heatmap]:
    if isinstance(what, BackwardRecord):
        return views.heatmaps(what)
    if isinstance(what, Sensitivity):
        return [
            views.heatmap(f"{name}: {key if isinstance(key, str) else 'gradient'}", gradient)
            for name, found in what.by_input.items()
            for key, gradient in found.items()
        ]
    named = {"": what} if isinstance(what, Tensor) else what
    return [views.heatmap(name, tensor) for name, tensor in named.items()]


def _is_drawn(what: Any) -> bool:
    return isinstance(what, BackwardRecord | Sensitivity | Tensor | dict)


def _text_of(what: Any, title: str) -> str:
    if _is_drawn(what):
        shared = not isinstance(what, BackwardRecord)
        text = draw.to_text(draw.Grid(tuple(_heatmaps(what)), shared=shared))
        return f"{title}\n\n{text}" if title else text
    if hasattr(what, "savefig"):
        path = Path(tempfile.mkdtemp(prefix="pullback-")) / "figure.png"
        path.write_bytes(_png(what))
        return f"The picture is in {path}"
    return str(what)


def _figure_of(what: Any, title: str) -> Figure:
    if _is_drawn(what):
        from ..draw.figures import heatmaps_figure

        shared = not isinstance(what, BackwardRecord)
        return heatmaps_figure(_heatmaps(what), title=title, shared=shared)
    figure: Figure = what if hasattr(what, "savefig") else what.plot()
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _display(figure: Figure) -> None:
    display: Any = importlib.import_module("IPython.display")
    display.display(display.Image(_png(figure)))
