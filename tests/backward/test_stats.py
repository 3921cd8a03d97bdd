"""Statistics against numpy in float64, over layouts and extreme values."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pullback.backward import stats as stats_module
from pullback.backward.measure import difference, same_entries
from pullback.backward.stats import Stats, stats_of

torch.manual_seed(0)
PLAIN = {
    "normal": torch.randn(300, 7),
    "relu": torch.relu(torch.randn(100, 90)),
    "zeros": torch.zeros(4, 4),
    "one": torch.tensor(-3.0),
    "double": torch.randn(5, 6, dtype=torch.float64),
    "half": torch.randn(40, 4).half(),
    "bfloat16": torch.randn(40, 4).bfloat16(),
    "transposed": torch.randn(30, 200).t(),
    "permuted": torch.randn(3, 4, 5).permute(1, 2, 0),
    "strided": torch.randn(30, 30)[::2, ::3],
    "expanded": torch.randn(3, 1).expand(3, 50),
    "expanded scalar": torch.tensor(2.0).expand(4, 5),
    "positive": torch.rand(5000) + 1,
    "tiny": torch.full((10,), 1e-30),
    "denormal": torch.full((10,), 1e-42),
    "huge": torch.full((10,), 1e30),
    "tiny double": torch.full((3,), 1e-200, dtype=torch.float64),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", list(PLAIN))
def test_against_numpy(name: str) -> None:
    tensor = PLAIN[name]
    values = tensor.double().numpy()
    stats = stats_of(tensor)
    scale = np.abs(values).max() or 1.0
    norm = scale * np.linalg.norm((values / scale).reshape(-1))
    assert stats.norm == pytest.approx(norm, rel=2e-6)
    assert stats.min == values.min()
    assert stats.max == values.max()
    assert stats.zeros == pytest.approx((values == 0).mean(), abs=1e-12)
    assert stats.nonfinite == 0


LARGE = {
    "normal": torch.randn(300, 400),
    "double": torch.randn(70_000, dtype=torch.float64),
    "relu": torch.relu(torch.randn(1000, 101)),
    "negative": -torch.rand(66_000) - 1,
    "transposed": torch.randn(200, 700).t(),
    "expanded": torch.randn(70_000, 1).expand(70_000, 3),
    "signed zeros": torch.zeros(66_000) * torch.randn(66_000).sign(),
    "tiny": torch.full((66_000,), 1e-30),
    "huge": torch.full((66_000,), -1e30),
    "one odd entry": torch.cat([torch.zeros(99_999), torch.tensor([-3.5])]),
}


@pytest.mark.parametrize("name", list(LARGE))
def test_the_kernel_against_numpy(name: str) -> None:
    tensor = LARGE[name]
    values = tensor.double().numpy()
    stats = stats_of(tensor)
    scale = np.abs(values).max() or 1.0
    assert stats.norm == pytest.approx(scale * np.linalg.norm((values / scale).ravel()), rel=2e-6)
    assert (stats.min, stats.max) == (values.min(), values.max())
    assert stats.zeros == pytest.approx((values == 0).mean(), abs=1e-12)
    assert stats.nonfinite == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_kernel_leaves_what_is_not_finite_to_torch(bad: float) -> None:
    tensor = torch.randn(70_000)
    tensor[[5, 60_000]] = bad
    stats = stats_of(tensor)
    assert stats.nonfinite == 2
    assert math.isnan(stats.max) == math.isnan(bad)


def test_the_kernel_is_there_and_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(70_000)
    fast = stats_module.stats_of(tensor)
    assert stats_module.one_pass_kernel() is not None
    monkeypatch.setattr(stats_module, "one_pass_kernel", lambda: None)
    slow = stats_module.stats_of(tensor)
    assert astuple(fast) == pytest.approx(astuple(slow), rel=1e-6)


def test_complex_entries_are_measured_by_their_moduli() -> None:
    z = torch.tensor([3 + 4j, 0, 1j])
    assert stats_of(z) == Stats(pytest.approx(math.sqrt(26)), 0.0, 5.0, pytest.approx(1 / 3), 0)


@pytest.mark.parametrize(
    ("values", "norm", "nonfinite"),
    [
        ([1.0, math.inf], math.inf, 1),
        ([1.0, math.nan, -math.inf], math.nan, 2),
        ([math.nan], math.nan, 1),
    ],
)
def test_non_finite_entries_are_counted(values: list[float], norm: float, nonfinite: int) -> None:
    stats = stats_of(torch.tensor(values))
    assert stats.nonfinite == nonfinite
    assert stats.norm == pytest.approx(norm, nan_ok=True)


def test_non_finite_entries_of_an_expanded_tensor() -> None:
    assert stats_of(torch.tensor([[math.nan], [1.0]]).expand(2, 5)).nonfinite == 5


def test_empty() -> None:
    assert stats_of(torch.zeros(0, 3)) == Stats(0.0, 0.0, 0.0, 0.0, 0)


def test_sparse_counts_what_is_not_stored() -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 3]]), torch.tensor([1.0, 2.0, -5.0]), (8,), check_invariants=True
    )
    dense = stats_of(sparse.to_dense())
    assert stats_of(sparse) == dense
    empty = torch.sparse_coo_tensor(
        torch.zeros(1, 0, dtype=torch.long), torch.zeros(0), (8,), check_invariants=True
    )
    assert stats_of(empty) == Stats(0.0, 0.0, 0.0, 1.0, 0)


def test_same_entries_is_only_claimed_of_permutations() -> None:
    x = torch.randn(6, 4)
    assert same_entries(x, x.t())
    assert same_entries(x, x.reshape(2, 3, 4).permute(2, 0, 1))
    assert not same_entries(x, x.clone())
    assert not same_entries(x[:3], x[3:])
    assert not same_entries(x[:1].expand(6, 4), x)
    assert not same_entries(x.view(-1).as_strided((6, 4), (1, 1)), x)


def same(left: Tensor, right: Tensor) -> float:
    return difference(left, right)


def test_difference() -> None:
    a = torch.tensor([1.0, 2.0, math.nan, math.inf])
    assert same(a, a.clone()) == 0
    assert same(torch.tensor([1.0, 4.0]), torch.tensor([1.5, 4.0])) == 0.125
    assert same(torch.tensor([math.nan]), torch.tensor([1.0])) == math.inf
    assert same(torch.tensor([math.inf]), torch.tensor([-math.inf])) == math.inf
    assert same(torch.ones(2), torch.ones(3)) == math.inf
    assert same(torch.zeros(2), torch.zeros(2)) == 0
    assert same(torch.ones(2).to_sparse(), torch.ones(2)) == 0
