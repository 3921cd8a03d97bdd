"""The function mode under ``trace`` and ledgers: on when it should be, and in nobody's way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

import pullback as pb


class Passing(TorchFunctionMode):
    """A mode of the user's that does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Emptying(Optimizer):
    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(parameter.grad, alpha=-0.1)
                parameter.grad = None


def with_post_hook(parameters: list[Tensor]) -> Optimizer:
    optimizer = SGD(parameters, lr=0.1)
    optimizer.register_step_post_hook(lambda emptied, *_: emptied.zero_grad())
    return optimizer


@pytest.mark.parametrize("make", [Emptying, with_post_hook])
def test_a_step_that_empties_the_gradient_is_seen_to_empty_it(
    make: Callable[[list[Tensor]], Optimizer],
) -> None:
    w = torch.ones(2, requires_grad=True)
    optimizer = make([w])
    with pb.ledger({"w": w}) as book:
        for _ in range(2):
            (w * w).sum().backward()
            optimizer.step()
        (w * w).sum().backward()
    assert [e.kind for e in book.entries] == [*["deposit", "read", "none"] * 2, "deposit"]
    assert pb.why(w).code == "arrived"


def test_clipping_in_a_pre_hook_of_a_step_is_seen() -> None:
    w = torch.ones(2, requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_value_([w], 0.1))
    with pb.ledger({"w": w}) as book:
        (w * w).sum().backward()
        optimizer.step()
    assert {e.kind for e in book.entries} == {"deposit", "read", "clip"}


def test_a_step_that_raised_leaves_no_mode_of_the_user_on() -> None:
    table = nn.Embedding(3, 2, sparse=True)
    optimizer = torch.optim.Adam(table.parameters())
    with pb.trace():
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match="sparse"):
            optimizer.step()
        with Passing() as mode:
            nn.Linear(2, 2)(torch.ones(2))
        assert mode not in _get_current_function_mode_stack()
        nn.Linear(2, 2)(torch.ones(2))
        assert len(_get_current_function_mode_stack()) == 1
    assert _get_current_function_mode_stack() == []


def test_modes_that_end_in_another_order_are_left_in_place() -> None:
    tracing, mode = pb.trace(), Passing()
    tracing.__enter__()
    mode.__enter__()
    tracing.__exit__(None, None, None)
    assert _get_current_function_mode_stack() == [mode]
    mode.__exit__(None, None, None)
    with torch.device("cpu"):
        tracing.__enter__()
    tracing.__exit__(None, None, None)
    assert _get_current_function_mode_stack() == []


def test_torch_compile_needs_no_break_for_the_block() -> None:
    def product(x: Tensor) -> Tensor:
        return (x.tanh() * x).sum()

    torch._dynamo.reset()
    compiled = torch.compile(product, backend="eager", fullgraph=True)
    x = torch.ones(3, requires_grad=True)
    with pb.ledger({"x": x}) as book:
        compiled(x).backward()
    assert [e.kind for e in book.entries] == ["deposit"]
