"""Gram matrices of Jacobians, against the matrices themselves and the usual recipe for a NTK."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

import pullback as pb
from pullback import ArgumentError, _gram
from pullback.sparse import factored

from .test_named import NETWORKS, rand

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.fixture(params=[0, 2**18], ids=["by structure", "as it is"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(_gram, "_SMALL", request.param)
    size: int = request.param
    return size


class Convolved(nn.Module):
    """Convolutions of one dimension, norms of several kinds, and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, padding=1)
        self.batch = nn.BatchNorm1d(4)
        self.second = nn.Conv1d(4, 4, 3, stride=2, dilation=2)
        self.layer = nn.LayerNorm(4)
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.relu(self.batch(self.first(x)))))
        hidden = self.layer(hidden.mT)
        return self.last(torch.tanh(self.last(hidden))).sum(1)


MORE: dict[str, tuple[Any, Any]] = {
    "sequence": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)),
        lambda: rand(3, 4, 3),
    ),
    "norms": (lambda: Convolved().eval(), lambda: rand(3, 2, 9)),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, (2, 3), stride=(2, 1)), nn.Flatten(), nn.LazyLinear(3),
        ).eval(),
        lambda: rand(3, 2, 5, 6),
    ),
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.Flatten()),
        lambda: rand(2, 2, 4, 4),
    ),
    "padded table": (
        lambda: nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Flatten(), nn.Linear(9, 2)),
        lambda: torch.tensor([[0, 1, 0], [2, 2, 4], [1, 1, 3]]),
    ),
}  # fmt: skip


@pytest.fixture(params=[*NETWORKS, *MORE])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, sample = {**NETWORKS, **MORE}[request.param]
    module, x = make().double(), sample()
    module(x)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    return module, x


def test_it_is_the_product_of_the_rows(case: tuple[nn.Module, Tensor], small: int) -> None:
    module, x = case
    operator = pb.JacobianOperator(module, x, wrt="parameters")
    with torch.no_grad():
        dense = operator.to_dense()
    found = operator.gram()
    assert torch.allclose(found, dense @ dense.T)
    assert torch.equal(found, found.T)
    assert not found.requires_grad


def test_two_batches(case: tuple[nn.Module, Tensor], small: int) -> None:
    module, x = case
    other = x.roll(1, 0)[:-1] if len(x) > 2 or module.training is False else x.roll(1, 0)
    one = pb.JacobianOperator(module, x, wrt="parameters")
    two = pb.JacobianOperator(module, other, wrt="parameters")
    with torch.no_grad():
        wanted = one.to_dense() @ two.to_dense().T
    assert torch.allclose(one.gram(two), wanted)


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("mlp", 2),
        ("embedding", 2),
        ("convolution", 3),
        ("sequence", 2),
        ("images", 3),
        ("norms", 4),
    ],
)
def test_samples_are_told_apart(name: str, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many products as one sample has outputs, whatever the batch."""
    monkeypatch.setattr(_gram, "_SMALL", 0)
    torch.manual_seed(0)
    make, sample = {**NETWORKS, **MORE}[name]
    module, x = make().double(), sample()
    module(x)
    side = pb.JacobianOperator(module, x, wrt="parameters")._side
    assert side.samples is not None
    assert side.samples.shape[1] == products


def test_training_batch_norm_mixes_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gram, "_SMALL", 0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    x = rand(6, 3)
    operator = pb.JacobianOperator(module, x, wrt="parameters")
    assert operator._side.blocks is None
    with torch.no_grad():
        dense = operator.to_dense()
    assert torch.allclose(operator.gram(), dense @ dense.T)


def test_a_wrong_structure_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random product that every structure is checked by."""
    monkeypatch.setattr(_gram, "_SMALL", 0)
    module, x = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double(), rand(4, 3)
    made = factored.Factored.blocks

    def spoiled(*args: Any, **options: Any) -> list[factored.Block]:
        blocks = made(*args, **options)
        blocks[0].d[0, 0] *= 1.01
        return blocks

    monkeypatch.setattr(factored.Factored, "blocks", spoiled)
    operator = pb.JacobianOperator(module, x, wrt="parameters")
    assert operator._side.blocks is None
    with torch.no_grad():
        dense = operator.to_dense()
    assert torch.allclose(operator.gram(), dense @ dense.T)


def test_it_is_the_neural_tangent_kernel() -> None:
    net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    one, two = rand(7, 6), rand(5, 6)
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def output(p: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = functional_call(net, p, (x,))
        return result

    rows = [vmap(jacrev(output), (None, 0))(parameters, x) for x in (one, two)]
    wanted = sum(
        torch.einsum("nof,mpf->nomp", rows[0][k].flatten(2), rows[1][k].flatten(2))
        for k in parameters
    )
    found = pb.JacobianOperator(net, one, wrt="parameters").gram(
        pb.JacobianOperator(net, two, wrt="parameters")
    )
    assert isinstance(wanted, Tensor)
    assert torch.allclose(found, wanted.reshape(21, 15))


def test_memory_bounds_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few bytes there are at once."""
    module, x = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double(), rand(4, 6, 3)
    operator = pb.JacobianOperator(module, x, wrt="parameters")
    with torch.no_grad():
        dense = operator.to_dense()
    for size in (0, 2**18):
        monkeypatch.setattr(_gram, "_SMALL", size)
        for budget in (1, 1000, 10000):
            monkeypatch.setattr("pullback._engines.BYTES_AT_ONCE", budget)
            monkeypatch.setattr(_gram, "BYTES_AT_ONCE", budget)
            again = pb.JacobianOperator(module, x, wrt="parameters")
            assert torch.allclose(again.gram(), dense @ dense.T)
            assert torch.equal(again.gram(), again.gram().T)


def test_of_any_function_and_of_inputs() -> None:
    operator = pb.JacobianOperator(lambda x: x[1:] * x[:-1], rand(6))
    with torch.no_grad():
        dense = operator.to_dense()
    assert torch.allclose(operator.gram(), dense @ dense.T)
    empty = pb.JacobianOperator(lambda x: x[:0], rand(3))
    assert empty.gram().shape == (0, 0)
    constant = pb.JacobianOperator(lambda x: (x * 2, torch.ones(2, dtype=x.dtype)), rand(3))
    assert torch.allclose(constant.gram(), torch.diag(torch.tensor([4.0, 4, 4, 0, 0]).double()))


def test_grad_is_not_touched(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    first = next(p for p in module.parameters() if p.requires_grad)
    first.grad = torch.full_like(first, 0.5)
    pb.JacobianOperator(module, x, wrt="parameters").gram()
    assert bool((first.grad == 0.5).all())
    assert all(p.grad is None for p in module.parameters() if p is not first)


def test_with_a_graph_it_is_differentiable() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = rand(2, 2)
    found = pb.JacobianOperator(net, x, wrt="2.weight").gram(create_graph=True)
    (gradient,) = torch.autograd.grad(found.sum(), net[0].weight)
    hidden = torch.tanh(net[0](x))
    (wanted,) = torch.autograd.grad((hidden @ hidden.T).sum(), net[0].weight)
    assert torch.allclose(gradient, wanted)


def test_other_columns_are_refused() -> None:
    net, x = nn.Linear(2, 3).double(), rand(4, 2)
    operator = pb.JacobianOperator(net, x, wrt="weight")
    with pytest.raises(ArgumentError, match="with respect to the same tensors"):
        operator.gram(pb.JacobianOperator(net, x, wrt="parameters"))
    with pytest.raises(ArgumentError, match="`other` is a Tensor"):
        operator.gram(x)  # type: ignore[arg-type]
