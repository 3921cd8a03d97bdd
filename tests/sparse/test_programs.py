"""The corpus of functions against dense autograd, and plans and sparse Jacobians against the corpus."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb

from .programs import PROGRAMS, Args, Bools, Func, Program

EVERY = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
needs_plans = pytest.mark.skipif(
    not hasattr(pb, "plan_jacobian"), reason="pullback.plan_jacobian is not there yet"
)


def without_aux(program: Program, func: Func) -> Func:
    return (lambda *args: func(*args)[0]) if program.has_aux else func


def dense_jacobian(program: Program, seed: int) -> np.ndarray[Any, Any]:
    """The matrix of all output elements by all selected input elements, a backward pass per row."""
    found: np.ndarray[Any, Any] = _kept_jacobian(program, seed).toarray()
    return found


@functools.cache
def _kept_jacobian(program: Program, seed: int) -> scipy.sparse.csr_array:
    func, args = program.make()[0], list(program.at(seed))
    chosen = program.argnums if isinstance(program.argnums, tuple) else (program.argnums,)
    for k in chosen:
        args[k] = pytree.tree_map(lambda t: t.detach().clone().requires_grad_(), args[k])
    inputs = pytree.tree_leaves([args[k] for k in chosen])
    outputs = pytree.tree_leaves(without_aux(program, func)(*args))
    rows = [row_of(out, k, inputs) for out in outputs for k in range(out.numel())]
    n = sum(x.numel() for x in inputs)
    return scipy.sparse.csr_array(torch.stack(rows).numpy() if rows else np.zeros((0, n)))


def row_of(output: Tensor, k: int, inputs: list[Tensor]) -> Tensor:
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(x).reshape(-1) for x in inputs])
    one_hot = torch.zeros(output.numel(), dtype=output.dtype)
    one_hot[k] = 1
    grads = torch.autograd.grad(
        output, inputs, one_hot.view(output.shape), retain_graph=True, materialize_grads=True
    )
    return torch.cat([g.reshape(-1) for g in grads])


def truth_of(program: Program) -> Bools:
    assert program.truth is not None
    return program.truth()


def test_names_are_unique() -> None:
    names = [program.name for program in PROGRAMS]
    assert len(set(names)) == len(names)


@EVERY
def test_every_nonzero_lies_in_the_pattern_of_theory(program: Program) -> None:
    truth = truth_of(program)
    for seed in (0, 1):
        assert not (dense_jacobian(program, seed) != 0)[~truth].any()


@EVERY
def test_every_place_of_the_pattern_is_nonzero_somewhere(program: Program) -> None:
    truth = truth_of(program)
    seen = np.zeros_like(truth)
    for seed in range(program.points):
        seen |= dense_jacobian(program, seed) != 0
        if seen[truth].all():
            return
    assert program.points == 0, f"{np.argwhere(truth & ~seen)[:5]} stayed zero"


@EVERY
def test_the_stated_numbers_fit_the_pattern(program: Program) -> None:
    truth = truth_of(program)
    assert program.nnz in (None, truth.sum())
    assert program.nnz_at_most is None or truth.sum() <= program.nnz_at_most <= truth.size
    if program.max_products is not None and truth.any():
        fewest = min(truth.sum(0).max(), truth.sum(1).max())
        assert fewest <= program.max_products <= min(truth.shape)


@pytest.mark.parametrize("name", ["a low-rank update", "a residual branch behind a gate"])
def test_a_zero_weight_hides_nothing_from_the_pattern(name: str) -> None:
    zero, woken = (
        next(p for p in PROGRAMS if p.name == f"{name}, {say}") for say in ("zero", "woken")
    )
    assert (dense_jacobian(zero, 0) != 0).sum() < truth_of(zero).sum()
    assert np.array_equal(truth_of(zero), truth_of(woken))


def plan_of(program: Program, func: Func, args: Args, **options: Any) -> Any:
    """A plan; where a looser pattern is allowed, so is the warning that says which op is loose."""
    with warnings.catch_warnings():
        if program.pattern is None:
            warnings.simplefilter("ignore")
        plain = without_aux(program, func)
        return pb.plan_jacobian(plain, *args, argnums=program.argnums, **options)


@functools.cache
def planned(program: Program, lift: Any) -> tuple[Func, Args, Any]:
    """A function, a point and a plan of it. Three tests look at it, of which one calls."""
    func, args = program.make()
    return func, args, plan_of(program, func, args, lift=lift)


@needs_plans
@EVERY
def test_the_plan_has_the_pattern_of_theory(program: Program) -> None:
    *_, plan = planned(program, "auto")
    found = plan.pattern.to_scipy().toarray()
    truth = truth_of(program)
    assert found.shape == truth.shape
    assert not (truth & ~found).any(), f"missed: {np.argwhere(truth & ~found)[:5]}"
    if program.pattern is not None:
        assert not (found & ~truth).any(), f"too many: {np.argwhere(found & ~truth)[:5]}"
    else:
        assert program.nnz_at_most is not None
        assert found.sum() <= program.nnz_at_most


@needs_plans
@EVERY
def test_the_plan_needs_no_more_products_than_stated(program: Program) -> None:
    if program.max_products is not None:
        *_, plain = planned(program, False)
        assert plain.num_products <= program.max_products
    *_, lifted = planned(program, True)
    if program.lifted_products is not None:
        assert lifted.lifted, lifted.notes
        assert lifted.num_products <= program.lifted_products


@needs_plans
@pytest.mark.parametrize("lift", ["auto", False, True])
@EVERY
def test_the_sparse_jacobian_is_the_dense_one_at_two_points(program: Program, lift: Any) -> None:
    """At both twice, since what is called again and again is replayed in another way."""
    func, args, plan = planned(program, lift)
    options = {"argnums": program.argnums, "has_aux": program.has_aux}
    jac = pb.jacobian(func, plan=plan, layout="scipy", **options)
    for call, point in enumerate((args, program.other(), args, program.other())):
        with warnings.catch_warnings():
            if program.pattern is None:
                warnings.simplefilter("ignore")
            result = jac(*point)
        matrix = result[0] if program.has_aux else result
        expected = dense_jacobian(program, call % 2)
        close = 1e-10 if expected.dtype == np.float64 and "precision" not in program.name else 1e-5
        np.testing.assert_allclose(matrix.toarray(), expected, rtol=close, atol=close)
