"""Rule 12: planning leaves no trace, and a call leaves what one forward leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.testing import assert_close
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import pullback as pb

from .reference import CSR, assert_right, matrix_of, whole


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_one_forward(jac: Any, module: nn.Module, x: Tensor) -> None:
    before, drawn = state_of(module), torch.get_rng_state()
    expected = matrix_of(module, x)
    after = state_of(module)
    module.load_state_dict(before)
    torch.set_rng_state(drawn)
    assert_close(whole(jac(x)), expected)
    assert_close(state_of(module), after)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2)
    ),
    "two batch norms": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)),
    "without statistics": lambda: nn.BatchNorm1d(4, track_running_stats=False),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True)
    ),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
@pytest.mark.parametrize("frozen", [False, True])
def test_buffers_and_parameters(make: Callable[[], nn.Module], frozen: bool) -> None:
    module = make().requires_grad_(not frozen)
    X = torch.rand(3, 4)
    before = state_of(module)
    plan = pb.plan_jacobian(module, X)
    assert_close(state_of(module), before, rtol=0, atol=0)
    assert all(p.grad is None for p in module.parameters())
    for jac in (pb.jacobian(module, plan=plan), pb.jacobian(module, layout=CSR)):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                for _ in range(2):
                    assert_one_forward(jac, module, torch.rand(3, 4))
        module.eval()
        assert_one_forward(jac, module, X)
        module.train()
        assert_one_forward(jac, module, X)
    assert all(p.grad is None for p in module.parameters())


def test_planning_on_the_eager_rung() -> None:
    layer = nn.BatchNorm1d(4)

    def func(X: Tensor) -> Tensor:
        return layer(X) * float(X.detach().sum())

    X = torch.rand(3, 4)
    before = state_of(layer)
    plan = pb.plan_jacobian(func, X)
    assert_close(state_of(layer), before, rtol=0, atol=0)
    jac = pb.jacobian(func, plan=plan)
    jac(X)
    for _ in range(2):
        count = int(layer.num_batches_tracked)
        jac(torch.rand(3, 4))
        assert int(layer.num_batches_tracked) == count + 1


def test_existing_gradients() -> None:
    layer = nn.Linear(4, 4)
    layer(torch.rand(4)).sum().backward()
    kept = [(p.grad, p.grad.clone()) for p in layer.parameters() if p.grad is not None]
    x = torch.rand(4, requires_grad=True)
    plan = pb.plan_jacobian(layer, x)
    pb.jacobian(layer, plan=plan)(x)
    pb.jacobian(layer)(x)
    pb.jacobian_of(layer(x), x)
    assert x.grad is None
    for parameter, (grad, value) in zip(layer.parameters(), kept, strict=True):
        assert parameter.grad is grad
        assert_close(grad, value, rtol=0, atol=0)


def test_a_backward_inside_the_function() -> None:
    weight = torch.ones(4, requires_grad=True)

    def func(x: Tensor) -> Tensor:
        weight.grad = None
        (weight**2 * x.detach()).sum().backward()
        assert weight.grad is not None
        return weight.grad * x

    plan = pb.plan_jacobian(func, torch.rand(4))
    assert weight.grad is None
    x = torch.rand(4)
    assert_right(pb.jacobian(func, plan=plan), func, x)


def test_counters_and_writes_to_closed_over_tensors() -> None:
    counter, store = torch.zeros(()), torch.zeros(4)

    def func(x: Tensor) -> Tensor:
        counter.add_(1)
        store.copy_(x.detach() * counter)
        return x**2 * counter

    x = torch.rand(4)
    plan = pb.plan_jacobian(func, x)
    assert counter.item() == 0
    assert not store.any()
    jac = pb.jacobian(func, plan=plan)
    for k, asks in enumerate((False, False, True, True), 1):
        for_x = x.clone().requires_grad_(asks)
        assert_close(whole(jac(for_x)), torch.diag(2 * x * k))
        assert counter.item() == k
        assert_close(store, x * k)
    with torch.no_grad():
        assert_close(whole(jac(x)), torch.diag(2 * x * 5))
    assert counter.item() == 5


def test_arguments_are_left_alone() -> None:
    x, y = torch.rand(4, requires_grad=True), torch.rand(4)
    version = x._version, y._version
    jac = pb.jacobian(lambda x, y: x * y.clone().mul_(2), layout=CSR)
    jac(x, y)
    pb.plan_jacobian(lambda x, y: y.add_(x.detach()) * x, x, y)
    assert (x._version, y._version) == version
    assert x.grad is None


class BoomError(Exception):
    pass


class FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise BoomError("mine")


def boom(x: Tensor) -> Tensor:
    torch.rand(3)
    raise BoomError("mine")


def boom_as_told(x: Tensor, now: list[bool]) -> Tensor:
    if now[0]:
        raise BoomError("mine")
    return x**2


@pytest.mark.parametrize("func", [boom, FailingBackward.apply], ids=["forward", "backward"])
def test_an_error_of_the_functions_comes_out_as_it_is(func: Any) -> None:
    x = torch.rand(4)
    calls: list[Callable[[], object]] = [
        lambda: pb.plan_jacobian(func, x),
        lambda: pb.jacobian(func, layout=CSR)(x),
        lambda: pb.jacobian(func)(x),
    ]
    for call in calls:
        with pytest.raises(BoomError, match="^mine$"):
            call()
        assert torch.is_grad_enabled()
        assert not _get_current_dispatch_mode_stack()
        assert not _get_current_function_mode_stack()
    assert_right(pb.jacobian(lambda x: x**2, layout=CSR), lambda x: x**2, x)


def test_an_error_at_a_later_call() -> None:
    now = [False]
    jac = pb.jacobian(boom_as_told, layout=CSR)
    x = torch.rand(4)
    assert_right(jac, boom_as_told, x, now)
    now[0] = True
    with pytest.raises(BoomError, match="^mine$"):
        jac(x, now)
    now[0] = False
    assert_right(jac, boom_as_told, x, now)


def test_threads_share_one_jacobian() -> None:
    w = torch.rand(40)

    def func(x: Tensor) -> Tensor:
        return (x * x.roll(1) * w).sin()

    jac = pb.jacobian(func, layout=CSR)
    points = [torch.rand(40) for _ in range(4)]
    expected = [matrix_of(func, x) for x in points]
    problems: list[object] = []

    def work(k: int) -> None:
        try:
            for _ in range(8):
                assert_close(whole(jac(points[k])), expected[k])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("layout", [torch.strided, CSR])
def test_inference_mode(layout: Any) -> None:
    def plain(x: Tensor) -> Tensor:
        return x * x.roll(1)

    def reading(x: Tensor) -> Tensor:
        return x * x.roll(1) * float(x.detach().sum())

    x = torch.rand(4)
    for func in (plain, reading):
        expected = matrix_of(func, x)
        jac = pb.jacobian(func, layout=layout)
        with torch.inference_mode():
            assert_close(whole(jac(x)), expected)
            inside = x * 1
        assert_close(whole(jac(x)), expected)
        assert_close(whole(jac(inside)), expected)
        with torch.inference_mode():
            assert_close(whole(jac(inside)), expected)
            plan = pb.plan_jacobian(func, inside)
        assert_right(pb.jacobian(func, plan=plan), func, x)


def test_deterministic_and_anomaly_modes() -> None:
    def func(x: Tensor) -> Tensor:
        return torch.zeros(3).index_add(0, torch.tensor([0, 1, 1, 2]), x**2)

    jac = pb.jacobian(func, layout=CSR)
    assert_right(jac, func, torch.rand(4))
    torch.use_deterministic_algorithms(True)
    try:
        assert_right(jac, func, torch.rand(4))
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        assert_right(jac, func, torch.rand(4))
    assert_right(jac, func, torch.rand(4))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
def test_functions_that_cannot_be_freed_of_writes_still_work() -> None:
    sparse = torch.eye(4).to_sparse()
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: torch.sparse.mm(sparse, x[:, None] ** 2),
        lambda x: (x**2).to_sparse().to_dense(),
        lambda x: torch.sparse_coo_tensor(torch.tensor([[0, 1, 2, 2]]), x**2, (3,)).to_dense(),
    ]
    for func in functions:
        jac = pb.jacobian(func, layout=CSR)
        for x in (torch.rand(4), torch.rand(4)):
            assert_right(jac, func, x)
