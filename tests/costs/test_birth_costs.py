"""What a search for births costs: one test an arrival, and no tensor kept while all is finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.backward import birthlog


class Count:
    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *given: Any) -> Any:
        self.calls += 1
        return self.function(*given)


def chain(steps: int) -> Tensor:
    x = torch.rand(4, requires_grad=True)
    for _ in range(steps):
        x = x.sin()
    return x


def test_every_contribution_is_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(birthlog.all_finite)
    monkeypatch.setattr(birthlog, "all_finite", count)
    assert pb.find_nonfinite(chain(50), torch.ones(4)) is None
    assert count.calls == 50 + 2  # and the cotangent twice: as it was given, and as a copy


def test_nothing_is_copied_while_all_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(birthlog.plain)
    monkeypatch.setattr(birthlog, "plain", count)
    assert pb.find_nonfinite(chain(50), torch.ones(4)) is None
    assert count.calls == 0


def test_only_the_tensors_of_the_first_birth_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(birthlog.plain)
    monkeypatch.setattr(birthlog, "plain", count)
    x = torch.zeros(4, requires_grad=True)
    birth = pb.find_nonfinite(x.sqrt() + x.sqrt() + x.sqrt(), torch.ones(4))
    assert birth is not None
    assert count.calls == 2
    assert birth.also == ("SqrtBackward0",)
