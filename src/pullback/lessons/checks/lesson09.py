"""The exercises of lesson 9: coloring, reading back, lifting, and patterns that hold everywhere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import pullback as pb

from ..checking import (
    Case,
    CrashedError,
    Exercise,
    Misconception,
    Outcome,
    Own,
    called,
    right,
    same_function,
    wrong,
)
from ..values import as_tensor, difference, shown
from .several import fresh, given

Function = Callable[[Tensor], Tensor]

_SIZES = (3, 4, 5, 12, 50)


def _judge_colors(answer: Any, own: Own) -> Outcome:
    for n in _SIZES:
        came = called(answer, (n,), f"On n = {n}, it")
        found = as_tensor(came)
        if found is None or found.shape != (n,) or bool((found != found.round()).any()):
            return wrong(
                "return a list of n whole numbers, one per column.", f"On n = {n}: {shown(came)}"
            )
        told, hint = _clash(found.long().tolist(), n)
        if hint:
            return wrong(hint, told)
    return right("Neighbors and next neighbors differ, so no two columns of a color meet in a row.")


def _clash(colors: list[int], n: int) -> tuple[str, str]:
    """What shows that a coloring is wrong or wasteful, and the hint; two empty texts if neither."""
    shared = ((j, k) for d in (1, 2) for j in range(n - d) for k in (j + d,))
    for j, k in shared:
        if colors[j] == colors[k]:
            row = j + 1 if k == j + 2 else j
            told = f"n = {n}, colors {colors}: columns {j} and {k} have color {colors[j]}, and row "
            told += f"{row} has entries in both."
            return told, _clash_hint(colors)
    if len(set(colors)) > 3:
        told = f"n = {n}: {len(set(colors))} colors, so {len(set(colors))} products."
        return told, "that is valid, and wasteful: columns that share no row can share a color."
    return "", ""


def _clash_hint(colors: list[int]) -> str:
    if len(set(colors)) == 1:
        return "with one color for all, each entry of the product is the sum of a whole row of J."
    if len(set(colors)) == 2 and all(a != b for a, b in pairwise(colors)):
        return "neighbors differ, but columns 0 and 2 meet in row 1: two colors are too few."
    if sorted(colors) == colors:
        return (
            "those are blocks of columns side by side, and side by side they share rows. Take "
            "columns that are 3 apart."
        )
    return "columns j, j + 1 and j + 2 all have an entry in row j + 1: they need three colors."


def _banded(x: Tensor) -> Tensor:
    return x * x.roll(1, 0) + x.roll(-1, 0).sin()


def _short(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1]) ** 2 * x[1:]


def _compress_cases(own: Own) -> list[Case]:
    x = torch.tensor([0.5, -1.0, 2.0, 1.5, 3.0, -0.5], dtype=torch.float64)
    ring, short = "f = x * x.roll(1) + x.roll(-1).sin()", "f = (x[1:] - x[:-1]) ** 2 * x[1:]"
    return [
        Case(f"{text}, 6 entries, colors {colors}", fresh(f, x, colors))
        for text, f, colors in (
            (ring, _banded, [0, 1, 2, 0, 1, 2]),
            (ring, _banded, [2, 0, 1, 2, 0, 1]),
            (short, _short, [0, 1, 0, 1, 0, 1]),
            (short, _short, [0, 1, 2, 3, 4, 5]),
        )
    ]


def _matrix(f: Function, x: Tensor) -> Tensor:
    tensor: Tensor = torch.func.jacrev(f)(x.detach())
    return tensor


def _grouped(f: Function, x: Tensor, colors: list[int]) -> Tensor:
    matrix, chosen = _matrix(f, x), torch.tensor(colors)
    columns = [matrix[:, chosen == c].sum(1) for c in range(max(colors) + 1)]
    return torch.stack(columns, dim=1)


def _grouped_rows(f: Function, x: Tensor, colors: list[int]) -> Tensor:
    matrix, chosen = _matrix(f, x), torch.tensor(colors[: len(f(x))])
    return torch.stack([matrix[chosen == c].sum(0) for c in range(int(chosen.max()) + 1)])


def _first_of_each(f: Function, x: Tensor, colors: list[int]) -> Tensor:
    return _matrix(f, x)[:, [colors.index(c) for c in range(max(colors) + 1)]]


_COMPRESS = Exercise(
    same_function(
        _compress_cases,
        _grouped,
        (
            Misconception(
                lambda f, x, colors: _grouped(f, x, colors).T,
                "the products are rows of yours; they are columns of B, whose shape is (m, k).",
            ),
            Misconception(
                _grouped_rows,
                "those are rows of J, added up: VJPs. Colors of columns ask for JVPs.",
            ),
            Misconception(
                _first_of_each,
                "that is one column of each color; the tangent is 1 at *all* entries of the color.",
            ),
            Misconception(
                lambda f, x, colors: _matrix(f, x),
                "that is J itself: n products. Columns of one color share a product.",
            ),
        ),
        hint="for each color c, one JVP with the tangent (colors == c); stack them as columns.",
        praise="k products, and all of J is in there.",
    )
)


def _read_cases(own: Own) -> list[Case]:
    cases = []
    for text, f, m, colors in (
        ("the 6 x 6 of f = x * x.roll(1) + x.roll(-1).sin()", _banded, 6, [0, 1, 2, 0, 1, 2]),
        ("the same with colors 2 0 1 2 0 1", _banded, 6, [2, 0, 1, 2, 0, 1]),
        ("the 5 x 6 of f = (x[1:] - x[:-1]) ** 2 * x[1:]", _short, 5, [0, 1, 0, 1, 0, 1]),
    ):
        x = torch.arange(1.0, 7.0, dtype=torch.float64) / 3
        rows, cols = _matrix(f, x).nonzero().T
        cases.append(
            Case(f"B of {text}", fresh(_grouped(f, x, colors), rows, cols, torch.tensor(colors)))
        )
        assert len(f(x)) == m
    return cases


def _read(B: Tensor, rows: Tensor, cols: Tensor, colors: Tensor) -> Tensor:
    return torch.stack([B[i, colors[j]] for i, j in zip(rows, cols, strict=True)])


_READ_BACK = Exercise(
    same_function(
        _read_cases,
        _read,
        (
            Misconception(
                lambda B, rows, cols, colors: B[rows, colors[rows % len(colors)]],
                "you asked for the color of the row; the columns were colored: colors[cols].",
            ),
            Misconception(
                lambda B, rows, cols, colors: B[rows, cols % B.shape[1]],
                "that takes column j modulo k. It is right only if the colors happen to be 0, 1, "
                "2, 0, 1, 2...; ask `colors`.",
            ),
            Misconception(
                lambda B, rows, cols, colors: B.reshape(-1),
                "that is all of B, in its own order; asked is one value per (rows[e], cols[e]).",
            ),
            Misconception(
                lambda B, rows, cols, colors: B[rows].sum(1),
                "that adds up a row of B; an entry is in one place of it.",
            ),
        ),
        hint="entry (i, j) stands in B[i, colors[j]].",
        praise="Nothing to solve, nothing to approximate.",
    ),
    crashes=(("out of bounds", "the columns of B are the colors, not the columns of J."),),
)


def _lifted_cases(own: Own) -> list[Case]:
    x = torch.tensor([0.5, -1.0, 2.0, 1.5], dtype=torch.float64)
    differences = torch.eye(4, dtype=torch.float64)[1:] - torch.eye(4, dtype=torch.float64)[:-1]
    ring = torch.eye(4, dtype=torch.float64).roll(1, 0) * 2 - torch.eye(4, dtype=torch.float64)
    return [
        Case("F = d.square(), D (4, 4)", fresh(torch.square, ring, x)),
        Case("F = d.square(), D of differences, (3, 4)", fresh(torch.square, differences, x)),
        Case("F = d.sin(), D (4, 4)", fresh(torch.sin, ring, x)),
    ]


def _of_whole(F: Function, D: Tensor, x: Tensor) -> Tensor:
    return _matrix(lambda t: F(D @ t), x)


def _slope(F: Function, d: Tensor) -> Tensor:
    return _matrix(F, d).diagonal()


_LIFTED = Exercise(
    same_function(
        _lifted_cases,
        _of_whole,
        (
            Misconception(
                lambda F, D, x: _slope(F, x)[:, None] * D,
                "F has been differentiated at x; it is applied to D @ x, so that is where.",
            ),
            Misconception(
                lambda F, D, x: _slope(F, D @ x).diag(),
                "that is the Jacobian of F alone: by the chain rule D has to follow.",
            ),
            Misconception(
                lambda F, D, x: D * _slope(F, D @ x),
                "the diagonal multiplies the *rows* of D: J = diag(F') D, not D diag(F').",
            ),
            Misconception(
                lambda F, D, x: D.T @ _slope(F, D @ x),
                "that is a VJP with ones, one vector; J has a row per entry of D @ x.",
            ),
        ),
        hint="J = diag(F'(D x)) D; one VJP of F with ones gives the whole diagonal.",
        praise="One product, whatever D is.",
    ),
)


def _product(x: Tensor) -> Tensor:
    return x * x.roll(1)


def _judge_blind(answer: Any, own: Own) -> Outcome:
    x = as_tensor(answer)
    if x is None or x.shape != (6,):
        has = f"shape {tuple(x.shape)}" if x is not None else f"a {type(answer).__name__}"
        return wrong("give a tensor of 6 entries.", f"blind is {has}.")
    x = x.double()
    if not bool(x.isfinite().all()):
        return wrong("nan and inf are no points; finite numbers do it.", f"blind = {shown(x)}")
    matrix = _matrix(_product, x)
    count = int(matrix.count_nonzero())
    told = f"At {shown(x)}, {count} of 12 derivatives are nonzero."
    if count == 12:
        return wrong(
            "every derivative of x * x.roll(1) is an entry of x: make one of those 0.", told
        )
    if count == 0:
        return wrong("that is the origin; leave some entries nonzero.", told)
    elsewhere = torch.arange(1.0, 7.0, dtype=torch.float64)
    short = pb.plan_jacobian(_product, x, pattern=matrix != 0)
    lost = pb.jacobian(_product, plan=short)(elsewhere).to_dense()
    gap = float((lost - _matrix(_product, elsewhere)).abs().max())
    return right(
        f"{count} nonzeros at your point. With those places alone, the matrix at (1, 2, ..., 6) "
        f"would be off by up to {gap:g}; a plan made at your point still has all 12."
    )


def _judge_mine(answer: Any, own: Own) -> Outcome:
    f, x = given(answer, "my_f", "my_x")
    if not isinstance(x, Tensor) or x.dtype != torch.float64 or x.numel() < 8:
        has = f"{x.dtype}, {x.numel()} entries" if isinstance(x, Tensor) else shown(x)
        return wrong("my_x is a float64 tensor of at least 8 entries.", f"my_x is {has}.")
    x = x.detach().clone()
    out, again = (called(f, (x.clone(),), "On my_x, my_f") for _ in range(2))
    if not isinstance(out, Tensor) or out.numel() < 8:
        has = f"{out.numel()} entries" if isinstance(out, Tensor) else shown(out)
        return wrong("my_f returns a tensor of at least 8 entries.", f"It gave {has}.")
    if not bool(out.isfinite().all()):
        return wrong("move my_x to where my_f is finite.", f"It gave {shown(out)}.")
    apart = difference(again, out)
    if apart:
        return wrong("my_f gives other numbers each time it is called.", f"Called twice: {apart}")
    try:
        plan = pb.plan_jacobian(f, x)
        pb.verify(f, x, plan=plan)
    except Exception as error:
        raise CrashedError(error, "Planning my_f") from error
    fewest, count = min(plan.pattern.shape), plan.num_products
    told = f"{count} products, where {fewest} give any matrix of that shape."
    if plan.pattern.nnz == 0:
        return wrong("no entry of J can be nonzero: my_f does not depend on x.", told)
    if 4 * count > fewest:
        return wrong(_dense_hint(plan), told)
    return right(f"{told} Verified against autograd at my_x and near by.")


def _dense_hint(plan: pb.Plan) -> str:
    why = str(plan.pattern.why()) if plan.pattern.is_full else ""
    if why:
        return f"the pattern is full: {why} Let each output look at a few inputs only."
    return f"{plan.reason}. Let each output look at fewer inputs, or make the problem larger."


EXERCISES = {
    "colors": Exercise(_judge_colors),
    "compress": _COMPRESS,
    "read-back": _READ_BACK,
    "lifted": _LIFTED,
    "blind": Exercise(_judge_blind),
    "mine": Exercise(_judge_mine),
}
