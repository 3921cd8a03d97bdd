"""Every kind of function that torch differentiates has the Jacobian of its own backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F  # noqa: N812
from torch.testing import assert_close
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import pullback as pb

from .reference import CSR, assert_right, assert_right_everywhere, matrix_of


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def points(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(shape) + 0.3


def written(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] *= 2
    y.view(2, 2)[:, 0].sin_()
    y[0] = x[1] * x[2]
    return y


def through_views(x: Tensor) -> Tensor:
    y = torch.zeros(2, 4)
    y[0] = x
    y[1, ::2] = x[:2] ** 2
    y.T[1].mul_(3)
    return y * x


def stepped(x: Tensor) -> Tensor:
    for _ in range(5):
        x = x + 0.1 * (x.roll(1) - x) * x
    return x


def doubly(x: Tensor) -> Tensor:
    x = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad((x**3 * x.roll(1)).sum(), x, create_graph=True)[0]


def hooked(x: Tensor) -> Tensor:
    h = x * 1
    h.register_hook(lambda g: 2 * g)
    return h * x


def retained(x: Tensor) -> Tensor:
    y = x * x.roll(1)
    y.retain_grad()
    return y.sin()


def embedded() -> Callable[[Tensor], Tensor]:
    table = nn.Embedding(5, 4)
    return lambda x: table(torch.tensor([0, 1, 1])) * x


def with_constant_output() -> Callable[[Tensor], Any]:
    w = torch.rand(3)
    return lambda x: (x * 2, w)


def recurrent(make: Callable[[], nn.Module]) -> Callable[[], Callable[[Tensor], Tensor]]:
    def built() -> Callable[[Tensor], Tensor]:
        net = make()
        return lambda X: net(X)[0]

    return built


def attending() -> Callable[[Tensor], Tensor]:
    net = nn.MultiheadAttention(4, 2, batch_first=True)
    return lambda X: net(X, X, X)[0]


def functional() -> Callable[[Tensor], Tensor]:
    layer = nn.Linear(4, 3)
    params = {k: v.detach() * 2 for k, v in layer.named_parameters()}
    return lambda x: functional_call(layer, params, (x,)).sin()


def per_sample() -> Callable[[Tensor], Tensor]:
    layer = nn.Linear(2, 2)
    return lambda X: vmap(jacrev(lambda x: layer(x).tanh()))(X)


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ramp", torch.arange(4.0))
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x * self.ramp


A = torch.tensor([[4.0, 1.0, 0.5], [0.3, 5.0, 1.0], [0.2, 0.7, 6.0]], dtype=torch.float64)
x3, x4 = points(3), points(4)


def plain(func: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    return lambda: func


KINDS: dict[str, tuple[Callable[[], Callable[..., Any]], Callable[[], Tensor]]] = {
    "straight through": (plain(lambda x: Rounded.apply(x) * x.roll(1)), x4),
    "detach": (plain(lambda x: x.detach().sin() * x**2), x4),
    "in place": (plain(written), x4),
    "writes through views": (plain(through_views), x4),
    "as_strided": (plain(lambda x: x.as_strided((3, 2), (1, 1)).prod(1)), x4),
    "unfold": (plain(lambda x: x.unfold(0, 2, 1).prod(1)), x4),
    "checkpoint": (
        plain(lambda x: checkpoint(lambda t: t.sin() * t, x, use_reentrant=False)),
        x4,
    ),
    "nested grad": (plain(lambda x: grad(lambda t: (t**3).sum())(x) * x), x4),
    "nested vmap": (plain(lambda x: vmap(grad(lambda t: t.sin() * t))(x)), x4),
    "nested jacrev": (plain(lambda x: jacrev(lambda t: t**3)(x).sum(0) * x), x4),
    "double backward inside": (plain(doubly), x4),
    "per sample": (per_sample, points(3, 2)),
    "functional_call": (functional, x4),
    "module with buffers": (Buffered, x4),
    "hook that scales": (plain(hooked), x4),
    "retain_grad": (plain(retained), x4),
    "time steps": (plain(stepped), x4),
    "layer norm": (lambda: nn.LayerNorm(4), x4),
    "group norm": (lambda: nn.GroupNorm(2, 4), points(2, 4)),
    "batch norm, eval": (lambda: nn.BatchNorm1d(4).eval(), points(3, 4)),
    "dropout, eval": (lambda: nn.Dropout(0.5).eval(), x4),
    "lstm": (recurrent(lambda: nn.LSTM(3, 2, batch_first=True)), points(1, 3, 3)),
    "gru": (recurrent(lambda: nn.GRU(2, 2, bidirectional=True)), points(3, 1, 2)),
    "sdpa": (
        plain(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        points(1, 2, 3, 2),
    ),
    "attention": (attending, points(1, 3, 4)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
        points(1, 2, 4),
    ),
    "convolution": (plain(lambda x: F.conv2d(x, torch.ones(2, 1, 2, 2))), points(1, 1, 3, 3)),
    "interpolation": (
        plain(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear") ** 2),
        points(1, 1, 2, 2),
    ),
    "average pool": (plain(lambda x: F.avg_pool2d(x, 3, 1, 1) ** 2), points(1, 1, 3, 3)),
    "max pool": (plain(lambda x: F.max_pool2d(x, 3, 1, 1) ** 2), points(1, 1, 3, 3)),
    "embedding": (embedded, x4),
    "cross entropy": (plain(lambda x: F.cross_entropy(x, torch.tensor([0, 1]))), points(2, 3)),
    "rfft": (plain(lambda x: torch.fft.irfft(torch.fft.rfft(x) ** 2, n=4)), x4),
    "solve": (plain(lambda x: torch.linalg.solve(A + torch.diag(x), x)), x3),
    "inverse": (plain(lambda x: torch.linalg.inv(A + torch.diag(x))), x3),
    "cholesky": (plain(lambda x: torch.linalg.cholesky(A @ A.T + torch.diag(x))), x3),
    "batched cholesky": (
        plain(lambda X: torch.linalg.cholesky(X @ X.mT + torch.eye(2))),
        points(3, 2, 2),
    ),
    "eigh": (plain(lambda x: torch.linalg.eigvalsh(A + A.T + torch.diag(x))), x3),
    "svd": (plain(lambda x: torch.linalg.svdvals(A + torch.diag(x))), x3),
    "qr": (plain(lambda x: torch.linalg.qr(A + torch.diag(x))[1]), x3),
    "determinant": (plain(lambda x: torch.linalg.det(A + torch.diag(x))), x3),
    "matrix exponential": (plain(lambda x: torch.matrix_exp(A / 5 + torch.diag(x))), x3),
    "cdist": (plain(lambda x: torch.cdist(x, x + 1)), points(2, 2)),
    "einsum": (plain(lambda x: torch.einsum("i,jk,k->ij", x, A, x)), x3),
    "cumulative product": (plain(lambda x: x.cumprod(0)), x4),
    "prod with zeros": (plain(lambda x: x.prod(0)), lambda: torch.tensor([0.0, 2.0, 3.0])),
    "relu at 0": (plain(lambda x: F.relu(x) * x), lambda: torch.tensor([0.0, -1.0, 1.0, 2.0])),
    "scatter_add": (
        plain(lambda x: torch.zeros(3).scatter_add(0, torch.tensor([0, 2, 2, 1]), x**2)),
        x4,
    ),
    "index_put": (
        plain(
            lambda x: torch.zeros(5).index_put((torch.tensor([0, 0, 4, 3]),), x**2, accumulate=True)
        ),
        x4,
    ),
    "index_put, overwritten": (
        plain(lambda x: torch.zeros(3).index_put((torch.tensor([0, 1, 2, 2]),), x[[0, 1, 2, 2]])),
        x3,
    ),
    "no graph": (plain(lambda x: torch.ones(3)), x4),
    "the input itself": (plain(lambda x: x), x4),
    "a view of the input": (plain(lambda x: x.view(2, 2).t()), x4),
    "some without a graph": (plain(lambda x: (x * 2, torch.ones(2), x.detach())), x4),
    "one output twice": (plain(lambda x: (lambda y: (y, y))(x * x)), x4),
    "a closed-over output": (with_constant_output, x4),
    "empty output": (plain(lambda x: x[:0]), x4),
    "empty input": (plain(lambda x: x * 2), points(0)),
    "empty input summed": (plain(lambda x: x.sum().expand(3)), points(0)),
    "scalar input": (plain(lambda x: x * x * torch.arange(3.0)), points()),
    "scalar output": (plain(lambda x: (x * x).sum()), x4),
    "scalar to scalar": (plain(torch.sin), points()),
    "expanded": (plain(lambda x: x * x), lambda: torch.rand(1).expand(4)),
    "transposed": (plain(lambda x: (x @ x).sin()), lambda: torch.rand(3, 3).T),
    "every other": (plain(lambda x: x * x.roll(1)), lambda: torch.rand(8)[::2]),
    "shifted": (plain(lambda x: x * x.roll(1)), lambda: torch.rand(8)[3:7]),
    "list": (plain(lambda x: [t * t for t in x.unbind()]), x4),
    "dict": (plain(lambda x: {"b": x * 2, "a": (x[0], x[1:] ** 2)}), x4),
}


@pytest.mark.parametrize(("make", "at"), KINDS.values(), ids=KINDS.keys())
def test_a_kind_of_function(make: Callable[[], Callable[..., Any]], at: Callable[[], Any]) -> None:
    assert_right_everywhere(make(), at())


DTYPES: dict[str, tuple[Callable[[Tensor], Tensor], torch.dtype, float]] = {
    "float32": (lambda x: x.sin() * x.roll(1), torch.float32, 1e-5),
    "bfloat16": (lambda x: x * x.roll(1), torch.bfloat16, 2e-2),
    "float16": (lambda x: x * x.roll(1), torch.float16, 2e-3),
    "down and up": (lambda x: (x.float() * 2).double() * x, torch.float64, 1e-5),
    "through bfloat16": (lambda x: x.bfloat16().double() * x, torch.float64, 1e-8),
    "narrower output": (lambda x: (x * x).float(), torch.float64, 1e-5),
    "wider output": (lambda x: (x * x).double() * x.roll(1), torch.float32, 1e-5),
    "many halves": (lambda x: x.half().repeat(1200).view(-1, 4)[-3:] * 2, torch.float64, 2e-3),
}


@pytest.mark.parametrize(("func", "dtype", "close"), DTYPES.values(), ids=DTYPES.keys())
def test_dtypes(func: Callable[[Tensor], Tensor], dtype: torch.dtype, close: float) -> None:
    assert_right_everywhere(func, (torch.rand(4) + 0.3).to(dtype), close=close)


@pytest.mark.parametrize("argnums", [0, 1, 2, (2, 0), (0, 2), -1, (-1, 0), (0, 1, 2)], ids=str)
def test_argnums(argnums: Any) -> None:
    def func(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return torch.cat([a * b * c.sum(), c * 2])

    args = torch.rand(2), torch.rand(2), torch.rand(3)
    assert_right_everywhere(func, *args, argnums=argnums)
    plan = pb.plan_jacobian(func, *args, argnums=argnums)
    expected = jacrev(func, argnums=argnums)(*args)
    for found in (
        pb.jacobian(func, argnums=argnums)(*args),
        pb.jacobian(func, argnums=argnums, plan=plan, layout=torch.strided)(*args),
    ):
        assert type(found) is type(expected)
        assert_close(found, expected)


def test_a_plan_keeps_its_argnums() -> None:
    def func(a: Tensor, b: Tensor) -> Tensor:
        return a * b

    args = torch.rand(2), torch.rand(2)
    plan = pb.plan_jacobian(func, *args, argnums=(0, 1))
    with pytest.raises(pb.ArgumentError, match="argnums"):
        pb.jacobian(func, argnums=(1, 0), plan=plan)(*args)


def test_pytrees() -> None:
    def func(d: Any, k: Any) -> Any:
        return {"u": (d["a"] * d["b"][0] * k[1],), "v": [d["b"][1].sum() * k[0]]}

    first = {"b": (torch.rand(2), torch.rand(3)), "a": torch.rand(2)}
    k = (2.0, torch.rand(2))
    assert_right_everywhere(func, first, k)
    plan = pb.plan_jacobian(func, first, k)
    expected = jacrev(func)(first, k)
    for found in (
        pb.jacobian(func)(first, k),
        pb.jacobian(func, plan=plan, layout=torch.strided)(first, k),
    ):
        assert pytree.tree_structure(found) == pytree.tree_structure(expected)
        assert_close(pytree.tree_leaves(found), pytree.tree_leaves(expected))
    jac = pb.jacobian(func, layout=CSR)
    for d in (first, {"a": first["a"], "b": first["b"]}):
        assert_right(jac, func, d, k)
        assert_right(jac, func, d, (5.0, torch.rand(2)))


@pytest.mark.parametrize("layout", [torch.strided, CSR])
def test_aux(layout: Any) -> None:
    marker, weight, settings = object(), torch.rand(3), {"n": 1.0}

    def func(x: Tensor) -> Any:
        aux = {
            "text": "hey", "none": None, "number": settings["n"], "same": marker, "shape": x.shape,
            "sum": x.detach().sum(), "closed": weight, "integers": torch.arange(3), "max": x.argmax(),
            "read": float(x.detach()[0]) if settings["n"] > 1 else 0.0,
        }  # fmt: skip
        return x**2 * settings["n"], aux

    jac = pb.jacobian(func, layout=layout, has_aux=True)
    for n, x in ((1.0, torch.rand(4)), (2.0, torch.rand(4)), (2.0, torch.rand(4))):
        settings["n"] = n
        for mode in (True, False):
            with torch.set_grad_enabled(mode):
                J, aux = jac(x)
            assert_close(J.to_dense().detach(), matrix_of(func, x, has_aux=True))
            expected = func(x)[1]
            assert aux.pop("same") is expected.pop("same")
            assert aux["none"] is expected.pop("none")
            aux.pop("none")
            assert aux.pop("text") == expected.pop("text")
            assert tuple(aux.pop("shape")) == tuple(expected.pop("shape"))
            assert_close(aux, expected)


@pytest.mark.parametrize(("make", "at"), KINDS.values(), ids=KINDS.keys())
def test_dense_and_from_a_graph(
    make: Callable[[], Callable[..., Any]], at: Callable[[], Any], request: pytest.FixtureRequest
) -> None:
    func, x = make(), at()
    if func is retained:
        reason = "the vmap engine leaves a batched tensor in the .grad that is retained"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    expected = matrix_of(func, x)
    blocks = [b.detach() for b in pytree.tree_leaves(pb.jacobian(func)(x))]
    if x.numel():
        assert_close(torch.cat([b.reshape(-1, x.numel()) for b in blocks]), expected)
    y = x.clone().requires_grad_()
    outputs = [t for t in pytree.tree_leaves(func(y)) if t.requires_grad]
    if outputs and x.numel():
        found = pb.jacobian_of(outputs, y).to_dense()
        rows = [matrix_of(lambda x, k=k: with_graph(func(x))[k], x) for k in range(len(outputs))]
        assert_close(found, torch.cat(rows))
        assert y.grad is None


def with_graph(tree: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(tree) if t.requires_grad]


def test_a_function_compiled_inside() -> None:
    compiled = torch.compile(lambda x: x.sin() * x.roll(1), backend="aot_eager")

    def func(x: Tensor) -> Tensor:
        return compiled(x) * x

    jac = pb.jacobian(func, layout=CSR)
    for x in (torch.rand(4), torch.rand(4)):
        for grad_mode in (True, False):
            with torch.set_grad_enabled(grad_mode):
                assert_right(jac, func, x)


def test_index_arithmetic_on_a_large_pattern() -> None:
    n = 70_000
    x = torch.rand(n)
    jac = pb.jacobian(lambda x: x * x.roll(1), layout=CSR)
    J = jac(x)
    assert J.values().numel() == 2 * n
    v = torch.rand(n)
    expected = v * x.roll(1) + x * v.roll(1)
    assert_close(J @ v, expected)
