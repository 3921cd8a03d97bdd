"""What products cost in runs of the function, in draws and in memory of the caller."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pullback as pb
from pullback import _engines, _torch


class Spy:
    """A function that counts its calls."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func, self.calls = func, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.func(*args)


X = torch.linspace(0.1, 1, 6, dtype=torch.float64)


def test_vjp_runs_func_once_and_its_products_do_not() -> None:
    func = Spy(lambda x: x.sin().cumsum(0))
    _, pull = pb.vjp(func, X)
    assert func.calls == 1
    for _ in range(3):
        pull(X)
    pull.batched(torch.eye(6).double(), chunk_size=2)
    torch.func.vmap(pull)(torch.eye(6).double())
    assert func.calls == 1


def test_jvp_runs_func_once() -> None:
    func = Spy(lambda x: x.sin().cumsum(0))
    pb.jvp(func, (X,), (X,))
    assert func.calls == 1


def test_jvp_runs_func_twice_where_forward_mode_takes_over() -> None:
    func = Spy(lambda x: x.mul_(2))
    pb.jvp(func, (X.clone(),), (X,))
    assert func.calls == 2


def test_an_operator_runs_func_once_in_all() -> None:
    func = Spy(lambda x: x.sin().cumsum(0))
    J = pb.JacobianOperator(func, X)
    for _ in range(3):
        J.T @ (J @ X)
    J @ torch.eye(6).double()
    J.to_dense(chunk_size=1)
    J.to_scipy().matvec(X.numpy())
    assert func.calls == 1


def test_a_matvec_adds_no_node_to_any_graph() -> None:
    J = pb.JacobianOperator(lambda x: x.sin().cumsum(0), X)
    before = _torch.next_sequence_number()
    J @ X
    X @ J
    J @ torch.eye(6).double()
    assert _torch.next_sequence_number() == before


def test_a_dense_matrix_takes_as_many_products_as_its_shorter_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[int] = []
    real = _engines._grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        ran.append(args[2][0].shape[0] if kwargs["batched"] else 1)
        return real(*args, **kwargs)

    # Under vmap a call does not tell how many products it stands for.
    monkeypatch.setattr(_engines, "ORDER", ("batched grads", "loop"))
    for rows, expected in ((2, 2), (9, 6)):
        A = torch.ones(rows, 6, dtype=torch.float64)
        J = pb.JacobianOperator(lambda x, A=A: A @ x.sin(), X)
        with monkeypatch.context() as patch:
            patch.setattr(_engines, "_grad", counted)
            J.to_dense()
        assert sum(ran) == expected
        ran.clear()


def test_a_pullback_lets_go_of_its_graph_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        x = X.clone()
        held = weakref.ref(x)
        out, pull = pb.vjp(torch.sin, x)
        pull(x)
        J = pb.JacobianOperator(torch.sin, x)
        J @ x
        del out, pull, J, x
        assert held() is None
    finally:
        gc.enable()


def test_a_look_at_a_product_writes_no_grad() -> None:
    weight = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    x = X.clone().requires_grad_()
    _, pull = pb.vjp(lambda x: x * weight, x)
    pull(X)
    pb.jvp(lambda x: x * weight, (x,), (X,))
    assert x.grad is None
    assert weight.grad is None
