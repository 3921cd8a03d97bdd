"""What a function reads, writes and draws, and how its gradients are made, holds for Hessians."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import pullback as pb

from .reference import dense_hessian

CSR = torch.sparse_csr
Double = torch.float64
scale: Any = 2.0


def point(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=Double, generator=generator) + 0.2


def assert_right(hess: Any, func: Callable[..., Tensor], *args: Tensor) -> None:
    """What a backward through the backward gives at this very moment, with the same draws."""
    drawn = torch.get_rng_state()
    expected = dense_hessian(func, *args)
    after = torch.get_rng_state()
    torch.set_rng_state(drawn)
    found = hess(*args)
    assert_close(found.detach().to_dense().reshape(expected.shape), expected)
    assert torch.equal(torch.get_rng_state(), after)


def both(func: Callable[..., Tensor], *args: Tensor) -> tuple[Any, Any]:
    argnums = tuple(range(len(args)))
    plan = pb.plan_hessian(func, *args, argnums=argnums)
    return pb.hessian(func, argnums, plan=plan), pb.hessian(func, argnums, layout=CSR)


def at_every_change(
    func: Callable[..., Tensor], changes: list[Callable[[], object]], *args: Tensor
) -> None:
    hessians = both(func, *args)
    for change in [lambda: None, *changes]:
        change()
        for hess in hessians:
            for grad in (True, False):
                with torch.set_grad_enabled(grad):
                    assert_right(hess, func, *args)
                    assert_right(hess, func, *(1.3 * t + 0.1 for t in args))


# State outside the arguments


def test_parameters_are_read_again() -> None:
    layer = nn.Linear(4, 3).double()

    def replace() -> None:
        layer.weight = nn.Parameter(point(3, 4, seed=8))

    def step() -> None:
        with torch.no_grad():
            layer.weight.mul_(2)

    at_every_change(
        lambda x: torch.tanh(layer(x)).sum(), [replace, step, replace, step], point(2, 4)
    )


def test_weights_that_were_zero() -> None:
    weight = torch.zeros(4, 4, dtype=Double)
    func = lambda x: torch.sin(x @ weight).sum()  # noqa: E731
    at_every_change(func, [lambda: weight.copy_(point(4, 4)), weight.zero_], point(4))


def test_numbers_globals_and_attributes() -> None:
    config = types.SimpleNamespace(k=2.0)
    power = 3

    def func(x: Tensor) -> Tensor:
        return (config.k * x**power * scale).sum()

    def other_power() -> None:
        nonlocal power
        power = 4

    def other_scale() -> None:
        globals()["scale"] = scale * 1.5

    at_every_change(func, [lambda: setattr(config, "k", 5.0), other_power, other_scale], point(4))


def test_the_mode_of_a_module() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    at_every_change(lambda x: (net(x) ** 2).sum(), [net.eval, net.train], point(2, 4))


def test_the_sample_in_the_closure() -> None:
    x0 = point(4)
    func = lambda x: ((x - x0) ** 3 * x0 + x[0] * x0).sum()  # noqa: E731
    plan = pb.plan_hessian(func, x0)
    for hess in (pb.hessian(func, plan=plan), pb.hessian(func, layout=CSR)):
        for x in (x0, x0 + 1, point(4, seed=3)):
            assert_right(hess, func, x)


def test_one_tensor_twice() -> None:
    x = point(3)
    at_every_change(lambda a, b: (a * b**2).sum() + a[0] * b[1], [], x, x)


def test_views_of_one_storage() -> None:
    base = point(4, 6)
    for x in (base[1:3, ::2], base.T[1:, 2:], base[0].expand(2, 6), base[::2].flatten()[3:]):
        at_every_change(lambda x: (x[0] * x[1:] ** 2).sum(), [], x)


# Reads and control flow


def reads_a_number(x: Tensor) -> Tensor:
    return (x**3).sum() * float(x.detach().sum())


def reads_a_list(x: Tensor) -> Tensor:
    return sum((x[k] ** 2 * value for k, value in enumerate(x.tolist())), x.new_zeros(()))


def reads_an_array(x: Tensor) -> Tensor:
    return (x**3 * torch.from_numpy(x.detach().numpy().copy())).sum()


def branches(x: Tensor) -> Tensor:
    return (x**2).sum() if x.sum() < 3 else (x[:-1] * x[1:]).sum() ** 2


@pytest.mark.parametrize("func", [reads_a_number, reads_a_list, reads_an_array, branches])
def test_values_that_are_read(func: Callable[[Tensor], Tensor]) -> None:
    hess = pb.hessian(func, layout=CSR)
    planned = pb.hessian(func, plan=pb.plan_hessian(func, point(4)))
    for x in (point(4), point(4) * 4, point(4, seed=2)):
        assert_right(hess, func, x)
        assert_right(planned, func, x)


def test_masks_of_different_counts() -> None:
    def takes(x: Tensor) -> Tensor:
        return (x[x > 0.5] ** 3).sum()

    def writes(x: Tensor) -> Tensor:
        y = x**2
        y[x > 0.5] = (x[x > 0.5]) ** 4
        return (y * y[0]).sum()

    for func in (takes, writes):
        hessians = both(func, point(6))
        for x in (point(6), -point(6), point(6) + 2, point(6, seed=4) - 0.3):
            for hess in hessians:
                assert_right(hess, func, x)


# How gradients are made


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Cubed(torch.autograd.Function):
    """With a backward that is differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


class Crossed(torch.autograd.Function):
    """Whose backward is the gradient of nothing: its Jacobian is not symmetric."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.roll(1, 0) ** 2


def scaled_by_a_hook(x: Tensor) -> Tensor:
    y = x**2
    y.register_hook(lambda grad: grad * x.roll(1, 0))
    return (y**2).sum()


def inner_gradient(x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: (y**4).sum() + y[0] * y[1] * y[2])(x).square().sum()


def inner_autograd(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        (found,) = torch.autograd.grad((y**3 * y[0]).sum(), y, create_graph=True)
    return (found**2).sum()


def in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] += y[:-1].clone() ** 2
    y.mul_(x).add_(1)
    y[0] = x[-1] ** 3
    return (y**2).sum()


MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "straight through, by detach": lambda x: ((x + (x.round() - x).detach()) ** 3).sum(),
    "straight through, by a function": lambda x: (Rounded.apply(3 * x) ** 3).sum(),
    "half detached": lambda x: (x * x.detach() ** 2 * x.roll(1, 0)).sum(),
    "a function with a backward": lambda x: (Cubed.apply(x) * x.roll(1, 0)).sum(),
    "a function of no gradient": lambda x: Crossed.apply(x).sum(),
    "a hook that scales": scaled_by_a_hook,
    "checkpoint": lambda x: checkpoint(
        lambda y: (y.tanh() * y.roll(1, 0)).sum(), x, use_reentrant=False
    ),
    "checkpoint with dropout": lambda x: checkpoint(
        lambda y: (nn.functional.dropout(y, 0.5) ** 3).sum(), x, use_reentrant=False
    ),
    "dropout": lambda x: (nn.functional.dropout(x, 0.5) ** 3).sum(),
    "noise": lambda x: (x**3 * torch.rand_like(x)).sum() * torch.rand((), dtype=Double),
    "noise and a product": lambda x: (x[1:] * x[:-1] ** 2 * torch.randn_like(x[1:])).sum(),
    "writes in place": in_place,
    "an inner torch.func.grad": inner_gradient,
    "an inner autograd.grad": inner_autograd,
    "an expanded view": lambda x: (x[None].expand(3, -1) ** 3).sum(),
    "without a graph": lambda x: x.detach().pow(3).sum(),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("lift", [True, False])
def test_gradients_as_they_are_made(name: str, lift: Any) -> None:
    func = MADE[name]
    torch.default_generator.manual_seed(1)
    plan = pb.plan_hessian(func, point(5), lift=lift)
    for hess in (pb.hessian(func, plan=plan), pb.hessian(func, layout=CSR), pb.hessian(func)):
        for seed in range(3):
            torch.default_generator.manual_seed(seed)
            assert_right(hess, func, point(5, seed=seed))
        with torch.no_grad():
            for seed in (4, 5):
                assert_right(hess, func, point(5, seed=seed))


def clipped(x: Tensor) -> Tensor:
    y = x**3
    y.register_hook(lambda grad: grad.clamp(max=0.7) * y.detach())
    return (y * x[0]).sum()


def test_a_hook_that_clips_is_refused_by_a_plan() -> None:
    with pytest.raises(pb.UnsupportedError, match="not linear in its cotangent at clamp"):
        pb.plan_hessian(clipped, point(5))
    assert_right(pb.hessian(clipped), clipped, point(5))


def hooked_node(x: Tensor) -> Tensor:
    y = x * x

    def neighbors(grads: tuple[Tensor, ...], _: Any) -> tuple[Tensor, ...]:
        return (grads[0] * torch.where(x < 5, torch.ones_like(x), x.roll(1, 0)), *grads[1:])

    y.grad_fn.register_hook(neighbors)
    return (y * x).sum()


def hooked_before_a_node(x: Tensor) -> Tensor:
    y = x * x
    y.grad_fn.register_prehook(
        lambda grads: (grads[0] * torch.where(x < 5, torch.ones_like(x), x.roll(1, 0)),)
    )
    return (y * x).sum()


class Bent(torch.autograd.Function):
    """Whose backward is the gradient of x³ below 5, and of nothing above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (3 * x**2 + torch.relu(x - 5) * x.roll(1, 0))


def bent(x: Tensor) -> Tensor:
    return Bent.apply(x).sum()


@pytest.mark.parametrize("func", [hooked_node, hooked_before_a_node, bent])
def test_a_matrix_that_is_symmetric_at_the_sample_only(func: Callable[[Tensor], Tensor]) -> None:
    plan = pb.plan_hessian(func, point(6), lift=False)
    far = point(6) * 12
    assert not torch.allclose(dense_hessian(func, far), dense_hessian(func, far).T)
    for hess in (pb.hessian(func, plan=plan), pb.hessian(func, layout=CSR)):
        for x in (point(6), far, far):
            assert_right(hess, func, x)


SAMPLES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "cholesky": (
        lambda A: torch.linalg.cholesky(A).sum(),
        torch.tensor([[2.0, 5.0], [0.0, 2.0]], dtype=Double),  # of which one half is read
    ),
    "binary_cross_entropy": (
        lambda p: nn.functional.binary_cross_entropy(p, torch.full((4,), 0.3, dtype=Double)),
        torch.tensor([0.97, 0.98, 0.99, 0.999], dtype=Double),
    ),
}


@pytest.mark.parametrize("mode", ["auto", "star"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_at_the_edge_of_the_domain(name: str, mode: str) -> None:
    """Points near by, at which a plan tries what it believes, may lie outside."""
    func, x = SAMPLES[name]
    for lift in (True, False):
        plan = pb.plan_hessian(func, x, lift=lift, mode=mode if not lift else "auto")
        assert_right(pb.hessian(func, plan=plan), func, x)


# What is left behind


def test_planning_leaves_no_trace_and_a_call_that_of_one_forward() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh()).double()
    func = lambda x: (net(x) ** 2).sum()  # noqa: E731
    X = point(5, 4).requires_grad_()
    X.grad = torch.ones_like(X)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    drawn = torch.get_rng_state()
    plan = pb.plan_hessian(func, X)
    assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), drawn)
    for hess in (pb.hessian(func, plan=plan), pb.hessian(func, layout=CSR), pb.hessian(func)):
        for _ in range(3):
            before = {k: v.clone() for k, v in net.state_dict().items()}
            expected = dense_hessian(func, X)
            after = {k: v.clone() for k, v in net.state_dict().items()}
            net.load_state_dict(before)
            found = hess(X.detach())
            assert_close(found.to_dense().reshape(expected.shape), expected)
            assert_close({k: v.clone() for k, v in net.state_dict().items()}, after)
    assert torch.equal(X.grad, torch.ones_like(X))
    assert all(p.grad is None for p in net.parameters())


def test_hooks_on_the_argument_are_not_called() -> None:
    called = []
    x = point(4).requires_grad_()
    x.register_hook(lambda grad: called.append(grad))
    func = lambda x: (x**3).sum()  # noqa: E731
    plan = pb.plan_hessian(func, x)
    for hess in (pb.hessian(func, plan=plan), pb.hessian(func)):
        hess(x)
    assert called == []
    assert x.grad is None


# Indices


def test_an_index_that_changes() -> None:
    index = torch.tensor([0, 1, 2, 3, 0])
    func = lambda x: (x[index] ** 2 * x[index.flip(0)]).sum()  # noqa: E731
    plan = pb.plan_hessian(func, point(4))
    given, own = pb.hessian(func, plan=plan), pb.hessian(func, layout=CSR)
    assert_right(given, func, point(4))
    assert_right(own, func, point(4))
    for change in (lambda: index.fill_(2), lambda: index.data.copy_(torch.tensor([3, 1, 1, 0, 2]))):
        change()
        assert_right(own, func, point(4))
        with pytest.raises(pb.ArgumentError, match="index"):
            given(point(4))


def test_frozen_zeros_are_checked() -> None:
    matrix = torch.diag(point(5))

    def func(x: Tensor) -> Tensor:
        return x @ matrix @ x

    assert pb.plan_hessian(func, point(5)).pattern.nnz == 25
    plan = pb.plan_hessian(func, point(5), freeze=["matrix"])
    assert plan.pattern.nnz == 5
    hess = pb.hessian(func, plan=plan)
    assert_right(hess, func, point(5))
    matrix[0, 1] = 1
    with pytest.raises(pb.ArgumentError, match="matrix"):
        hess(point(5))


def test_another_shape_is_planned_anew_or_refused() -> None:
    func = lambda x: (x[1:] * x[:-1] ** 2).sum()  # noqa: E731
    own = pb.hessian(func, layout=CSR)
    given = pb.hessian(func, plan=pb.plan_hessian(func, point(4)))
    for n in (4, 6, 4, 3):
        assert_right(own, func, point(n))
    with pytest.raises(pb.ArgumentError, match="6"):
        given(point(6))


# Derivatives of the Hessian


@pytest.mark.parametrize(
    "name", ["straight through, by a function", "a function with a backward", "writes in place"]
)
def test_third_derivatives_come_from_the_function(name: str) -> None:
    func = MADE[name]
    weights = point(5, 5, seed=6)

    def through_torch(x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(func(x), x, create_graph=True)
        rows = [torch.autograd.grad(g, x, create_graph=True)[0] for g in gradient]
        return (torch.stack(rows) * weights).sum()

    x = point(5).requires_grad_()
    (truth,) = torch.autograd.grad(through_torch(x), x)
    plan = pb.plan_hessian(func, x)
    for hess in (pb.hessian(func), pb.hessian(func, plan=plan, layout=torch.strided)):
        for _ in range(3):
            (found,) = torch.autograd.grad((hess(x) * weights).sum(), x)
            assert_close(found, truth)
