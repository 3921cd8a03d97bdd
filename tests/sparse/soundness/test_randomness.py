"""Rule 11: one draw per call, by the generators that the function uses, and nothing else drawn."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import pullback as pb

from .reference import CSR, assert_right, matrix_of, whole


def noisy(t: Tensor) -> Tensor:
    return F.dropout(t * t.roll(1), 0.5).sin()


def forked(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return x**2 * torch.rand(4)


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(7)
    return x**2 * torch.rand(4)


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x**2,
    "rand": lambda x: x**2 * torch.rand(4),
    "rand_like": lambda x: x**2 * torch.rand_like(x),
    "randn twice": lambda x: torch.randn(4) * x**2 + torch.randn_like(x) * x,
    "dropout": lambda x: F.dropout(x * x.roll(1), 0.5),
    "dropout p=0": lambda x: F.dropout(x**2, 0.0),
    "randint index": lambda x: (x**2)[torch.randint(0, 4, (6,))],
    "randperm": lambda x: x[torch.randperm(4)] ** 2,
    "bernoulli": lambda x: torch.bernoulli(torch.full((4,), 0.5)) * x**2,
    "in place": lambda x: torch.empty(4).normal_() * x**2,
    "normal": lambda x: torch.normal(x.detach(), 1.0) * x,
    "multinomial": lambda x: x[torch.multinomial(x.detach().exp(), 2)] ** 2,
    "rrelu": lambda x: F.rrelu(x - 0.5, training=True) * x,
    "checkpoint": lambda x: checkpoint(noisy, x, use_reentrant=False),
    "two checkpoints": lambda x: (
        checkpoint(noisy, checkpoint(noisy, x, use_reentrant=False), use_reentrant=False)
        * torch.rand(4)
    ),
    "read as well": lambda x: x**2 * torch.rand(4) * (1 + float(x.detach().sum())),
    "checkpoint, read as well": lambda x: (
        checkpoint(noisy, x, use_reentrant=False) * float(x.detach().sum())
    ),
    "only if": lambda x: x * torch.rand(4) if float(x.detach().sum()) > 1 else x**2,
    "seeded inside": seeded,
    "forked": forked,
}


@pytest.mark.parametrize("func", DRAWS.values(), ids=DRAWS.keys())
def test_the_draw_of_the_forward_is_the_one_that_counts(func: Callable[[Tensor], Tensor]) -> None:
    plan = pb.plan_jacobian(func, torch.rand(4) + 0.5)
    for seed, (grad, asks) in enumerate(((True, False), (True, True), (False, True))):
        own, given = pb.jacobian(func, layout=CSR), pb.jacobian(func, plan=plan)
        dense = pb.jacobian(func)
        with torch.set_grad_enabled(grad):
            for jac in (own, own, given, given, dense):
                torch.manual_seed(seed)
                assert_right(jac, func, (torch.rand(4) + 0.5).requires_grad_(asks))


@pytest.mark.parametrize("func", DRAWS.values(), ids=DRAWS.keys())
def test_planning_and_verifying_leave_the_generator_alone(
    func: Callable[[Tensor], Tensor],
) -> None:
    x = torch.rand(4) + 0.5
    before = torch.get_rng_state()
    plan = pb.plan_jacobian(func, x)
    assert torch.equal(torch.get_rng_state(), before)
    if "fork" not in func.__name__ and "seed" not in func.__name__:
        pb.verify(func, x, plan=plan)


def test_the_backward_alone_leaves_the_generator_alone() -> None:
    x = torch.rand(4, requires_grad=True)
    out = x * x.roll(1)
    before = torch.get_rng_state()
    pb.jacobian_of(out, x)
    assert torch.equal(torch.get_rng_state(), before)


def test_verifying_leaves_the_generator_alone() -> None:
    x = torch.rand(4)
    plan = pb.plan_jacobian(lambda x: x**2, x)
    before = torch.get_rng_state()
    pb.verify(lambda x: x**2, x, plan=plan)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_generators() -> None:
    own = torch.Generator()
    numpy_own, python_own = np.random.default_rng(0), random.Random(0)

    def numpy_state(state: Any = None) -> Any:
        if state is not None:
            numpy_own.bit_generator.state = state
        return numpy_own.bit_generator.state

    def legacy(state: Any = None) -> Any:
        if state is not None:
            np.random.set_state(state)
        return tuple(map(repr, state := np.random.get_state())) and state

    cases: list[tuple[Callable[[Tensor], Tensor], Any, Any]] = [
        (lambda x: x**2 * torch.rand(4, generator=own), own.get_state, own.set_state),
        (lambda x: x**2 * random.random(), random.getstate, random.setstate),
        (lambda x: x**2 * np.random.rand(), np.random.get_state, np.random.set_state),
        (lambda x: x**2 * python_own.random(), python_own.getstate, python_own.setstate),
        (lambda x: x**2 * numpy_own.normal(), numpy_state, numpy_state),
    ]
    for func, get, put in cases:
        x = torch.rand(4)
        before = get()
        plan = pb.plan_jacobian(func, x)
        assert repr(get()) == repr(before), "planning moved a generator"
        for jac in (pb.jacobian(func, layout=CSR), pb.jacobian(func, plan=plan)):
            for _ in range(2):
                before = get()
                before = before.clone() if isinstance(before, Tensor) else before
                expected = matrix_of(func, x)
                after = repr(get())
                put(before)
                assert_close(whole(jac(x)), expected)
                assert repr(get()) == after


def test_iterators_move_once_per_call_after_planning() -> None:
    numbers = itertools.count(1.0)

    def func(x: Tensor) -> Tensor:
        return x**2 * next(numbers)

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    jac(x)
    for _ in range(3):
        expected = next(numbers) + 1
        assert_close(whole(jac(x)), torch.diag(2 * x * expected))


def test_dropout_in_a_recurrent_network() -> None:
    net = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)
    X = torch.rand(1, 4, 3)
    jac = pb.jacobian(lambda X: net(X)[0], layout=CSR)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for _ in range(2):
                assert_right(jac, lambda X: net(X)[0], X)


def test_one_draw_serves_all_products_of_all_chunks() -> None:
    def func(x: Tensor) -> Tensor:
        return F.dropout(torch.outer(x, x).sum(0).sin() * x, 0.5)

    x = torch.rand(6)
    plan = pb.plan_jacobian(func, x)
    for chunk in (1, 2, None):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                assert_right(pb.jacobian(func, plan=plan, chunk_size=chunk), func, x)
