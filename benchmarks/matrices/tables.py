"""Results as tables: problems, set-up, first matrix, one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..timing import Cell, Ratio, Row, Table, Timing
from .case import FORMS, Cells, Result
from .ours import COMPILED, IN_PLACE, LIFTED, NAMES, NO_PLAN, PLAIN

SET_UP = (PLAIN, LIFTED, "asdex", "asdex detection", "asdex coloring", "sparsejac coloring")
COLD = ("pullback", COMPILED, "asdex", "asdex compilation")
WARM = (*NAMES, IN_PLACE, NO_PLAN, "forward", "by hand", "torch.func", *FORMS, "sparsejac")
ASDEX = "asdex ÷ pullback"
TITLES = {
    "jacobian": (
        "Problems",
        "Set-up: capture, detection, coloring",
        "From a function to its first matrix",
        "One evaluation",
    ),
    "hessian": (
        "Hessians: problems",
        "Hessians, set-up: capture, detection, coloring",
        "From a function to its first Hessian",
        "One Hessian",
    ),
}
NOTES = (
    "Entries that may be nonzero, and products of one evaluation: of the two plans, and of asdex, "
    "with its entries where it finds others.",
    '`pb.plan_{matrix}` with `lift=False` and with `lift="auto"`, in a process that has planned '
    "before; asdex's `{matrix}_sparsity` and `{matrix}_coloring_from_sparsity`, apart and as one. "
    'The ratio is to `lift="auto"`.',
    "The plan, what is captured or compiled, and one evaluation. `compiled` is measured once, with "
    "empty caches; asdex goes to its values under `jax.jit`, its set-up included. The ratio is to "
    "pullback without a compiler.",
    "With a plan, to a CSR tensor, under `no_grad`; `out=` writes into an earlier one, by the last "
    "of the ways before it; `no plan` is the dense `pb.{matrix}(f)`. asdex compiled, to its values "
    "alone, to BCOO and to SciPy's CSR, sparsejac compiled to BCOO. `torch.func` is the fastest of "
    "`jacrev` and `jacfwd`{dense}, in chunks of 32, of 256, and whole; left out above 1 GiB. `by "
    "hand` fills a value array whose structure is known beforehand. Ratios are of the fastest "
    "column of each; of pullback, of those that return a new sparse matrix.",
)
DENSE = {
    "jacobian": "",
    "hessian": " of the gradient, of `hessian`, and of `torch.autograd.functional.hessian`",
}
COLORINGS = " Between them, the colors of the whole matrix by {}."


def as_tables(matrix: str, results: Sequence[Result], against: str) -> list[Table]:
    titles = TITLES[matrix]
    _, *notes = (note.format(matrix=matrix, dense=DENSE[matrix]) for note in NOTES)
    set_up, cold, warm = (f"{note} {against}" for note in notes)
    return [
        _problems(titles[0], results),
        _table(
            titles[1],
            SET_UP,
            [(r.problem.name, r.set_up) for r in results],
            (Ratio(ASDEX, ("asdex",), (LIFTED,)),),
            set_up,
        ),
        _table(
            titles[2],
            COLD,
            [(r.problem.name, r.cold) for r in results],
            (Ratio(ASDEX, ("asdex",), ("pullback",)),),
            cold,
        ),
        _table(
            titles[3],
            WARM,
            [(r.problem.name, r.warm) for r in results],
            (
                Ratio(ASDEX, tuple(FORMS), NAMES),
                Ratio("torch.func ÷ pullback", ("torch.func",), NAMES),
                Ratio("torch.func ÷ no plan", ("torch.func",), (NO_PLAN,)),
                Ratio("pullback ÷ by hand", NAMES, ("by hand",)),
                Ratio("pullback ÷ forward", NAMES, ("forward",)),
            ),
            warm,
        ),
    ]


def _table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Cells]],
    ratios: Sequence[Ratio],
    note: str,
) -> Table:
    """Without the columns and ratios that nobody asked for."""
    there = tuple(name for name in columns if any(name in cells for _, cells in rows))
    kept = [ratio for ratio in ratios if {*ratio.slower, *ratio.faster} <= set(there)]
    return Table(
        title,
        there,
        tuple(Row(name, tuple(cells[column] for column in there)) for name, cells in rows),
        " ".join(filter(None, (note, *_once(there, rows)))),
        tuple(kept),
        spread=False,
        means=True,
    )


def _problems(title: str, results: Sequence[Result]) -> Table:
    colorings = tuple(results[0].facts["colors"]) if results else ()
    return Table(
        title,
        ("rows × columns", "entries", "plain", *colorings, "lift=auto", "asdex"),
        tuple(Row(result.problem.name, _facts(result.facts)) for result in results),
        NOTES[0] + (COLORINGS.format(", ".join(colorings)) if colorings else ""),
        compare=False,
    )


def _facts(facts: dict[str, Any]) -> tuple[str, ...]:
    theirs = facts.get("asdex")
    asdex = "" if theirs is None else f"{theirs['products']} {theirs['mode']}"
    if theirs is not None and theirs["nnz"] != facts["nnz"]:
        asdex += f", {theirs['nnz']:,}"
    shape = f"{facts['rows']:,} × {facts['columns']:,}"
    colors = map(str, facts["colors"].values())
    return (shape, f"{facts['nnz']:,}", facts["plain"], *colors, facts["chosen"], asdex)


def _once(columns: Sequence[str], rows: Sequence[tuple[str, Cells]]) -> list[str]:
    """Says which cells are a single measurement, so that nobody reads a median into them."""
    single = [
        f"{column} on {name}"
        for name, cells in rows
        for column in columns
        if column not in (COMPILED, "sparsejac coloring") and _is_single(cells[column])
    ]
    return [f"Measured once, being slow: {'; '.join(single)}."] if single else []


def _is_single(cell: Cell) -> bool:
    return isinstance(cell, Timing) and cell.rounds == 1
