"""The patterns of small expressions: no entry missed, and none more than is possible."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import pullback as pb

from .functions import Bools
from .reference import caveats, dense_hessian
from .unit_patterns import CASES, LOOSER, OTHERS, Case, mask

ROUNDING = 1e-9


def numeric(case: Case, points: int = 12) -> Bools:
    """Where some point shows a number; where a negative base has no power there is none."""
    shown = np.zeros(case.pattern.shape, dtype=bool)
    for seed in range(points):
        values = dense_hessian(case.func, case.point(seed))
        shown |= (values.isfinite() & (values.abs() > ROUNDING)).numpy()
    return shown


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_pattern_is_what_is_possible(case: Case) -> None:
    plan = pb.plan_hessian(case.func, case.point(100))
    assert caveats(plan) == []
    found = plan.pattern.to_scipy().toarray().astype(bool)
    assert not (case.pattern & ~found).any()
    assert np.array_equal(
        found, mask(LOOSER[case.name][0]) if case.name in LOOSER else case.pattern
    )
    x = case.point(101).abs()
    values = pb.hessian(case.func, plan=plan, layout=torch.strided)(x)
    torch.testing.assert_close(values.reshape(found.shape), dense_hessian(case.func, x))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_table_says_what_is_possible(case: Case) -> None:
    assert np.array_equal(numeric(case), case.pattern)
    other = OTHERS.get(case.name)
    assert other is None or not np.array_equal(mask(other[0]), case.pattern)


@pytest.mark.parametrize("name", LOOSER)
def test_the_story_of_an_entry_that_is_never_there_names_the_nodes(name: str) -> None:
    case, (rows, _, nodes) = CASES[name], LOOSER[name]
    pattern = pb.plan_hessian(case.func, case.point(0)).pattern
    for i, j in np.argwhere(mask(rows) & ~case.pattern):
        story = str(pattern.why(int(i), int(j)))
        assert all(re.search(rf"\b{node}\b", story) for node in nodes), story
