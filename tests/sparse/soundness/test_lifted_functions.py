"""Lifted plans of every kind of function that people differentiate, against torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import pullback as pb
from pullback._errors import UnsupportedError

from .reference import CSR, assert_right, matrix_of, moved, whole

LIFTED = "replay"
Func = Callable[..., Any]
W = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return v * (x.abs() < 2)


def in_place(x: Tensor) -> Tensor:
    y = x.roll(1) * 2
    y[1:] += x[:-1].sin()
    y.mul_(W[0])
    return y


def pytrees(state: dict[str, Tensor], unused: Tensor) -> dict[str, Any]:
    return {"a": (state["u"].roll(1) * state["v"], 2 * state["v"]), "b": state["u"].sum()}


FUNCS: dict[str, tuple[Func, tuple[Any, ...], dict[str, Any]]] = {
    "a straight-through estimator": (lambda x: W @ RoundThrough.apply(x.roll(1)), (6,), {}),
    "a detach": (lambda x: (x * x.detach().sin()).roll(1) - x, (6,), {}),
    "writes in place": (in_place, (6,), {}),
    "a checkpoint": (
        lambda x: checkpoint(lambda y: (W @ y.sin()).roll(1), x.roll(1), use_reentrant=False),
        (6,), {},
    ),
    "a nested gradient": (torch.func.grad(lambda x: (x.roll(1) * x * x).sum()), (6,), {}),
    "an input that is not read": (lambda x, y: x.roll(1) ** 2, (6, 3), {"argnums": (0, 1)}),
    "an output without a graph": (
        lambda x: (x.roll(1) ** 2, torch.ones(2), x.detach() * 3), (6,), {},
    ),
    "a scalar": (lambda x: (W @ x.sin()).sum(), (6,), {}),
    "a matrix of one entry": (lambda x: 3 * x.sin(), (), {}),
    "sizes of one": (lambda x: x.sin().expand(2, 3).sum(0, keepdim=True) * W[:1, :3], (1, 1), {}),
    "a column that is always zero": (lambda x: W[:, :5] @ x[:5].sin(), (6,), {}),
    "a dense middle": (lambda x: W @ F.softmax(W.T @ x, 0), (6,), {}),
    "a sort": (lambda x: x.sort()[0].roll(1) * 2, (6,), {}),
    "a maximum": (lambda x: 3 * x.reshape(2, 3).max(1)[0].roll(1), (6,), {}),
    "a chain of two": (lambda x: W @ (W @ x.sin()).tanh(), (6,), {}),
    "a solve": (lambda x: torch.linalg.solve(W + 9 * torch.eye(6), x.sin()).roll(1), (6,), {}),
    "a Fourier transform": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2j)[:5] ** 2, (6,), {}),
    "a recurrent step": (lambda x: torch.stack([x.sin(), x.roll(1)]).cumsum(0) @ W, (6,), {}),
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", FUNCS)


def arguments(name: str) -> tuple[Any, ...]:
    _, shapes, options = FUNCS[name]
    torch.manual_seed(4)
    if "argnums" in options:
        return tuple(torch.randn(n) for n in shapes)
    return (torch.randn(shapes),)


@EVERY
@pytest.mark.parametrize("lift", [True, "auto"])
@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
def test_lifted_is_dense(name: str, lift: Any, mode: str) -> None:
    func, _, options = FUNCS[name]
    args = arguments(name)
    if mode == "fwd" and name in ("writes in place", "a Fourier transform"):
        with pytest.raises(UnsupportedError, match="there are none for this function"):
            pb.plan_jacobian(func, *args, lift=lift, mode=mode, **options)
        return
    plan = pb.plan_jacobian(func, *args, lift=lift, mode=mode, **options)
    jac = pb.jacobian(func, plan=plan, **options)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            for here in (args, moved(args)):
                assert_right(jac, func, *here, **options)
    assert jac.engine == (LIFTED if plan.lifted else "replay")


def test_most_of_them_are_lifted() -> None:
    found = [
        pb.plan_jacobian(func, *arguments(name), lift=True, **options).lifted
        for name, (func, _, options) in FUNCS.items()
    ]
    assert sum(found) >= len(FUNCS) - 3


@EVERY
def test_derivatives_of_a_lifted_jacobian_come_from_the_function(name: str) -> None:
    func, _, options = FUNCS[name]
    args = arguments(name)
    if name in ("a checkpoint", "a straight-through estimator"):  # torch.func refuses these
        return
    plan = pb.plan_jacobian(func, *args, lift=True, **options)
    jac = pb.jacobian(func, plan=plan, layout=torch.strided, **options)
    dense = torch.func.jacrev(func, argnums=options.get("argnums", 0))
    found, expected = (_slope(j, *args) for j in (jac, dense))
    assert jac.engine == "function"
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def _slope(jac: Func, first: Tensor, *args: Any) -> Tensor:
    x = first.clone().requires_grad_()
    total = _total(jac(x, *args))
    found = None
    if total.requires_grad:
        (found,) = torch.autograd.grad(total, x, allow_unused=True)
    return torch.zeros_like(first) if found is None else found


def _total(parts: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(parts)
    return sum((p.cos() * torch.arange(1.0, p.numel() + 1).reshape(p.shape)).sum() for p in leaves)  # type: ignore[return-value]


def test_the_second_derivative_of_a_straight_through_estimator() -> None:
    func = lambda x: (RoundThrough.apply(x) * x).roll(1)  # noqa: E731
    x = torch.tensor([0.4, 1.2, -0.7])
    plan = pb.plan_jacobian(func, x, lift=True)
    assert plan.lifted
    jac = pb.jacobian(func, plan=plan)
    y = x.clone().requires_grad_()
    jac(y).values().sum().backward()
    assert y.grad is not None
    torch.testing.assert_close(y.grad, torch.full((3,), 2.0))


def test_transforms_around_a_lifted_jacobian() -> None:
    func = lambda x: W @ (x.roll(1).sin() * x)  # noqa: E731
    x = torch.randn(6)
    plan = pb.plan_jacobian(func, x, lift=True)
    assert plan.lifted
    jac = pb.jacobian(func, plan=plan, layout=torch.strided)
    many = torch.randn(3, 6)
    found = torch.func.vmap(jac)(many)
    assert jac.engine == "function"
    torch.testing.assert_close(found, torch.stack([matrix_of(func, y) for y in many]))
    for transform in (torch.func.grad, torch.func.jacrev):
        found, expected = (
            transform(lambda x, j=j: j(x).pow(3).sum())(x) for j in (jac, torch.func.jacrev(func))
        )
        torch.testing.assert_close(found, expected)
    expected = matrix_of(func, x)
    with torch.inference_mode():
        torch.testing.assert_close(jac(x), expected)
        assert jac.engine == LIFTED


@pytest.mark.parametrize("layout", [CSR, "scipy"])
def test_pytrees_of_several_inputs_and_outputs(layout: Any) -> None:
    args = ({"u": torch.randn(4), "v": torch.randn(4)}, torch.randn(2))
    for argnums in (0, (0, 1), (1, 0)):
        plan = pb.plan_jacobian(pytrees, *args, argnums=argnums, lift=True)
        assert plan.lifted
        jac = pb.jacobian(pytrees, argnums, plan=plan, layout=layout)
        for here in (args, moved(args)):
            assert_right(jac, pytrees, *here, argnums=argnums)
        assert jac.engine == LIFTED


def test_auxiliary_results() -> None:
    func = lambda x: (x.roll(1).sin() * 2, {"mean": x.mean(), "name": "x"})  # noqa: E731
    x = torch.randn(5)
    plan = pb.plan_jacobian(func, x, lift=True, has_aux=True)
    assert plan.lifted
    jac = pb.jacobian(func, plan=plan, has_aux=True)
    found, aux = jac(x + 1)
    torch.testing.assert_close(whole(found), matrix_of(func, x + 1, has_aux=True))
    torch.testing.assert_close(aux["mean"], (x + 1).mean())
    assert aux["name"] == "x"
    assert jac.engine == LIFTED


Z = torch.randn(4, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
COMPLEX: dict[str, tuple[Func, Tensor]] = {
    "squares": (lambda z: (z * z).roll(1), Z),
    "moduli": (lambda z: (z.conj() * z).real.roll(1) * 3, Z),
    "conjugates": (lambda z: z.conj().roll(1) * z, Z),
    "phases": (lambda z: torch.view_as_real(z.roll(1) * (2 - 1j)).sin(), Z),
    "from reals": (lambda x: torch.polar(x.abs() + 1, x.roll(1)) * 2, torch.randn(5)),
    "sums": (lambda z: torch.stack([z.exp(), z.sin()]).sum(0) - 2 * z, Z),
    "linear": (lambda z: z.roll(1) * 3 - z, Z),
    "Fourier": (lambda z: torch.fft.fft(z * z), Z),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
def test_complex_elements_are_two_reals(name: str, mode: str) -> None:
    func, z = COMPLEX[name]
    plan = pb.plan_jacobian(func, z, lift=True, mode=mode)
    jac = pb.jacobian(func, plan=plan)
    with torch.no_grad():
        for here in (z, moved(z)):
            assert_right(jac, func, here)
    assert jac.engine == (LIFTED if plan.lifted else "replay")


def test_most_complex_functions_are_lifted() -> None:
    found = [pb.plan_jacobian(func, z, lift=True).lifted for func, z in COMPLEX.values()]
    assert sum(found) >= 5


def test_holomorphic_functions() -> None:
    func = lambda z: (z * z).roll(1) * 3 - z  # noqa: E731
    expected = torch.zeros(4, 4, dtype=Z.dtype)
    rows = torch.arange(4)
    expected[rows, (rows - 1) % 4] = (6 * Z).roll(1)
    expected -= torch.eye(4)
    plan = pb.plan_jacobian(func, Z, lift=True)
    assert plan.lifted
    for options in ({"plan": plan}, {"layout": CSR}):
        jac = pb.jacobian(func, holomorphic=True, **options)
        torch.testing.assert_close(jac(Z).to_dense(), expected)
        assert jac.engine == LIFTED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    weight = W.to(dtype)
    func = lambda x: (weight @ (x.sin() * x.roll(1))).roll(1) - x / 3  # noqa: E731
    x = torch.linspace(-1, 1, 6).to(dtype)
    plan = pb.plan_jacobian(func, x, lift=True)
    assert plan.lifted
    jac = pb.jacobian(func, plan=plan)
    for here in (x, x * 1.5):
        found = jac(here)
        assert found.dtype is dtype
        exact = matrix_of(
            lambda x: (weight.double() @ (x.sin() * x.roll(1))).roll(1) - x / 3, here.double()
        )
        error = float((whole(found).double() - exact).abs().max() / exact.abs().max())
        assert error < 8 * torch.finfo(dtype).eps
    assert jac.engine == LIFTED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_long_sums_are_as_exact_as_those_of_autograd(dtype: torch.dtype) -> None:
    shifts = torch.linspace(0, 3, 4000).to(dtype)
    func = lambda s: torch.cos(s + shifts).sum().reshape(1) / 64  # noqa: E731
    s = torch.tensor([0.3], dtype=dtype)
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, s, lift=True))
    exact = matrix_of(lambda s: torch.cos(s + shifts.double()).sum().reshape(1) / 64, s.double())
    assert float((whole(jac(s)).double() - exact).abs()) < 8 * torch.finfo(dtype).eps * float(
        exact.abs()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_inside_round_as_they_do_in_autograd(dtype: torch.dtype) -> None:
    weight = W.to(dtype)
    func = lambda x: (weight @ x.to(dtype).sin()).double().roll(1) * W[0] - x * 2  # noqa: E731
    x = torch.randn(6)
    plan = pb.plan_jacobian(func, x, lift=True)
    assert not plan.lifted
    assert "it computes in lower precision inside" in plan.notes[-1]
    assert_right(pb.jacobian(func, plan=plan), func, x, close=1e-9)


def test_planning_writes_to_no_argument() -> None:
    def func(x: Tensor, y: Tensor) -> Tensor:
        y.add_(1)
        return (2 * x * y).roll(1)

    x, y = torch.rand(4), torch.rand(4)
    before = y.clone()
    plan = pb.plan_jacobian(func, x, y, lift=True)
    assert torch.equal(y, before)
    jac = pb.jacobian(func, plan=plan)
    expected = torch.diag(2 * (before + 1)).roll(1, 0)
    torch.testing.assert_close(whole(jac(x, y)), expected)
    assert torch.equal(y, before + 1)


@pytest.mark.parametrize("count", [1, 2])
def test_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pullback.sparse import assemble

    monkeypatch.setattr(assemble, "BLOCK", 50)
    monkeypatch.setattr(assemble.in_blocks, "__defaults__", (50,))
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        kernel = torch.tensor([[[1.0, -2, 1]]])
        layered = lambda u: F.conv1d(F.conv1d(u[None, None], kernel).sin() ** 2, kernel)  # noqa: E731
        for func in (layered, lambda u: (u.roll(1) - u) ** 2, lambda u: 2 * u - (u[:1] * u).sin()):
            u = torch.randn(300)
            plan = pb.plan_jacobian(func, u, lift=True)
            assert plan.lifted
            assert_right(pb.jacobian(func, plan=plan), func, u)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_point_that_is_not_finite_spoils_its_own_entries_alone(bad: float) -> None:
    func = lambda x: W @ (x.roll(1) ** 2) + (x - 1).exp()  # noqa: E731
    x = torch.randn(6)
    plan = pb.plan_jacobian(func, x, lift=True)
    assert plan.lifted
    jac = pb.jacobian(func, plan=plan)
    jac(x)
    there = x.clone()
    there[2] = bad
    found, expected = whole(jac(there)), matrix_of(func, x)
    expected[:, 2] = bad
    others = [k for k in range(6) if k != 2]
    torch.testing.assert_close(found[:, others], expected[:, others])
    assert not found[:, 2].isfinite().any()
    torch.testing.assert_close(whole(jac(x)), matrix_of(func, x))


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        return W @ self.drop(x.sin()).roll(1)


def test_dropout_draws_as_a_dense_jacobian_does() -> None:
    module, x = Dropping(), torch.randn(6)
    plan = pb.plan_jacobian(module, x, lift=True)
    assert plan.lifted
    jac = pb.jacobian(module, plan=plan, layout=torch.strided)
    for seed in range(4):
        torch.manual_seed(seed)
        found = jac(x)
        torch.manual_seed(seed)
        torch.testing.assert_close(found, matrix_of(module, x))
        torch.manual_seed(seed)
        assert_right(jac, module, x)
    assert jac.engine == LIFTED


def test_the_running_statistics_of_a_normalization_move_once_a_call() -> None:
    for train in (True, False):
        norm = nn.BatchNorm1d(3).double().train(train)
        norm.requires_grad_(False)
        func = lambda x: norm(x.sin()).roll(1, 0) * 2  # noqa: B023, E731
        x = torch.randn(4, 3)
        jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x, lift=True))
        for _ in range(3):
            state = {k: v.clone() for k, v in norm.state_dict().items()}
            with torch.no_grad():
                expected = matrix_of(func, x)
                after = {k: v.clone() for k, v in norm.state_dict().items()}
                norm.load_state_dict(state)
                torch.testing.assert_close(whole(jac(x)), expected)
            for key, value in norm.state_dict().items():
                torch.testing.assert_close(value, after[key])
        assert train or jac.engine == LIFTED


def test_a_scale_that_the_function_itself_changes() -> None:
    holder = {"scale": torch.ones(4)}

    def func(x: Tensor) -> Tensor:
        y = (x * x * holder["scale"].clone()).roll(1)
        with torch.no_grad():
            holder["scale"].mul_(0.5)
        return y

    x = torch.randn(4)
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x, lift=True))
    for _ in range(3):
        scale = holder["scale"].clone()
        expected = torch.zeros(4, 4)
        expected[torch.arange(4), (torch.arange(4) - 1) % 4] = (2 * x * scale).roll(1)
        torch.testing.assert_close(whole(jac(x)), expected)
        torch.testing.assert_close(holder["scale"], 0.5 * scale)


def test_verify_holds_for_lifted_plans_and_finds_a_wrong_one() -> None:
    func = lambda x: W @ (x.roll(1).sin() * x)  # noqa: E731
    x = torch.randn(6)
    plan = pb.plan_jacobian(func, x, lift=True)
    assert plan.lifted
    pb.verify(func, x, plan=plan)
    terms = plan.lift.factors[0].terms  # type: ignore[union-attr]
    if terms.weights is not None:
        terms.weights[0] *= 1.5
        with pytest.raises(pb.PullbackError):
            pb.verify(func, x, plan=plan)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("lift", [False, True])
def test_values_are_nobody_elses_memory(lift: bool, compile: bool) -> None:
    """A gradient that is the cotangent itself must not be handed out with the seeds' memory."""
    x = torch.rand(5, dtype=torch.float64)
    for func in (lambda x: x.view(5), lambda x: x, lambda x: x.t()):
        plan = pb.plan_jacobian(func, x, lift=lift)
        jac = pb.jacobian(func, plan=plan, compile=compile)
        with torch.no_grad():
            for _ in range(3):
                found = jac(x)
                assert torch.equal(found.to_dense(), torch.eye(5, dtype=torch.float64))
                found.values().fill_(7)


@pytest.mark.parametrize("lift", [False, True])
def test_a_call_that_was_to_be_compiled_leaves_no_other_trace(lift: bool) -> None:
    """Buffers move as in one forward, and draws are those of one."""
    net = nn.Sequential(nn.BatchNorm1d(3, dtype=torch.float64), nn.Dropout(0.5))
    net.requires_grad_(False)
    x = torch.rand(4, 3, dtype=torch.float64)
    jac = pb.jacobian(net, plan=pb.plan_jacobian(net, x, lift=lift), compile=True)
    for calls in (1, 2):
        torch.manual_seed(3)
        with torch.no_grad():
            jac(x)
        after = torch.rand(1)
        assert int(net[0].num_batches_tracked) == calls
        torch.manual_seed(3)
        nn.functional.dropout(x, 0.5)
        assert torch.equal(after, torch.rand(1))
    assert "draws random numbers or writes" in jac.notes[-1]
