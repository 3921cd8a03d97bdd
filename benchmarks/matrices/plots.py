"""Time against size, log-log: a plot for every family of problems that has two sizes or more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..timing import Timing
from .case import FORMS, Result
from .ours import IN_PLACE, NAMES, NO_PLAN

# One color for each program, one line style for each way to use it.
LINES = {
    "plain": ("tab:blue", ":"),
    "lifted": ("tab:blue", "--"),
    "compiled": ("tab:blue", "-"),
    IN_PLACE: ("tab:cyan", "-"),
    NO_PLAN: ("tab:cyan", ":"),
    "forward": ("0.6", "-"),
    "by hand": ("black", "--"),
    "torch.func": ("tab:red", "-"),
    "asdex values": ("tab:orange", "-"),
    "asdex BCOO": ("tab:orange", "--"),
    "asdex CSR": ("tab:orange", ":"),
    "sparsejac": ("tab:green", "-"),
}
OURS = (*NAMES, IN_PLACE, NO_PLAN)
assert set(LINES) == {*OURS, *FORMS, "forward", "by hand", "torch.func", "sparsejac"}


def draw(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write ``KIND.svg`` for each kind of problem, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = dict.fromkeys(result.problem.kind for result in results)
    written = []
    for kind in kinds:
        of_kind = [result for result in results if result.problem.kind == kind]
        if len(of_kind) > 1:
            path = folder / f"{kind}.svg"
            _figure(kind, of_kind).savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def _figure(kind: str, results: Sequence[Result]) -> Figure:
    ordered = sorted(results, key=lambda result: int(result.facts["nnz"]))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (color, style) in LINES.items():
        points = [
            (result.facts["nnz"], 1e3 * cell.median)
            for result in ordered
            if isinstance(cell := result.warm.get(name), Timing)
        ]
        if points:
            sizes, times = zip(*points, strict=True)
            label = f"pullback, {name}" if name in OURS else name
            axes.loglog(sizes, times, style, color=color, marker="o", markersize=3, label=label)
    matrix = results[0].problem.matrix.capitalize()
    axes.set_xlabel(f"entries of the {matrix} that may be nonzero")
    axes.set_ylabel("ms for one evaluation")
    axes.set_title(f"{kind}: one {matrix}, median")
    axes.grid(which="major", alpha=0.3)
    figure.legend(fontsize="small", loc="outside right upper")
    return figure
