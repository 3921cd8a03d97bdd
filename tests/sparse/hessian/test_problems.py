"""Problems of optimizers' collections: exact patterns, and values away from the plan's sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pullback as pb

from .functions import Bools
from .problems import LOOSER, PROBLEMS, Problem
from .reference import caveats, dense_hessian

ROUNDING = 1e-10


def point(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, dtype=torch.float64, generator=generator) + 0.5


def shown(problem: Problem) -> Bools:
    points = [dense_hessian(problem.func, point(problem.n, seed)) for seed in (1, 2, 3)]
    return np.any([(values.abs() > ROUNDING).numpy() for values in points], axis=0)


def found(plan: pb.Plan) -> Bools:
    return plan.pattern.to_scipy().toarray().astype(bool)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_formula_has_the_pattern_that_is_written_beside_it(name: str) -> None:
    assert np.array_equal(shown(PROBLEMS[name]), PROBLEMS[name].pattern(PROBLEMS[name].n))


@pytest.mark.parametrize("lift", ["auto", True, False])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_pattern_is_exact_and_the_values_are_those_of_torch(name: str, lift: Any) -> None:
    func, n, pattern = PROBLEMS[name]
    plan = pb.plan_hessian(func, point(n, 0), lift=lift)
    assert caveats(plan) == []
    assert np.array_equal(found(plan), pattern(n))
    x = point(n, 9)
    truth = dense_hessian(func, x)
    matrix = pb.hessian(func, plan=plan)(x).to_dense()
    torch.testing.assert_close(matrix, truth, rtol=1e-12, atol=1e-13 * float(truth.abs().max()))


@pytest.mark.parametrize("name", LOOSER)
def test_a_pattern_that_is_looser_misses_nothing(name: str) -> None:
    problem, ours, _ = LOOSER[name]
    func, n, pattern = problem
    assert np.array_equal(shown(problem), pattern(n))
    plan = pb.plan_hessian(func, point(n, 0))
    assert np.array_equal(found(plan), ours(n))
    x = point(n, 9)
    torch.testing.assert_close(pb.hessian(func, plan=plan)(x).to_dense(), dense_hessian(func, x))
