"""Arrow heads and products over random sets, small against torch and large against theory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import pullback as pb

from .edge_pushing import (
    arrow_head,
    arrow_head_by_elements,
    of_arrow_head,
    of_random_sparsity,
    random_sparsity,
)
from .functions import Bools, Func
from .reference import caveats, dense_hessian

Family = Callable[[int], Func]


def point(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, dtype=torch.float64, generator=generator) + 0.5


SMALL: dict[str, tuple[Func, int, Bools]] = {
    "arrow head 20, 3": (arrow_head(3), 20, of_arrow_head(20, 3)),
    "arrow head 20, 16": (arrow_head(16), 20, of_arrow_head(20, 16)),
    "arrow head by elements 12, 2": (arrow_head_by_elements(2), 12, of_arrow_head(12, 2)),
    "random sparsity 24, 2": (random_sparsity(24, 2), 24, of_random_sparsity(24, 2)),
    "random sparsity 16, 5": (random_sparsity(16, 5), 16, of_random_sparsity(16, 5)),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_against_torch(name: str) -> None:
    func, n, expected = SMALL[name]
    plan = pb.plan_hessian(func, point(n, 0))
    assert caveats(plan) == []
    assert np.array_equal(plan.pattern.to_scipy().toarray(), expected)
    shown = np.zeros_like(expected)
    for seed in (1, 2, 3):
        x = point(n, seed)
        truth = dense_hessian(func, x)
        shown |= (truth != 0).numpy()
        torch.testing.assert_close(pb.hessian(func, plan=plan)(x).to_dense(), truth)
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize(
    ("func", "n", "expected"),
    [
        (arrow_head(16), 200, of_arrow_head(200, 16)),
        (arrow_head(2), 3200, of_arrow_head(3200, 2)),
        (random_sparsity(400, 2), 400, of_random_sparsity(400, 2)),
        (random_sparsity(100, 32), 100, of_random_sparsity(100, 32)),
    ],
    ids=["arrow head 200, 16", "arrow head 3200, 2", "random 400, 2", "random 100, 32"],
)
def test_the_sizes_of_the_papers(func: Func, n: int, expected: Bools) -> None:
    plan = pb.plan_hessian(func, point(n, 0))
    rows, cols = np.nonzero(expected)
    assert np.array_equal(plan.pattern.rows.numpy(), rows)
    assert np.array_equal(plan.pattern.cols.numpy(), cols)
    x = point(n, 5)
    v = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(func(leaf), leaf, create_graph=True)
    (along,) = torch.autograd.grad(gradient, leaf, v)
    torch.testing.assert_close(pb.hessian(func, plan=plan)(x) @ v, along)
