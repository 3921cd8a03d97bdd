"""``verify``: it passes over right plans, and names what is wrong in others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.sparse import verify as verify_module

from .programs import PROGRAMS, Program

X = torch.linspace(0.2, 1.0, 8, dtype=torch.float64)
# Every fourth program of the corpus, so that each of its chapters is met.
SAMPLE = PROGRAMS[::4]


def differences(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1]) ** 2


def weighed(x: Tensor) -> Tensor:
    return torch.stack([x[0] * x[1], x[1] * x[2], x.prod()])


def said(func: Callable[..., Any], *args: Any, plan: pb.Plan, **options: Any) -> str:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.verify(func, *args, plan=plan, **options)
    return str(caught.value)


def test_the_sample_is_of_some_size() -> None:
    assert len(SAMPLE) >= 25


@pytest.mark.parametrize("program", SAMPLE, ids=lambda p: p.name)
def test_the_plans_of_the_corpus_are_right(program: Program) -> None:
    func, args = program.make()
    plain = (lambda *a: func(*a)[0]) if program.has_aux else func
    with warnings.catch_warnings():
        if program.pattern is None:
            warnings.simplefilter("ignore")
        plan = pb.plan_jacobian(plain, *args, argnums=program.argnums)
        pb.verify(plain, *program.other(), plan=plan)


def without(mask: Any, i: int, j: int) -> Any:
    short = np.array(mask)
    short[i, j] = False
    return short


@pytest.mark.parametrize("mode", ["rev", "fwd", "mixed", "dense"])
@pytest.mark.parametrize(("i", "j"), [(0, 0), (0, 1), (3, 4), (6, 7)])
def test_it_names_the_entry_that_is_missing(i: int, j: int, mode: str) -> None:
    mask = np.eye(7, 8, dtype=bool) | np.eye(7, 8, 1, dtype=bool)
    plan = pb.plan_jacobian(differences, X, mode=mode, pattern=without(mask, i, j))
    text = said(differences, X, plan=plan)
    entry = re.match(r"verify: the plan is wrong at entry \((\d+), (\d+)\): ", text)
    assert entry is not None
    # Where another entry is read from the same product, the missing one falsifies that entry too.
    J = torch.func.jacrev(differences)(X)
    row, col = int(entry[1]), int(entry[2])
    found = pb.jacobian(differences, plan=plan, layout=torch.strided)(X)
    assert found[row, col] != J[row, col]
    assert row == i or col == j


def test_the_entry_that_it_names_is_wrong_where_a_product_is_right_in_sum() -> None:
    """With all rows in one product, every column sum is right: only single rows tell."""
    func = lambda x: x * x.roll(1)  # noqa: E731
    plan = pb.plan_jacobian(func, X, pattern=np.eye(8, dtype=bool))
    entry = re.search(r"entry \((\d+), (\d+)\)", said(func, X, plan=plan))
    assert entry is not None
    i, j = int(entry[1]), int(entry[2])
    found = pb.jacobian(func, plan=plan, layout=torch.strided)(X)
    assert abs(found[i, j] - torch.func.jacrev(func)(X)[i, j]) > 1e-6


@pytest.mark.parametrize(("i", "j"), [(0, 0), (2, 2), (1, 2)])
def test_the_whole_text_of_a_missing_entry(i: int, j: int) -> None:
    x = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    truth = torch.func.jacrev(weighed)(x)
    mask = without(truth.numpy() != 0, i, j)
    plan = pb.plan_jacobian(weighed, x, mode="dense", pattern=mask)
    assert said(weighed, x, plan=plan) == (
        f"verify: the plan is wrong at entry ({i}, {j}): autograd gives {truth[i, j]:.6g} for the "
        f"derivative of output element {i} with respect to input element {j}, and the plan's "
        f"pattern has no such entry, so it counts as zero. Plan again for it: "
        f"pb.plan_jacobian(func, *args)."
    )


def test_it_finds_a_pattern_that_is_empty() -> None:
    plan = pb.plan_jacobian(differences, X, pattern=np.zeros((7, 8), dtype=bool))
    assert "the plan's pattern has no such entry" in said(differences, X, plan=plan)


def test_it_finds_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pb.plan_jacobian(differences, X)
    evaluate = verify_module.Session.evaluate

    def off(self: Any, *args: Any) -> Any:
        outcome = evaluate(self, *args)
        outcome.values = outcome.values.clone()
        outcome.values[5] += 0.125
        return outcome

    monkeypatch.setattr(verify_module.Session, "evaluate", off)
    i, j = int(plan.pattern.rows[5]), int(plan.pattern.cols[5])
    truth = float(torch.func.jacrev(differences)(X)[i, j])
    assert said(differences, X, plan=plan).startswith(
        f"verify: the plan is wrong at entry ({i}, {j}): autograd gives {truth:.6g} for the derivative "
        f"of output element {i} with respect to input element {j}, and the plan gives {truth + 0.125:.6g}."
    )


def test_it_finds_two_entries_that_changed_places(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pb.plan_jacobian(weighed, X[:3])
    evaluate = verify_module.Session.evaluate

    def swapped(self: Any, *args: Any) -> Any:
        outcome = evaluate(self, *args)
        outcome.values = outcome.values[torch.tensor([1, 0, *range(2, len(outcome.values))])]
        return outcome

    monkeypatch.setattr(verify_module.Session, "evaluate", swapped)
    assert re.search(r"entry \(0, [01]\)", said(weighed, X[:3], plan=plan))


def test_it_looks_near_the_point_too() -> None:
    """At 0 the square has no slope: the point itself shows nothing."""
    zero = torch.zeros(4, dtype=torch.float64)
    plan = pb.plan_jacobian(torch.square, zero, pattern=np.zeros((4, 4), dtype=bool))
    assert "the plan's pattern has no such entry" in said(torch.square, zero, plan=plan)


def test_more_places_than_needed_are_no_fault() -> None:
    plan = pb.plan_jacobian(differences, X, pattern=np.ones((7, 8), dtype=bool))
    pb.verify(differences, X, plan=plan)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_fault(dtype: torch.dtype) -> None:
    def func(x: Tensor) -> Tensor:
        return (1e4 * x).cumsum(0).sin() + 1e-6 * x

    x = torch.linspace(0, 1, 200, dtype=dtype)
    pb.verify(func, x, plan=pb.plan_jacobian(func, x))


def test_nan_where_autograd_has_nan_is_no_fault() -> None:
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    func = lambda x: x.sqrt() * torch.tensor([float("nan"), 1.0])  # noqa: E731
    pb.verify(func, x, plan=pb.plan_jacobian(func, x))


def test_a_loaded_plan_is_verified(tmp_path: Any) -> None:
    pb.plan_jacobian(differences, X).save(tmp_path / "plan")
    pb.verify(differences, X, plan=pb.Plan.load(tmp_path / "plan"))
    assert "wrong at entry" in said(lambda x: x[1:] * x[0], X, plan=pb.Plan.load(tmp_path / "plan"))


def test_several_inputs_and_aux() -> None:
    def func(a: Tensor, b: Tensor) -> tuple[Tensor, str]:
        return a * b.roll(1), "aux"

    args = (X, X.flip(0))
    plan = pb.plan_jacobian(func, *args, argnums=(0, 1), has_aux=True)
    pb.verify(func, *args, plan=plan, has_aux=True)
    short = pb.plan_jacobian(
        func, *args, argnums=(0, 1), has_aux=True, pattern=np.eye(8, 16, dtype=bool)
    )
    assert "entry (" in said(func, *args, plan=short, has_aux=True)


def test_a_function_that_draws() -> None:
    func = lambda x: torch.nn.functional.dropout(x * x.roll(1), 0.5)  # noqa: E731
    pb.verify(func, X, plan=pb.plan_jacobian(func, X))


def test_it_leaves_no_trace() -> None:
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)
    func = lambda x: x * weight  # noqa: E731
    plan = pb.plan_jacobian(func, X)
    x = X.clone().requires_grad_()
    pb.verify(func, x, plan=plan)
    assert x.grad is None
    assert weight.grad is None


def test_what_does_not_fit_is_refused() -> None:
    plan = pb.plan_jacobian(differences, X)
    assert said(differences, X[:5], plan=plan).startswith(
        "verify: the plan was made for `x` of shape (8,) and dtype float64, but it has shape (5,)"
    )
    assert said(differences, X, plan=3).startswith("verify: `plan` is a int, not a plan.")  # type: ignore[arg-type]
