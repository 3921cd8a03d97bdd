"""Jacobians put together from outer products, a sample's products for all samples at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pullback as pb
from pullback.sparse import blockwise, factored

from ..test_gram import MORE
from ..test_named import NETWORKS, as_matrix, close, truth

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_FROM", 0)


@pytest.fixture(params=[*NETWORKS, *MORE])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, sample = {**NETWORKS, **MORE}[request.param]
    module, x = make().double(), sample()
    module(x)
    return module, x


def test_the_blocks_are_those_of_torch_func(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    jac = pb.jacobian(module, wrt="parameters")
    sparse = pb.jacobian(module, wrt="parameters", layout=torch.sparse_csr)
    with torch.no_grad():
        for step in range(5):
            moved = x if not x.is_floating_point() else x + step
            wanted = truth(module, moved)
            assert close(jac(moved), wanted)
            assert torch.allclose(sparse(moved).to_dense(), as_matrix(wanted, module))
            for parameter in module.parameters():
                parameter.mul_(1.1)


def of_a_session(module: nn.Module, x: Tensor) -> blockwise.Blockwise | None:
    jac = pb.jacobian(module, wrt="parameters")
    with torch.no_grad():
        for _ in range(4):
            jac(x)
    (session,) = jac._sessions.values()
    return session._blocks


@pytest.mark.parametrize("name", ["mlp", "convolution", "embedding", "sequence", "images", "norms"])
def test_they_are_used_where_samples_are_apart(name: str) -> None:
    torch.manual_seed(0)
    make, sample = {**NETWORKS, **MORE}[name]
    module, x = make().double(), sample()
    module(x)
    assert of_a_session(module, x) is not None


def test_they_are_left_where_samples_are_mixed() -> None:
    make, sample = NETWORKS["batch norm, training"]
    assert of_a_session(make().double(), sample()) is None


def test_outputs_out_of_order() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out = self.layers(x)
            return {"turned": out.mT.flip(1), "whole": out.square()}

    module, x = Turned().double(), torch.randn(5, 3, dtype=torch.float64)
    jac = pb.jacobian(module, wrt="parameters")
    with torch.no_grad():
        for _ in range(4):
            found = jac(x)
        out = pb.jacobian(module.layers, wrt="parameters")(x)
    assert of_a_session(module, x) is not None
    for name, block in out.items():
        value = module.layers(x).detach()
        form = (*value.shape, *[1] * (block.dim() - 2))
        assert torch.allclose(found["turned"][f"layers.{name}"], block.transpose(0, 1).flip(1))
        assert torch.allclose(found["whole"][f"layers.{name}"], 2 * value.reshape(form) * block)


def test_wrong_blocks_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = factored.Factored.blocks

    def spoiled(*args: object, **options: object) -> list[factored.Block]:
        blocks = made(*args, **options)  # type: ignore[arg-type]
        blocks[0].d[0, 0] *= 1.01
        return blocks

    monkeypatch.setattr(factored.Factored, "blocks", spoiled)
    make, sample = NETWORKS["mlp"]
    module, x = make().double(), sample()
    assert of_a_session(module, x) is None
    with torch.no_grad():
        assert close(pb.jacobian(module, wrt="parameters")(x), truth(module, x))


def test_chunks() -> None:
    make, sample = NETWORKS["convolution"]
    module, x = make().double(), sample()
    jac = pb.jacobian(module, wrt="parameters", chunk_size=1)
    with torch.no_grad():
        for _ in range(4):
            assert close(jac(x), truth(module, x))
