"""What sparse Jacobians cost: runs of the function, products, captures, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.sparse import products, session, study

X = torch.linspace(0.1, 1, 12, dtype=torch.float64)


def spied(func: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """``func`` and a list that grows by one at each run; what it grows by is no state of it."""
    runs: list[int] = []
    note = runs.append

    def counted(*args: Any) -> Any:
        note(1)
        return func(*args)

    return counted, runs


def differences(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1]) ** 2


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[Any]]:
    """The arguments of every call of ``owner.name`` while the block runs."""
    calls: list[Any] = []
    made = getattr(owner, name)

    def noted(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return made(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, noted)
        yield calls


def runs_of(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> int:
    """How often ``differences`` runs while ``call`` does, seen from where its body is bound."""
    count = 0
    original = torch.Tensor.__pow__

    def counted(self: Tensor, *args: Any) -> Any:
        nonlocal count
        count += 1
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__pow__", counted)
        call()
    return count


def test_the_run_counter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_of(monkeypatch, lambda: [differences(X) for _ in range(3)]) == 3


def test_replay_never_runs_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    jac = pb.jacobian(differences, layout=torch.sparse_csr)
    jac(X)
    assert jac.engine == "replay"
    assert runs_of(monkeypatch, lambda: [jac(X.flip(0)), jac(X), jac(2 * X)]) == 0
    plain = pb.jacobian(differences, plan=pb.plan_jacobian(differences, X, lift=False))
    plain(X)
    assert plain.engine == "replay"
    assert runs_of(monkeypatch, lambda: [plain(X.flip(0)), plain(X), plain(2 * X)]) == 0


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_the_function_engine_runs_it_once_for_each_call(
    chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jac = pb.jacobian(differences, layout=torch.sparse_csr, chunk_size=chunk)
    x = X.clone().requires_grad_()
    jac(x)
    assert jac.engine == "function"
    assert runs_of(monkeypatch, lambda: jac(x)) == 1


def test_a_function_that_cannot_be_captured_runs_once_for_each_call() -> None:
    func, runs = spied(lambda x: differences(x) * float(x.detach().sum()))
    jac = pb.jacobian(func, layout=torch.sparse_csr)
    jac(X)
    assert jac.engine == "function"
    before = len(runs)
    jac(X.flip(0))
    jac(X)
    assert len(runs) - before == 2


def test_dense_runs_the_function_once() -> None:
    func, runs = spied(lambda x: x.sin() * x.sum())
    for chunk in (1, 5, None):
        before = len(runs)
        pb.jacobian(func, chunk_size=chunk)(X)
        assert len(runs) - before == 1


def test_jacobian_of_runs_no_function() -> None:
    func, runs = spied(differences)
    x = X.clone().requires_grad_()
    y = func(x)
    pb.jacobian_of(y, x)
    assert len(runs) == 1


@pytest.mark.parametrize("planned", [False, True])
def test_the_second_call_studies_nothing(planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pb.plan_jacobian(differences, X) if planned else None
    jac = pb.jacobian(differences, plan=plan, layout=torch.sparse_csr)
    with (
        counting(monkeypatch, session, "study") as studies,
        counting(monkeypatch, study, "capture") as captures,
        counting(monkeypatch, study, "detect") as detections,
    ):
        jac(X)
        first = (len(studies), len(captures), len(detections))
        for scale in range(1, 4):
            jac(scale * X)
        assert (len(studies), len(captures), len(detections)) == first
        assert first[0] == first[1] == 1


def test_another_shape_is_studied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    jac = pb.jacobian(differences, layout=torch.sparse_csr)
    with counting(monkeypatch, session, "study") as studies:
        for x in (X, X[:5], X, X[:5], X.float(), X.float()):
            jac(x)
        assert len(studies) == 3
        jac.refresh()
        jac(X)
        assert len(studies) == 4


def test_a_given_plan_is_not_colored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pb.plan_jacobian(differences, X)
    with counting(monkeypatch, session, "plan_of") as plans:
        jac = pb.jacobian(differences, plan=plan)
        jac(X), jac(2 * X)
        assert plans == []


def arrow(x: Tensor) -> Tensor:
    return torch.cat([x.square().sum()[None], x[0] * x[1:].sin()])


@pytest.mark.parametrize(("func", "mode"), [
    (differences, "rev"), (differences, "fwd"), (arrow, "mixed"), (differences, "dense"),
])  # fmt: skip
@pytest.mark.parametrize("chunk", [1, 2, None])
def test_a_call_takes_the_products_of_the_plan_and_no_more(
    func: Callable[..., Any], mode: str, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pb.plan_jacobian(func, X, mode=mode, lift=False)
    jac = pb.jacobian(func, plan=plan, chunk_size=chunk)
    jac(X)
    with (
        counting(monkeypatch, products.Replay, "rev") as back,
        counting(monkeypatch, products.Replay, "fwd") as along,
    ):
        jac(X)
    rows, columns = (sum(len(args[1]) for args, _ in calls) for calls in (back, along))
    assert (rows, columns) == tuple(plan.coloring.split)
    assert all(len(args[1]) <= (chunk or plan.chunk_size) for args, _ in [*back, *along])


def test_a_sparse_jacobian_takes_fewer_products_than_a_dense_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.rand(300, dtype=torch.float64)
    jac = pb.jacobian(differences, plan=pb.plan_jacobian(differences, x, lift=False))
    jac(x)
    with counting(monkeypatch, products.Replay, "rev") as back:
        jac(2 * x)
    assert sum(len(args[1]) for args, _ in back) == 2


@pytest.mark.parametrize("mode", ["rev", "fwd"])
def test_a_lifted_call_works_nothing_out_again(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pb.plan_jacobian(differences, X, mode=mode, lift=True)
    with counting(monkeypatch, session, "lift_of") as lifts:
        jac = pb.jacobian(differences, plan=plan)
        jac(X)
        with (
            counting(monkeypatch, products.Replay, "rev") as back,
            counting(monkeypatch, products.Replay, "fwd") as along,
        ):
            jac(2 * X)
            jac(X)
    assert (lifts, back, along) == ([], [], [])


def test_planning_captures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(monkeypatch, study, "capture") as captures:
        pb.plan_jacobian(differences, X)
    assert len(captures) == 1
