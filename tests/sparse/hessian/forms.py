"""Quadratic forms, norms and orders of elements, each with the exact pattern of its Hessian."""

from __future__ import annotations

import numpy as np
import torch

from .functions import band, first_row_and_column, quotient
from .masks import Objective, blocks, diagonal, full, nothing, number, planes, squares_of

# Quadratic forms, powers, norms

ROWS = torch.tensor([0, 0, 1, 3, 4, 5, 5])
COLS = torch.tensor([0, 3, 1, 5, 2, 5, 0])
DENSE = number(6, 6, seed=1)
FIVE, SEVEN = number(5), number(7)
COUPLED = squares_of(6, [])
COUPLED[ROWS, COLS] = COUPLED[COLS, ROWS] = True
NEXT = np.eye(6, k=1, dtype=bool) | np.eye(6, k=-1, dtype=bool)

FORMS: dict[str, Objective] = {
    "sum over the first": Objective(quotient, (10,), first_row_and_column(10)),
    "square of the sum": Objective(lambda x: x.sum() ** 2, (6,), full(6)),
    "sum of squares": Objective(lambda x: (x**2).sum(), (6,), diagonal(6)),
    "x A x": Objective(lambda x: x @ DENSE @ x, (6,), full(6)),
    "x A x by entries": Objective(lambda x: (SEVEN * x[ROWS] * x[COLS]).sum(), (6,), COUPLED),
    "x A x by diagonals": Objective(
        lambda x: (x**2).sum() + (FIVE * x[1:] * x[:-1]).sum(), (6,), band(6, 1)
    ),
    "products of neighbors": Objective(lambda x: (x[1:] * x[:-1]).sum(), (6,), NEXT),
    "cubes of diffs": Objective(lambda x: (x.diff() ** 3).sum(), (6,), band(6, 1)),
    "cubes of diffs of rows": Objective(
        lambda x: (x.diff(dim=1) ** 3).sum(), (2, 3), np.kron(diagonal(2), band(3, 1))
    ),
    "cubes of diffs of a view": Objective(
        lambda x: (x.reshape(-1).diff() ** 3).sum(), (2, 3), band(6, 1)
    ),
    "third differences": Objective(lambda x: (x.diff(n=3) ** 4).sum(), (9,), band(9, 3)),
    "product": Objective(lambda x: x.prod(), (5,), ~diagonal(5)),
    "products of rows": Objective(lambda x: x.prod(1).sum(), (3, 4), blocks(3, 4) & ~diagonal(12)),
    "sums of products": Objective(lambda x: x.cumprod(0)[-1], (5,), ~diagonal(5)),
    "norm": Objective(lambda x: x.norm(), (6,), full(6)),
    "norm 1": Objective(lambda x: x.norm(1), (6,), nothing(6)),
    "norm inf": Objective(lambda x: x.norm(float("inf")), (6,), nothing(6)),
    "norm 3": Objective(lambda x: torch.linalg.vector_norm(x, 3), (6,), full(6)),
    "norms of rows": Objective(lambda x: x.norm(dim=1).sum(), (4, 3), blocks(4, 3)),
    "norms of columns": Objective(lambda x: x.norm(dim=0).sum(), (4, 3), planes(4, 3)),
    "distances": Objective(
        lambda x: (x[1:] - x[:-1]).norm(dim=1).sum(), (4, 2), np.kron(band(4, 1), full(2))
    ),
    "max": Objective(lambda x: x.max(), (6,), nothing(6)),
    "total variation": Objective(lambda x: x.diff().abs().sum(), (6,), nothing(6)),
    "smooth total variation": Objective(
        lambda x: (x.diff() ** 2 + 1e-2).sqrt().sum(), (6,), band(6, 1)
    ),
    "squares of positive parts": Objective(lambda x: (x.relu() ** 2).sum(), (6,), diagonal(6)),
    "variance": Objective(lambda x: x.var(), (6,), full(6)),
    "entropies of rows": Objective(
        lambda x: -(x.softmax(1) * x.log_softmax(1)).sum(), (3, 4), blocks(3, 4)
    ),
    "logsumexp of rows": Objective(lambda x: x.logsumexp(1).sum(), (3, 4), blocks(3, 4)),
    "squares of sums so far": Objective(lambda x: (x.cumsum(0) ** 2).sum(), (6,), full(6)),
    "sums of sums so far": Objective(lambda x: x.cumsum(0).sum(), (6,), nothing(6)),
    "the matrix squared": Objective(
        lambda x: (x @ x).trace(),
        (3, 3),
        np.eye(9, dtype=bool)[np.arange(9).reshape(3, 3).T.ravel()],
    ),
    "determinant": Objective(
        lambda x: x[0, 0] * x[1, 1] - x[0, 1] * x[1, 0],
        (2, 2),
        np.eye(4, dtype=bool)[::-1],
    ),
    "logarithms of determinants": Objective(
        lambda x: torch.linalg.slogdet(x + 2 * torch.eye(3, dtype=x.dtype)).logabsdet.sum(),
        (2, 3, 3),
        blocks(2, 9),
    ),
    "inverses": Objective(
        lambda x: (x + 2 * torch.eye(2, dtype=x.dtype)).inverse().sum(), (3, 2, 2), blocks(3, 4)
    ),
}

# Equal elements share the gradient of max, amax and median, which couples them.
ORDERS: dict[str, Objective] = {
    "weighed squares of a sort": Objective(
        lambda x: (FIVE * x.sort().values ** 2).sum(), (5,), diagonal(5)
    ),
    "the two largest": Objective(lambda x: x.topk(2).values.prod(), (5,), ~diagonal(5)),
    "square of the largest": Objective(lambda x: x.max() ** 2, (5,), full(5)),
    "squares of the largest of rows": Objective(
        lambda x: (x.amax(1) ** 2).sum(), (3, 4), blocks(3, 4)
    ),
    "cube of the median": Objective(lambda x: x.median() ** 3, (5,), full(5)),
    "squares of running maxima": Objective(
        lambda x: (x.cummax(0).values ** 2).sum(), (5,), diagonal(5)
    ),
}
