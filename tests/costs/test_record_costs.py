"""What a record costs, in counts: engine runs, forward calls, scans, copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback import _torch
from pullback.backward import measure, passlog


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[Any]]:
    calls: list[Any] = []
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)
    yield calls
    monkeypatch.undo()


def chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x.sin()
    return x


LARGE = passlog.OF_OUTPUTS // 4 + 1
"""Entries of a float32 tensor that a record keeps nothing of but its deposit."""


def large() -> Tensor:
    return torch.ones(LARGE, requires_grad=True)


def test_a_look_runs_one_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    out = chain(large(), 5)
    with (
        counted(monkeypatch, torch.autograd, "grad") as grads,
        counted(monkeypatch, torch.autograd, "backward") as backwards,
    ):
        pb.record(out, torch.ones(LARGE))
    assert (len(grads), len(backwards)) == (1, 0)


def test_accumulate_runs_one_backward_and_no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    out = chain(large(), 5)
    with (
        counted(monkeypatch, torch.autograd, "grad") as grads,
        counted(monkeypatch, torch.autograd, "backward") as backwards,
        counted(monkeypatch, _torch, "watched_tensors") as scans,
    ):
        pb.record(out, torch.ones(LARGE), accumulate=True)
    assert (len(grads), len(backwards), len(scans)) == (0, 1, 0)


def test_every_distinct_cotangent_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of n nodes passes n + 1 tensors, though each is seen as contribution and upstream."""
    out = chain(large(), 7)
    with counted(monkeypatch, measure, "stats_of") as measured:
        pb.record(out, torch.ones(LARGE))
    assert len(measured) == 8


def test_views_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed and product of exp are measured; transposing and splitting an axis move entries only."""
    x = torch.ones(50, 100, requires_grad=True)
    out = x.exp().t().unflatten(1, (5, 10)).permute(2, 0, 1)
    with counted(monkeypatch, measure, "stats_of") as measured:
        pb.record(out, torch.ones(100, 5, 10).permute(2, 0, 1))
    assert len(measured) == 2


def test_a_deposit_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    out = chain(large(), 3)
    with counted(monkeypatch, passlog, "owned") as looked:
        pb.record(out, torch.ones(LARGE))
    with counted(monkeypatch, passlog, "owned") as added:
        pb.record(out, torch.ones(LARGE), accumulate=True)
    assert (len(looked), len(added)) == (1, 1)


def test_outputs_and_their_cotangents_are_kept_up_to_a_quarter_of_a_mebibyte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page shows them first: each is copied once, and measured when somebody looks."""
    out = chain(torch.ones(LARGE - 1, requires_grad=True), 3)
    with (
        counted(monkeypatch, passlog, "owned") as copied,
        counted(monkeypatch, measure, "stats_of") as measured,
    ):
        record = pb.record(out, torch.ones(LARGE - 1))
    assert (len(copied), len(measured)) == (3, 3)
    kept = (record.outputs[0].values, record.outputs[0].cotangent.values)
    assert all(tensor is not None for tensor in kept)


def test_kept_bytes_stay_in_their_budget() -> None:
    keeper = passlog.Keeper("stats", single=100, total=250)
    kept = [keeper(torch.zeros(n)) is not None for n in (25, 26, 25, 13, 12, 10, 1)]
    assert kept == [True, False, True, False, True, False, False]
