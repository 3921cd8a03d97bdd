"""``verify`` where torch's own ways to a derivative are compared: what it finds, and leaves alone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as fn

import pullback as pb

DOUBLE = torch.float64
_made = torch.Generator().manual_seed(5)


def drawn(*shape: int, positive: bool = False) -> Tensor:
    found = torch.randn(shape, generator=_made, dtype=DOUBLE)
    return found.abs() + 0.3 if positive else found


A = drawn(3, 3) + 3 * torch.eye(3, dtype=DOUBLE)
B, W, X, P = drawn(3), drawn(3, 3), drawn(3, 4), drawn(3, 4, positive=True)
UNIT = torch.rand(3, 4, generator=_made, dtype=DOUBLE) * 0.8 + 0.1
IMAGE = drawn(1, 2, 4, 4)
KERNEL = drawn(2, 2, 2, 2)


def accused(func: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(pb.GradientAssertionError) as caught:
        pb.verify(func, *args, **options)
    return str(caught.value)


def entry_of(text: str) -> tuple[int, int]:
    found = re.search(r"at entry \((\d+), (\d+)\)", text)
    assert found is not None
    return int(found[1]), int(found[2])


def said(text: str, way: str) -> float:
    found = re.search(rf"{way}: +(\S+)", text)
    assert found is not None
    return float(found[1])


# What torch gets right: a function of one number for every operation.

SMOOTH: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "sin": (torch.sin, X), "cos": (torch.cos, X), "tan": (torch.tan, UNIT), "exp": (torch.exp, X),
    "expm1": (torch.expm1, X), "log": (torch.log, P), "log1p": (torch.log1p, P),
    "log2": (torch.log2, P), "sqrt": (torch.sqrt, P), "rsqrt": (torch.rsqrt, P),
    "sinh": (torch.sinh, X), "cosh": (torch.cosh, X), "tanh": (torch.tanh, X),
    "asin": (torch.asin, UNIT), "acos": (torch.acos, UNIT), "atan": (torch.atan, X),
    "asinh": (torch.asinh, X), "acosh": (lambda x: torch.acosh(x + 1), P),
    "atanh": (torch.atanh, UNIT), "erf": (torch.erf, X), "erfc": (torch.erfc, X),
    "erfinv": (torch.erfinv, UNIT), "lgamma": (torch.lgamma, P), "digamma": (torch.digamma, P),
    "sigmoid": (torch.sigmoid, X), "softplus": (fn.softplus, X), "gelu": (fn.gelu, X),
    "silu": (fn.silu, X), "elu": (fn.elu, P), "selu": (fn.selu, P), "mish": (fn.mish, X),
    "celu": (fn.celu, P), "relu": (fn.relu, X), "leaky_relu": (fn.leaky_relu, X),
    "logsigmoid": (fn.logsigmoid, X), "softsign": (fn.softsign, X), "tanhshrink": (fn.tanhshrink, X),
    "softmax": (lambda x: x.softmax(1), X), "log_softmax": (lambda x: x.log_softmax(0), X),
    "logsumexp": (lambda x: x.logsumexp(1), X), "square": (torch.square, X), "pow": (lambda x: x**3, X),
    "reciprocal": (torch.reciprocal, P), "div": (lambda x: x / x.roll(1), P),
    "prod": (lambda x: x.prod(1), X), "cumprod": (lambda x: x.cumprod(1), X),
    "cumsum": (lambda x: x.cumsum(1), X), "logcumsumexp": (lambda x: x.logcumsumexp(1), X),
    "var": (lambda x: x.var(1), X), "std": (lambda x: x.std(0), X), "mean": (lambda x: x.mean(1), X),
    "norm": (lambda x: x.norm(dim=1), X), "amax": (lambda x: x.amax(1), X), "sort": (lambda x: x.sort(1)[0], X),
    "median": (lambda x: x.median(1)[0], X), "sinc": (torch.sinc, X), "addcmul": (lambda x: torch.addcmul(x, x, x), X),
    "atan2": (lambda x: torch.atan2(x, x.roll(1)), P), "hypot": (lambda x: torch.hypot(x, x.roll(1)), P),
    "lerp": (lambda x: torch.lerp(x, x.roll(1), x), X), "matmul": (lambda x: x @ x.mT, X),
    "einsum": (lambda x: torch.einsum("ij,kj->ik", x, x), X), "outer": (lambda x: torch.outer(x[0], x[1]), X),
    "inv": (torch.linalg.inv, A), "pinv": (torch.linalg.pinv, A), "matrix_exp": (torch.linalg.matrix_exp, A),
    "eigvalsh": (lambda x: torch.linalg.eigvalsh(x + x.mT), A), "svdvals": (torch.linalg.svdvals, A),
    "cholesky": (lambda x: torch.linalg.cholesky(x @ x.mT), A), "qr": (lambda x: torch.linalg.qr(x)[1], A),
    "solve_triangular": (lambda x: torch.linalg.solve_triangular(x.triu(), W, upper=True), A),
     "normalize": (lambda x: fn.normalize(x), X),
    "conv2d": (lambda x: fn.conv2d(x, KERNEL) ** 2, IMAGE), "avg_pool2d": (lambda x: fn.avg_pool2d(x, 2) ** 2, IMAGE),
    "max_pool2d": (lambda x: fn.max_pool2d(x, 2) ** 2, IMAGE), "fft": (lambda x: torch.view_as_real(torch.fft.fft(x)) ** 2, X),
    "unfold": (lambda x: x.unfold(1, 2, 1) ** 2, X), "gather": (lambda x: x[[0, 2, 0]] ** 2, X),
    "where": (lambda x: torch.where(x > 0, x**2, x.sin()), X), "clamp": (lambda x: x.clamp(-0.5, 0.5) ** 2, X),
    "mse_loss": (lambda x: fn.mse_loss(x, W[:, :1] * x), X), "cross_entropy": (lambda x: fn.cross_entropy(x, torch.tensor([0, 1, 2])), X),
    "kl_div": (lambda x: fn.kl_div(x.log_softmax(1), UNIT, reduction="sum"), X),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_no_alarm_at_what_is_right(name: str) -> None:
    func, x = SMOOTH[name]
    weights = torch.randn(func(x).shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)

    def number(x: Tensor) -> Tensor:
        out = func(x)
        return (weights * out + 0.3 * out**2).sum()

    found = pb.verify(number, x, order=2)
    assert {"reverse over reverse", "finite differences"} <= set(found.compared)
    assert found.resolution < 1e-5
    assert len(found.compared) >= 3, found.notes


def test_the_list_is_of_some_size() -> None:
    assert len(SMOOTH) >= 60


# What torch 2.13 gets wrong. Where a later one does not, there is nothing to find.

TWICE_WRONG = {
    "det": torch.linalg.det,
    "slogdet": lambda x: torch.linalg.slogdet(x)[1],
    "logdet": lambda x: torch.logdet(x @ x.mT),
    "solve": lambda x: (torch.linalg.solve(x, B) ** 2).sum(),
    "layer_norm": lambda x: (W * fn.layer_norm(x, (3,))).sum(),
}


@pytest.mark.parametrize("name", TWICE_WRONG)
def test_second_derivatives_through_forward_mode(name: str) -> None:
    func = TWICE_WRONG[name]
    right = torch.func.jacrev(torch.func.jacrev(func))(A).reshape(9, 9)
    wrong = torch.func.jacrev(torch.func.jacfwd(func))(A).reshape(9, 9)
    if torch.allclose(right, wrong):
        pytest.skip("torch has mended it")
    text = accused(func, A, order=2)
    i, j = entry_of(text)
    assert text.startswith("verify: torch's modes disagree at entry ")
    assert said(text, "reverse over reverse") == pytest.approx(right[i, j].item(), 1e-4, 1e-9)
    assert said(text, "forward over reverse") == pytest.approx(right[i, j].item(), 1e-4, 1e-9)
    assert said(text, "reverse over forward") == pytest.approx(wrong[i, j].item(), 1e-4, 1e-9)
    assert said(text, "finite differences") == pytest.approx(right[i, j].item(), 1e-4, 1e-8)
    assert "support reverse over reverse and forward over reverse" in text
    assert "Take it by pb.hessian(func)" in text
    with pytest.raises(pb.GradientAssertionError):  # the plan is right, and the way is named
        pb.verify(func, A, plan=pb.plan_hessian(func, A))


def test_a_first_derivative_in_forward_mode() -> None:
    func = lambda x: torch.cholesky_inverse(torch.linalg.cholesky(x @ x.mT))  # noqa: E731
    right, wrong = (
        torch.func.jacrev(func)(A).reshape(9, 9),
        torch.func.jacfwd(func)(A).reshape(9, 9),
    )
    if torch.allclose(right, wrong):
        pytest.skip("torch has mended it")
    text = accused(func, A)
    i, j = entry_of(text)
    assert f"reverse mode:       {right[i, j]:.6g}\n" in text
    assert f"forward mode:       {wrong[i, j]:.6g}\n" in text
    assert "support reverse mode; wrong is what comes by forward mode" in text


def test_a_backward_that_all_of_torch_believes() -> None:
    """The mask of as_strided_scatter's backward is the wrong way round, where sizes are given."""
    source = drawn(2)

    def func(x: Tensor) -> Tensor:
        return torch.as_strided_scatter(x, source, (2,), (2,), 0) ** 2

    x = drawn(6)
    if not torch.func.jacrev(func)(x)[0].any():
        pytest.skip("torch has mended it")
    assert "finite differences:" in accused(func, x)


def test_a_matrix_of_another_program() -> None:
    """A constant at every entry: what Inductor adds to the Hessian of a trace."""

    def func(t: Tensor) -> Tensor:
        return (1 / (t + t.trace() * torch.eye(3, dtype=DOUBLE))).mean()

    H = torch.func.hessian(func)(P[:, :3])
    pb.verify(func, P[:, :3], order=2, matrix=H)
    pb.verify(func, P[:, :3], order=2, matrix=H.reshape(9, 9).to_sparse())
    with pytest.raises(pb.ArgumentError, match=r"verify: `matrix` is wrong at entry \(\d, \d\)"):
        pb.verify(func, P[:, :3], order=2, matrix=H + 0.0374)
    off = H.reshape(9, 9).clone()
    off[2, 7] += 1e-4
    with pytest.raises(pb.ArgumentError, match=r"entry \(2, 7\).*off by 0.0001"):
        pb.verify(func, P[:, :3], order=2, matrix=off.numpy())


# What a user gets wrong.


def custom(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    class Custom(Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            ctx.save_for_backward(*args)
            return forward(*args)

        @staticmethod
        def backward(ctx: Any, v: Tensor) -> Any:
            return backward(v, *ctx.saved_tensors)

    return Custom.apply


def _at(value: float) -> Tensor:
    off = torch.ones(3, 4, dtype=DOUBLE)
    off[1, 2] = value
    return off


FAULTS: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "sign": (torch.square, lambda v, x: -2 * x * v, "The sign is flipped."),
    "two": (torch.square, lambda v, x: x * v, "A factor of 2 is missing."),
    "factor": (torch.square, lambda v, x: 2 * v, "A factor of the input is missing."),
    "nothing": (torch.square, lambda v, x: 0 * v, "Every entry is zero"),
    "mean": (lambda x: x.sum(0), lambda v, x: v.expand(3, 4) / 3, "1/3 of what it should be"),
    "one": (torch.square, lambda v, x: 2 * x * v * _at(1.5), ""),
    "one missing": (torch.square, lambda v, x: 2 * x * v * _at(0.0), "1 of the 12 elements"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_backward(name: str) -> None:
    forward, backward, mistake = FAULTS[name]
    func = custom(forward, backward)
    text = accused(func, P)
    i, j = entry_of(text)
    right, wrong = torch.func.jacrev(forward)(P), torch.autograd.functional.jacobian(func, P)
    right, wrong = right.reshape(-1, 12), wrong.reshape(-1, 12)
    assert abs(right[i, j] - wrong[i, j]) > 1e-3
    assert f"reverse mode:       {wrong[i, j]:.6g}\n" in text
    assert f"finite differences: {right[i, j]:.6g} ± " in text
    assert mistake in text
    assert "Ask pb.audit_function(Custom, ...)." in text
    assert f"`args[0]{list(divmod(j, 4))}`" in text
    if name.startswith("one"):
        assert (i, j) == (6, 6)


def test_a_slope_that_was_computed_in_forward() -> None:
    """Its second derivative is silently that of a constant (pytorch#76185)."""

    class Cube(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.slope = 3 * x**2
            return x**3

        @staticmethod
        def backward(ctx: Any, v: Tensor) -> Any:
            return ctx.slope * v

    func = lambda x: Cube.apply(x).sum()  # noqa: E731
    assert "finite differences" in pb.verify(func, X).compared
    text = accused(func, X, order=2)
    i, j = entry_of(text)
    assert i == j
    assert f"finite differences:   {6 * X.reshape(-1)[i]:.6g} ± " in text
    assert "finite differences of the gradient contradict autograd" in text
    with pytest.raises(pb.GradientAssertionError):
        pb.verify(func, X, plan=pb.plan_hessian(func, X))


def test_a_forward_mode_of_its_own_that_is_wrong() -> None:
    class Square(Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x**2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, v: Tensor) -> Any:
            return 2 * ctx.saved_tensors[0] * v

        @staticmethod
        def jvp(ctx: Any, t: Tensor) -> Any:
            return 3 * ctx.saved_tensors[0] * t

    text = accused(Square.apply, X)
    assert "torch's modes disagree" in text
    assert "support reverse mode; wrong is what comes by forward mode" in text


def test_nan_where_the_function_is_smooth() -> None:
    """The gradient of the branch that is not taken is nan, and 0 times nan is nan."""
    func = lambda x: torch.where(x > 0, x.sqrt(), 2 * x)  # noqa: E731
    text = accused(func, torch.tensor([1.0, -1.0], dtype=DOUBLE))
    i, j = entry_of(text)
    assert j == 1
    assert "reverse mode:       nan" in text
    assert said(text, "finite differences") == pytest.approx(2.0 * i)


# What is no fault.


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "func",
    [torch.relu, torch.abs, lambda x: x.norm(), lambda x: x.amax(), lambda x: x.sort()[0], lambda x: fn.hardtanh(x - 1)],
    ids=["relu", "abs", "norm", "amax", "sort", "hardtanh"],
)  # fmt: skip
def test_kinks_are_noted(func: Callable[..., Tensor], order: int) -> None:
    x = torch.zeros(4, dtype=DOUBLE)
    weights = torch.arange(1.0, 5.0, dtype=DOUBLE)
    number = lambda x: (func(x) * weights).sum()  # noqa: E731
    found = pb.verify(func if order == 1 else number, x, order=order)
    assert order == 2 or "entries at kinks, where there is no derivative" in repr(found)


def test_a_step_straight_through_is_a_choice_to_plans_and_a_difference_to_functions() -> None:
    step = custom(torch.round, lambda v, x: v)
    func = lambda x: (step(x) * x).sum()  # noqa: E731
    pb.verify(func, X, plan=pb.plan_jacobian(func, X))
    pb.verify(func, X, plan=pb.plan_hessian(func, X))
    assert "unless another gradient is meant (a straight-through estimator" in accused(step, X)


@pytest.mark.parametrize("order", [1, 2])
def test_cuts_are_no_fault(order: int) -> None:
    def detached(x: Tensor) -> Tensor:
        return (x.detach() * x**2).sum()

    def unrecorded(x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.norm()
        return (scale * x**2).sum()

    def read(x: Tensor) -> Tensor:
        return x.sum().item() * (x**2).sum()

    for func in (detached, unrecorded, read):
        found = pb.verify(func, X, order=order)
        assert "func cuts gradients by its own means" in repr(found)
        assert "test_crosscheck.py:" in repr(found)


def test_functions_that_draw() -> None:
    func = lambda x: fn.dropout(x**3, 0.5).sum()  # noqa: E731
    before = torch.get_rng_state()
    assert "finite differences" in pb.verify(func, X, order=2).compared
    assert torch.equal(before, torch.get_rng_state())


def test_functions_that_are_another_one_each_time() -> None:
    calls: list[int] = []

    def func(x: Tensor) -> Tensor:
        calls.append(1)
        return x**2 * len(calls)

    with pytest.raises(pb.UnsupportedError, match="another value at the same point each time"):
        pb.verify(func, X)


def test_functions_that_write_into_their_argument() -> None:
    def func(x: Tensor) -> Tensor:
        y = x * 1
        y.mul_(x).add_(1)
        return y

    assert len(pb.verify(func, X).compared) == 3


def test_float32_is_compared_in_double_precision_if_it_can_be() -> None:
    assert pb.verify(torch.exp, X.float()).resolution < 1e-7
    layer = torch.nn.Linear(4, 2)
    found = pb.verify(lambda x: layer(x).tanh(), X.float())
    assert found.notes == ()
    assert found.resolution < 1e-7
    assert layer.weight.dtype == torch.float32
    wide = torch.nn.Linear(2100, 1)
    assert pb.verify(lambda x: wide(x).tanh().sum(), drawn(2100).float(), order=2).notes == ()

    def single(x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return x.exp()

    found = pb.verify(single, X.float())
    assert "compared in float32" in repr(found)
    assert "finite differences" in found.compared
    wrong = custom(torch.exp, lambda v, x: 1.2 * x.exp() * v)
    assert "1.2 times" in accused(wrong, X.float())
    assert "contradict" in accused(lambda x: wrong(layer(x)), X.float())


def test_coarse_arithmetic_inside_is_noted() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        pb.verify(lambda x, dtype=dtype: (x.to(dtype) ** 2).to(DOUBLE), X)


def test_complex_arguments() -> None:
    z = torch.complex(drawn(3), drawn(3))
    assert len(pb.verify(lambda z: z**2 * z.conj(), z).compared) == 3
    wrong = custom(torch.square, lambda v, z: 2 * z * v)
    assert "It is the conjugate" in accused(wrong, z)


# Plans of Hessians.


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


@pytest.mark.parametrize("mode", ["auto", "star", "acyclic", "rev", "dense"])
def test_a_plan_of_a_hessian(mode: str) -> None:
    x = torch.linspace(0.2, 1.0, 30, dtype=DOUBLE)
    found = pb.verify(rosenbrock, x, plan=pb.plan_hessian(rosenbrock, x, mode=mode))
    assert found.compared == (
        "the plan", "reverse over reverse", "forward over reverse", "reverse over forward",
        "finite differences",
    )  # fmt: skip


def test_an_entry_that_the_pattern_of_a_hessian_lacks() -> None:
    x = torch.linspace(0.2, 1.0, 8, dtype=DOUBLE)
    mask = torch.func.hessian(rosenbrock)(x).numpy() != 0
    mask[3, 4] = False
    plan = pb.plan_hessian(rosenbrock, x, mode="dense", pattern=mask)
    with pytest.raises(pb.ArgumentError) as caught:
        pb.verify(rosenbrock, x, plan=plan)
    text = str(caught.value)
    assert "wrong at entry (3, 4): autograd gives -" in text
    assert "gradient element 3 with respect to input element 4" in text
    assert "pb.plan_hessian(func, *args)" in text


def test_cotangents_several_arguments_and_aux() -> None:
    def func(a: Tensor, b: Tensor) -> tuple[Tensor, str]:
        return (a * b.roll(1)).sin(), "aux"

    args, v = (X[0], X[1]), X[2]
    plan = pb.plan_hessian(func, *args, argnums=(0, 1), has_aux=True, cotangents=v)
    assert len(pb.verify(func, *args, plan=plan, has_aux=True, cotangents=v).compared) == 5
    found = pb.verify(func, *args, order=2, argnums=(0, 1), has_aux=True, cotangents=v)
    assert len(found.compared) == 4


def test_named_tensors_of_a_module() -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    ).double()
    assert len(pb.verify(module, X, wrt="0.weight").compared) == 3
    loss = torch.nn.Sequential(module, torch.nn.Sigmoid(), _Sum()).double()
    assert len(pb.verify(loss, X, wrt="parameters", order=2).compared) == 4
    plan = pb.plan_hessian(loss, X, wrt=["0.0.bias"])
    assert len(pb.verify(loss, X, plan=plan).compared) == 5
    assert all(p.grad is None for p in loss.parameters())


class _Sum(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x**2).sum()


def test_large_matrices_are_compared_by_products() -> None:
    x = torch.linspace(0.2, 1.0, 2100, dtype=DOUBLE)
    assert len(pb.verify(rosenbrock, x, order=2).compared) == 4
    wrong = custom(torch.square, lambda v, x: 2 * x * v * torch.where(x > 0.9999, 1.5, 1.0))
    text = accused(wrong, x)
    assert entry_of(text) == (2099, 2099)


def test_it_leaves_buffers_and_gradients_alone() -> None:
    norm = torch.nn.BatchNorm1d(4).double()
    before = {name: t.clone() for name, t in norm.state_dict().items()}
    x = X.clone().requires_grad_()
    pb.verify(lambda x: norm(x).pow(3).sum(), x, order=1)
    assert all(torch.equal(t, before[name]) for name, t in norm.state_dict().items())
    assert x.grad is None
    assert norm.weight.grad is None


def test_refusals() -> None:
    plan = pb.plan_jacobian(torch.sin, X)
    with pytest.raises(pb.ArgumentError, match="`order` is 3"):
        pb.verify(torch.sin, X, order=3)
    with pytest.raises(pb.ArgumentError, match="the plan is one of a Jacobian"):
        pb.verify(torch.sin, X, plan=plan, order=2)
    with pytest.raises(pb.ArgumentError, match="`cotangents` weigh the outputs"):
        pb.verify(torch.sin, X, cotangents=X)
    with pytest.raises(pb.ArgumentError, match=r"`matrix` is of shape \(3,\), and the derivative"):
        pb.verify(torch.sin, X, matrix=np.ones(3))
    with pytest.raises(pb.ArgumentError, match="argnums"):
        pb.verify(lambda x, y: x * y, X, X, plan=plan, argnums=1)
    with pytest.raises(pb.UnsupportedError, match="no derivative of the backward"):
        pb.verify(lambda x: torch.cdist(x, x + 1).sum(), X, order=2)


def test_warnings_are_kept_to_itself() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pb.verify(rosenbrock, X[0], order=2)
