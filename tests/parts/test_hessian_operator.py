"""``HessianOperator``: products, symmetry, engines, parts, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pullback as pb
from tests.parts.functions import Func, counted, rand

A = rand(9, 9, seed=3)
net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double().requires_grad_(False)


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


FUNCTIONS: dict[str, tuple[Func, tuple[int, ...]]] = {
    "rosenbrock": (rosenbrock, (12,)),
    "separable": (lambda x: x.exp().sum(), (8,)),
    "arrow": (lambda x: (x[0] * x[1:] ** 2).sum(), (8,)),
    "dense": (lambda x: x.square().sum().sin(), (6,)),
    "linear": (lambda x: 2 * x.sum(), (6,)),
    "constant": (lambda x: torch.ones((), dtype=x.dtype), (4,)),
    "elements": (lambda x: (A @ x).sin().sum(), (9,)),
    "network": (lambda x: net(x).sum(), (4, 3)),
    "one element of shape (1,)": (lambda x: (x**3).sum()[None], (5,)),
    "nothing": (lambda x: x.sum(), (0,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_hessian(name: str) -> None:
    func, shape = FUNCTIONS[name]
    x = rand(*shape)
    H = pb.HessianOperator(func, x)
    n = x.numel()
    expected = torch.func.hessian(lambda x: func(x).reshape(()))(x).reshape(n, n)
    t, T = rand(n, seed=1), rand(n, 3, seed=2)
    assert (H.shape, H.dtype, H.engine, H.notes) == (
        (n, n), torch.float64, "reverse over reverse", ()
    )  # fmt: skip
    assert H.T is H
    for ours, theirs in (
        (H @ t, expected @ t),
        (t @ H, t @ expected),
        (H.matvec(t), expected @ t),
        (H.rmatvec(t), expected @ t),
        (H @ T, expected @ T),
        (T.T @ H, T.T @ expected),
        (H.to_dense(), expected),
        (H.to_dense(chunk_size=2), expected),
        (H.diagonal(max_products=100), expected.diagonal()),
        (H.trace(max_products=100), expected.diagonal().sum()),
        (H.row_sums(), expected.sum(1)),
        (H.rows(range(n)), expected),
        (H.rows(range(1, n, 3)), expected[1::3]),
        (H.columns(range(0, n, 2)), expected[:, ::2]),
        (H.block_diagonal(1)[0], expected),
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("func", "products"),
    [
        (lambda x: x.exp().sum(), 1),
        (rosenbrock, 2),
        (lambda x: (x[2:] * x[1:-1] * x[:-2]).square().sum(), 3),
        (lambda x: (x[0] * x[1:]).square().sum(), 2),
        (lambda x: (x[0] * x[1:] ** 2).sum(), 1),  # (0, 0) is no entry
        (lambda x: (x[2:] * x[1:-1] * x[:-2]).sum(), 0),
        (lambda x: 2 * x.sum(), 0),
    ],
)
def test_a_laplacian_takes_what_theory_says(func: Func, products: int) -> None:
    H = pb.HessianOperator(func, rand(40))
    assert H.cost_of("trace").products == products
    assert counted(H, H.trace) == products


def test_laplacians_of_points_cost_as_many_products_as_a_point_has_coordinates() -> None:
    x = rand(50, 3)
    H = pb.HessianOperator(lambda x: net(x).sum(), x)
    assert H.cost_of("trace").products == H.cost_of("block_diagonal").products == 3
    assert counted(H, H.diagonal) == counted(H, H.block_diagonal) == 3
    expected = torch.func.vmap(torch.func.hessian(lambda t: net(t).sum()))(x)
    assert_close(H.block_diagonal(), expected)
    laplacians = H.diagonal().reshape(50, 3).sum(1)
    assert_close(laplacians, expected.diagonal(dim1=1, dim2=2).sum(1))


def test_the_reasons_are_told_in_products() -> None:
    H = pb.HessianOperator(rosenbrock, rand(40))
    assert H.cost_of("diagonal").reason == "2 products show every entry of it"
    with pytest.raises(pb.UnsupportedError, match=r"v \* \(H @ v\)"):
        pb.HessianOperator(lambda x: x.softmax(0).max(), rand(9)).diagonal()


def test_scipy_solves_with_it() -> None:
    x, b = rand(8), rand(8, seed=1)
    H = pb.HessianOperator(lambda x: (x**2).sum() * 3 + (x[1:] * x[:-1]).sin().sum(), x)
    solution, _ = scipy.sparse.linalg.minres(H.to_scipy(), b.numpy(), rtol=1e-12)
    np.testing.assert_allclose(H.to_dense().numpy() @ solution, b.numpy(), atol=1e-8)


def test_pytrees_argnums_and_cotangents() -> None:
    p = {"w": rand(2, 3), "b": rand(2, seed=1)}

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return ((p["w"] @ x).tanh() + p["b"] * x.sum()).square().sum()

    x = rand(3, seed=2)
    H = pb.HessianOperator(loss, p, x, argnums=(0, -1))
    blocks = torch.func.hessian(loss, argnums=(0, 1))(p, x)
    rows = [[of["w"], of["b"], of_x] for of, of_x in (blocks[0]["w"], blocks[0]["b"], blocks[1])]
    sizes = (6, 2, 3)
    expected = torch.cat([
        torch.cat([t.reshape(q, s) for t, s in zip(row, sizes, strict=True)], 1)
        for q, row in zip(sizes, rows, strict=True)
    ])  # fmt: skip
    assert_close(H.to_dense(), expected)
    assert_close(H.diagonal(max_products=11), expected.diagonal())

    def residual(x: Tensor) -> Tensor:
        return x[1:] * x[:-1]

    v = rand(2, seed=4)
    weighed = pb.HessianOperator(residual, x, cotangents=v)
    assert_close(weighed.to_dense(), torch.func.hessian(lambda x: v @ residual(x))(x))
    assert_close(weighed.diagonal(), torch.zeros(3, dtype=torch.float64))


def test_products_are_differentiable() -> None:
    x, t = rand(5).requires_grad_(), rand(5, seed=1)
    H = pb.HessianOperator(lambda x: (x**4).sum(), x)
    (gradient,) = torch.autograd.grad((H @ t).sum(), x)
    assert_close(gradient, 24 * x.detach() * t)
    (gradient,) = torch.autograd.grad(H.trace(), x)
    assert_close(gradient, 24 * x.detach())


class Slope(torch.autograd.Function):
    """``3 x^2 g``, which reverse mode cannot differentiate, and forward mode can."""

    @staticmethod
    def forward(x: Tensor, g: Tensor) -> Tensor:
        return 3 * x**2 * g

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError("this slope has no derivative backwards")

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, g_t: Tensor) -> Tensor:
        x, g = ctx.saved_tensors
        return 6 * x * g * x_t + 3 * x**2 * g_t


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return Slope.apply(ctx.saved_tensors[0], grad)

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * t


def test_forward_over_reverse_stands_in() -> None:
    x = rand(4)
    H = pb.HessianOperator(lambda x: Cube.apply(x).sum(), x)
    assert H.engine == "forward over reverse"
    assert H.notes == ("reverse over reverse was left: this slope has no derivative backwards",)
    expected = torch.diag(6 * x)
    assert_close(H.to_dense(), expected)
    assert_close(H @ x, expected @ x)
    assert_close(H.rows([1]), expected[1:2])
    with pytest.raises(pb.UnsupportedError, match="the structure of the matrix is not known"):
        H.diagonal()
    assert_close(H.diagonal(max_products=4), 6 * x)


def test_neither_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ctx: Any, x_t: Tensor, g_t: Tensor) -> Tensor:
        raise RuntimeError("nor forwards")

    monkeypatch.setattr(Slope, "jvp", staticmethod(broken))
    with pytest.raises(pb.UnsupportedError) as caught:
        pb.HessianOperator(lambda x: Cube.apply(x).sum(), rand(4))
    for line in (
        "HessianOperator: torch can differentiate the gradient of `func` neither way.",
        "  Reverse over reverse: this slope has no derivative backwards",
        "  Forward over reverse: nor forwards",
    ):
        assert line in str(caught.value)


class Bent(torch.autograd.Function):
    """Its backward is the gradient of nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].roll(1)


def test_what_is_not_symmetric_is_refused() -> None:
    with pytest.raises(pb.UnsupportedError, match="is not symmetric"):
        pb.HessianOperator(lambda x: Bent.apply(x).sum(), rand(5))


def test_a_straight_through_estimator_counts_as_it_behaves() -> None:
    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    H = pb.HessianOperator(lambda x: Straight.apply(x).square().sum(), rand(5))
    assert_close(H.to_dense(), 2 * torch.eye(5).double())
    assert_close(H.diagonal(), torch.full((5,), 2.0).double())


def test_refusals() -> None:
    x = rand(4)
    with pytest.raises(pb.ArgumentError, match="a Hessian is of one number"):
        pb.HessianOperator(torch.sin, x)
    with pytest.raises(pb.ArgumentError, match="`argnums` asks for argument 1"):
        pb.HessianOperator(rosenbrock, x, argnums=1)
    with pytest.raises(pb.UnsupportedError, match="the matrix is real"):
        pb.HessianOperator(lambda x: (x * x.conj()).real.sum(), x * 1j)
    with pytest.raises(pb.UnsupportedError, match=r"inside a running torch\.func\.vmap"):
        torch.func.vmap(lambda x: pb.HessianOperator(rosenbrock, x) @ x)(rand(2, 4))


def test_repr() -> None:
    H = pb.HessianOperator(rosenbrock, rand(4))
    assert repr(H) == (
        "HessianOperator(shape=(4, 4), dtype=float64, inputs=1, H t by reverse over reverse)"
    )
