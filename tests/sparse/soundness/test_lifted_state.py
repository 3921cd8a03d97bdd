"""What a lift is worked out from may change: the next Jacobian is that of the changed function."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pullback as pb

from .reference import CSR, assert_right, matrix_of, whole

LIFTED = "replay"


def lifted(func: Callable[..., Any], *args: Any, lift: Any = True, **options: Any) -> Any:
    """A Jacobian along a plan that is lifted, as a first call proves."""
    plan = pb.plan_jacobian(func, *args, lift=lift, **options)
    assert plan.lifted, plan.notes
    jac = pb.jacobian(func, plan=plan, **options)
    with torch.no_grad():
        jac(*args)
    assert jac.engine == LIFTED
    return jac


class Scaled(nn.Module):
    """A pointwise function between a fixed convolution and a fixed scaling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1).double().requires_grad_(False)
        self.lin = nn.Linear(8, 8).double().requires_grad_(False)
        self.scale = torch.rand(8) + 0.5
        self.picked = torch.tensor([3, 0, 1, 1, 7, 6, 2, 5])
        self.mask = torch.tensor([True, False] * 4)
        self.dt = 0.25
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.reshape(1, 1, -1)).reshape(-1)
        y = self.lin(torch.sin(self.drop(y)))
        y = torch.where(self.mask, y * self.scale, y + self.dt * x * x)
        return y[self.picked]


def rebound_weight(m: Scaled) -> None:
    m.lin.weight = nn.Parameter(torch.randn(8, 8), requires_grad=False)


def rebound_kernel(m: Scaled) -> None:
    m.conv.weight = nn.Parameter(torch.randn(1, 1, 3), requires_grad=False)


def rebound_scale(m: Scaled) -> None:
    m.scale = torch.randn(8)


def written_in_place(m: Scaled) -> None:
    with torch.no_grad():
        m.lin.weight.mul_(1.5)
        m.conv.weight[0, 0, 1] = 7.0


def written_through_data(m: Scaled) -> None:
    m.lin.weight.data[2] = 3.0


def written_behind_numpy(m: Scaled) -> None:
    m.scale.numpy()[1] = -4.0


def another_step(m: Scaled) -> None:
    m.dt = 2.5


def another_index(m: Scaled) -> None:
    m.picked = m.picked.flip(0)


def index_written(m: Scaled) -> None:
    m.picked.data[0] = 4


def another_mask(m: Scaled) -> None:
    m.mask = ~m.mask


def mask_written(m: Scaled) -> None:
    m.mask.data[0] = False


def another_dtype_and_back(m: Scaled) -> None:
    m.lin.weight = nn.Parameter(m.lin.weight.float().double(), requires_grad=False)


def training(m: Scaled) -> None:
    m.train()


CHANGES = [
    rebound_weight,
    rebound_kernel,
    rebound_scale,
    written_in_place,
    written_through_data,
    written_behind_numpy,
    another_step,
    another_index,
    index_written,
    another_mask,
    mask_written,
    another_dtype_and_back,
    training,
]
# What a given plan relies on: its pattern may be another one now, and the plan is refused.
REFUSED = {another_index, index_written, another_mask, mask_written}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_plan_of_its_own_was_lifted_from(change: Callable[[Scaled], None]) -> None:
    module = Scaled().eval()
    x = torch.randn(8)
    jac = pb.jacobian(module, layout=CSR)
    assert_right(jac, module, x)
    for _ in range(2):
        change(module)
        torch.manual_seed(3)
        with torch.no_grad():
            assert_right(jac, module, x)
            assert_right(jac, module, x + 0.3)


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_given_plan_was_lifted_from(change: Callable[[Scaled], None]) -> None:
    module = Scaled().eval()
    x = torch.randn(8)
    jac = lifted(module, x)
    change(module)
    with torch.no_grad():
        if change in REFUSED:
            with pytest.raises(pb.ArgumentError, match="changed"):
                jac(x)
            return
        torch.manual_seed(3)
        assert_right(jac, module, x)
        assert_right(jac, module, x + 0.3)


@pytest.mark.parametrize("change", [c for c in CHANGES if c not in REFUSED])
def test_a_plan_of_other_weights_in_a_new_session(change: Callable[[Scaled], None]) -> None:
    module = Scaled().eval()
    x = torch.randn(8)
    plan = pb.plan_jacobian(module, x, lift=True)
    change(module)
    jac = pb.jacobian(module, plan=plan)
    with torch.no_grad():
        torch.manual_seed(3)
        assert_right(jac, module, x)


def test_weights_that_keep_changing_keep_being_right() -> None:
    module = Scaled().eval()
    x = torch.randn(8)
    jac = lifted(module, x)
    for _ in range(4):
        with torch.no_grad():
            module.lin.weight.add_(0.1 * torch.randn(8, 8))
            assert_right(jac, module, x)
    assert jac.engine == LIFTED  # what does not follow from weights is lifted still


def test_a_changed_weight_is_worked_out_once_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from pullback.sparse import session

    calls = []
    real = session.lift_of
    monkeypatch.setattr(session, "lift_of", lambda *a: calls.append(a) or real(*a))
    module = Scaled().eval()
    x = torch.randn(8)
    jac = lifted(module, x)
    assert not calls
    for _ in range(3):
        with torch.no_grad():
            module.lin.weight.add_(0.1)
            assert_right(jac, module, x)
    assert len(calls) == 1


@pytest.mark.parametrize("trust", [False, True])
def test_trust_in_indices_is_no_trust_in_weights(trust: bool) -> None:
    weight = torch.randn(5)
    func = lambda x: weight * torch.sin(x)  # noqa: E731
    x = torch.randn(5)
    plan = pb.plan_jacobian(func, x, lift=True)
    assert plan.lifted
    jac = pb.jacobian(func, plan=plan, trust_indices=trust)
    assert_right(jac, func, x)
    weight.data.mul_(2)
    assert_right(jac, func, x)


def test_an_integer_argument_that_the_lift_alone_relies_on() -> None:
    func = lambda x, k: torch.sin(x) / k  # noqa: E731
    x, k = torch.randn(4), torch.tensor([1, 2, 3, 4])
    plan = pb.plan_jacobian(func, x, k, lift=True)
    assert plan.lifted
    assert not plan.facts
    jac = pb.jacobian(func, plan=plan)
    for here in (k, k.flip(0), k * 3, k):
        assert_right(jac, func, x, here)
    assert "replay" in jac.engine


def test_a_mask_among_the_arguments() -> None:
    func = lambda x, m: torch.where(m, torch.sin(x), 2 * x)  # noqa: E731
    x, m = torch.randn(4), torch.tensor([True, False, True, False])
    given = lifted(func, x, m)
    own = pb.jacobian(func, layout=CSR)
    for here in (m, ~m, m):
        assert_right(own, func, x, here)
    with pytest.raises(pb.ArgumentError, match="`m` .*changed|`m` has another content"):
        given(x, ~m)


def test_a_float_argument_is_no_part_of_a_lift() -> None:
    func = lambda x, w: (w * torch.sin(x)).roll(1)  # noqa: E731
    x, w = torch.randn(4), torch.randn(4)
    jac = lifted(func, x, w)
    with torch.no_grad():
        for here in (w, w + 1, w * 0):
            assert_right(jac, func, x, here)


def test_constants_made_of_numbers_belong_to_the_lift() -> None:
    weight = torch.randn(3)

    def with_numbers(numbers: list[float]) -> Callable[[Tensor], Tensor]:
        return lambda x: (x * x) * (weight * torch.tensor(numbers))

    x = torch.randn(3)
    plan = pb.plan_jacobian(with_numbers([1.0, 2.0, 3.0]), x, lift=True)
    assert plan.lifted
    other = with_numbers([4.0, 5.0, 6.0])
    assert_right(pb.jacobian(other, plan=plan), other, x)


def test_the_old_state_closed_over_and_passed() -> None:
    owner = {"y_old": torch.randn(6), "dt": 0.1}

    def implicit(y: Tensor, y_old: Tensor) -> Tensor:
        return y - y_old - owner["dt"] * (torch.sin(y.roll(1)) * y_old + y * y)

    closed = lambda y: implicit(y, owner["y_old"])  # noqa: E731
    y = torch.randn(6)
    by_closure, by_argument = lifted(closed, y), lifted(implicit, y, owner["y_old"])
    for _ in range(3):
        with torch.no_grad():
            assert_right(by_closure, closed, y)
            assert_right(by_argument, implicit, y, owner["y_old"])
        owner["y_old"] = torch.randn(6)
        owner["dt"] += 0.1


def test_the_sample_itself_in_the_closure() -> None:
    x0 = torch.randn(6)
    func = lambda t: (t * t * x0).roll(1) + t.roll(2) * x0  # noqa: E731
    jac = lifted(func, x0)
    with torch.no_grad():
        assert_right(jac, func, x0)
        assert_right(jac, func, x0 + 1)
        x0.mul_(3)
        assert_right(jac, func, x0)


def test_two_sessions_share_one_plan() -> None:
    modules = [Scaled().eval(), Scaled().eval()]
    x = torch.randn(8)
    plan = pb.plan_jacobian(modules[0], x, lift=True)
    jacs = [pb.jacobian(m, plan=plan) for m in modules]
    with torch.no_grad():
        for _ in range(2):
            for jac, module in zip(jacs, modules, strict=True):
                assert_right(jac, module, x)
                rebound_weight(module)
    assert all(jac.engine == LIFTED for jac in jacs)


@pytest.mark.parametrize("other_weights", [False, True])
def test_a_saved_plan_in_another_session(tmp_path: Path, other_weights: bool) -> None:
    module = Scaled().eval()
    x = torch.randn(8)
    plan = pb.plan_jacobian(module, x, lift=True)
    plan.save(tmp_path / "plan.npz")
    if other_weights:
        module = Scaled().eval()
    loaded = pb.Plan.load(tmp_path / "plan.npz")
    assert (loaded.lifted, loaded.num_products) == (True, plan.num_products)
    jac = pb.jacobian(module, plan=loaded)
    with torch.no_grad():
        assert_right(jac, module, x)
        assert jac.engine == LIFTED
        assert_right(jac, module, x * 2)


ELSEWHERE = """
import sys, numpy as np, torch, pullback as pb
torch.set_default_dtype(torch.float64)
weight = 2 * torch.arange(9.0).reshape(3, 3) - 3
func = lambda x: (weight @ torch.sin(x).reshape(3, 2)).roll(1, 0)
jac = pb.jacobian(func, plan=pb.Plan.load(sys.argv[1]), layout="scipy")
np.save(sys.argv[2], jac(torch.arange(6.0)).toarray())
print(jac.engine)
"""


def test_a_plan_made_in_one_process_serves_another_with_other_weights(tmp_path: Path) -> None:
    def of(weight: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: (weight @ torch.sin(x).reshape(3, 2)).roll(1, 0)

    x, weight = torch.arange(6.0), torch.arange(9.0).reshape(3, 3)
    plan = pb.plan_jacobian(of(weight), x, lift=True)
    assert plan.lifted
    plan.save(tmp_path / "plan.npz")
    said = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path / "plan.npz", tmp_path / "values.npy"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout.strip() == LIFTED
    expected = matrix_of(of(2 * weight - 3), x)
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("layout", [None, torch.strided, CSR, torch.sparse_coo, "scipy"])
def test_every_layout(layout: Any) -> None:
    func = lambda x: torch.sin(x.roll(1)) * x - x.roll(2)  # noqa: E731
    x = torch.randn(6)
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x, lift=True), layout=layout)
    torch.testing.assert_close(whole(jac(x)), matrix_of(func, x))
    assert jac.engine == LIFTED


def test_values_can_be_written_to_and_reused() -> None:
    for func in (lambda x: x.roll(1) * 3, torch.sin, lambda x: torch.sin(x).roll(1) - x):
        x = torch.randn(6)
        jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x, lift=True))
        first = jac(x)
        first.values().mul_(7)
        torch.testing.assert_close(whole(jac(x)), matrix_of(func, x))
        again = jac(x + 1, out=first)
        torch.testing.assert_close(whole(again), matrix_of(func, x + 1))
        torch.testing.assert_close(whole(first), matrix_of(func, x + 1))
