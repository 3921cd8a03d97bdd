"""Objectives that people minimize: exact patterns, and values away from the plan's sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pullback as pb

from .energies import ENERGIES, NETWORKS, SQUARES
from .forms import FORMS, ORDERS
from .losses import LOSSES
from .masks import Objective, blocks, full
from .reference import caveats, dense_hessian

OBJECTIVES = {**FORMS, **LOSSES, **SQUARES, **ENERGIES, **NETWORKS}
ALL = {**OBJECTIVES, **ORDERS}
ROUNDING = 1e-12

PRODUCT = "torch's backward of a cumulative product couples a factor to itself, to give zero"
ORDER = "an index found from x stands for all that it could be, in the gather and in the scatter"

# Where ours is looser than what is possible: its own pattern, and the reason.
LOOSER = {
    "product": (full(5), PRODUCT),
    "products of rows": (blocks(3, 4), PRODUCT),
    "cross_entropy with a sample ignored": (blocks(4, 3), "which sample counts is not followed"),
    "max_pool": (blocks(2, 4), ORDER),
    "weighed squares of a sort": (full(5), ORDER),
    "the two largest": (full(5), ORDER),
    "squares of running maxima": (full(5), ORDER),
}
BY_ITSELF = {"gaussian_nll of the variance": "it reads values from data that vary"}


def point(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 0.7


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
def test_the_tables_say_what_is_possible(objective: Objective) -> None:
    func, shape, pattern = objective
    level = torch.full(shape, 0.6, dtype=torch.float64)
    shown = (dense_hessian(func, level).abs() > ROUNDING).numpy()
    for seed in range(1, 40):
        shown |= (dense_hessian(func, point(shape, seed)).abs() > ROUNDING).numpy()
        if np.array_equal(shown, pattern) and seed > 4:
            break
    assert np.array_equal(shown, pattern)


def assert_right(hess: pb.Hessian, objective: Objective) -> None:
    for seed in (90, 91):
        x = point(objective.shape, seed)
        truth = dense_hessian(objective.func, x)
        scale = 1 + float(truth.abs().max())
        torch.testing.assert_close(hess(x).to_dense(), truth, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("name", ALL)
def test_the_pattern_is_exact_and_the_values_are_those_of_torch(name: str) -> None:
    func, shape, pattern = ALL[name]
    plan = pb.plan_hessian(func, point(shape, 0))
    found = plan.pattern.to_scipy().toarray().astype(bool)
    assert not (pattern & ~found).any()
    assert np.array_equal(found, LOOSER[name][0] if name in LOOSER else pattern)
    assert BY_ITSELF[name] in plan.notes[0] if name in BY_ITSELF else caveats(plan) == []
    assert_right(pb.hessian(func, plan=plan), ALL[name])
    other = pb.plan_hessian(func, point(shape, 0), lift=not plan.lifted)
    assert other.pattern == plan.pattern
    assert_right(pb.hessian(func, plan=other), ALL[name])


def test_every_exception_is_one() -> None:
    assert set(LOOSER) | set(BY_ITSELF) <= set(ALL)
    assert all((rows & ~ALL[name].pattern).any() for name, (rows, _) in LOOSER.items())
