"""Derivatives with respect to tensors that a module holds, by name, against torch.func."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.utils import parametrizations, parametrize

import pullback as pb
from pullback import ArgumentError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

DTYPE = torch.float64


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DTYPE)


class Last(nn.Module):
    """The output of a recurrent layer, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3, bias=False)
        self.decoder = nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class Twice(nn.Module):
    """One layer at two places."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(3, 3)
        self.layers = nn.Sequential(layer, nn.Tanh(), layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2))


def parametrized() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    return net


def frozen() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    return net


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)),
        lambda: rand(4, 3),
    ),
    "convolution": (convolutional, lambda: rand(2, 2, 4, 4)),
    "batch norm, evaluating": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()).eval(),
        lambda: rand(3, 3),
    ),
    "batch norm, training": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()),
        lambda: rand(3, 3),
    ),
    "lstm": (lambda: Last(nn.LSTM(2, 3, batch_first=True)), lambda: rand(2, 4, 2)),
    "gru": (lambda: Last(nn.GRU(2, 3, batch_first=True)), lambda: rand(2, 4, 2)),
    "embedding": (embedding, lambda: torch.tensor([[0, 3], [3, 6]])),
    "attention": (Attention, lambda: rand(2, 3, 4)),
    "tied": (Tied, lambda: rand(2, 3)),
    "one layer twice": (Twice, lambda: rand(2, 3)),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh()),
        lambda: rand(2, 3),
    ),
    "parametrized": (parametrized, lambda: rand(2, 3)),
    "frozen": (frozen, lambda: rand(2, 3)),
}


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, sample = NETWORKS[request.param]
    return make().to(DTYPE), sample()


def truth(module: nn.Module, *args: Any, names: Any = None) -> dict[str, Tensor]:
    """By torch.func, on a copy: it leaves no trace here."""
    module = copy.deepcopy(module)
    held = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    if names is None:
        names = [n for n, p in module.named_parameters() if p.requires_grad]
    chosen = {name: held[name].detach() for name in names}
    others = {n: b for n, b in module.named_buffers() if n not in chosen}

    def output(parameters: dict[str, Tensor]) -> Tensor:
        buffers = {n: b.clone() for n, b in others.items()}  # BatchNorm writes to its own
        result: Tensor = functional_call(module, {**buffers, **parameters}, args)
        return result

    found: dict[str, Tensor] = jacrev(output)(chosen)
    return found


def as_matrix(blocks: dict[str, Tensor], module: nn.Module) -> Tensor:
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return torch.cat([b.reshape(-1, held[n].numel()) for n, b in blocks.items()], dim=1)


def state_of(module: nn.Module) -> tuple[Any, ...]:
    tensors = [*module.parameters(), *module.buffers()]
    return (
        [id(t) for t in tensors],
        [t.detach().clone() for t in tensors],
        [t.requires_grad for t in tensors],
        [None if t.grad is None else t.grad.clone() for t in tensors],
        torch.get_rng_state(),
    )


def same_state(before: tuple[Any, ...], module: nn.Module) -> bool:
    now = state_of(module)
    return (
        before[0] == now[0]
        and before[2] == now[2]
        and all(map(torch.equal, before[1], now[1]))
        and all(
            (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
            for a, b in zip(before[3], now[3], strict=True)
        )
        and torch.equal(before[4], now[4])
    )


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return list(found) == list(wanted) and all(
        torch.allclose(found[name], wanted[name]) for name in wanted
    )


def test_all_parameters_are_those_of_torch_func(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    wanted = truth(module, x)
    jac = pb.jacobian(module, wrt="parameters")
    assert close(jac(x), wanted)
    with torch.no_grad():
        for _ in range(5):
            assert close(jac(x), wanted)


def test_plans_and_operators_have_the_same_columns(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    wanted = as_matrix(truth(module, x), module)
    plan = pb.plan_jacobian(module, x, wrt="parameters")
    assert plan.wrt == tuple(truth(module, x))
    assert tuple(leaf.name for leaf in plan.inputs) == plan.wrt
    jac = pb.jacobian(module, plan=plan, wrt="parameters")
    with torch.no_grad():
        for _ in range(4):
            assert torch.allclose(jac(x).to_dense(), wanted)
    operator = pb.JacobianOperator(module, x, wrt="parameters")
    t, v = rand(operator.shape[1]), rand(operator.shape[0])
    assert torch.allclose(operator.to_dense(), wanted)
    if operator.engine != "none":  # fused attention has no products J t
        assert torch.allclose(operator @ t, wanted @ t)
    assert torch.allclose(v @ operator, v @ wanted)


def test_nothing_is_left_in_the_module(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    first = next(p for p in module.parameters() if p.requires_grad)
    first.grad = torch.full_like(first, 0.5)
    calls = {
        "plan": lambda: pb.plan_jacobian(module, x, wrt="parameters"),
        "operator": lambda: pb.JacobianOperator(module, x, wrt="parameters") @ rand(0),
    }
    before = state_of(module)
    calls["plan"]()
    assert same_state(before, module)
    jac = pb.jacobian(module, wrt="parameters")
    for _ in range(4):
        copied = copy.deepcopy(module)
        copied(x)  # one forward: what a call may do to buffers
        with torch.no_grad():
            jac(x)
        assert [p.grad is None for p in module.parameters()] == [
            p is not first for p in module.parameters()
        ]
        assert bool((first.grad == 0.5).all())
        assert all(map(torch.equal, module.parameters(), copied.parameters()))
        assert all(map(torch.equal, module.buffers(), copied.buffers()))
        assert all(p.is_leaf for p in module.parameters())


def test_the_values_are_those_of_now(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    jac = pb.jacobian(module, wrt="parameters")
    plan = pb.plan_jacobian(module, x, wrt="parameters")
    sparse = pb.jacobian(module, plan=plan, wrt="parameters")
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for step in range(6):
        with torch.no_grad():
            wanted = truth(module, x)
            assert close(jac(x), wanted)
            assert torch.allclose(sparse(x).to_dense(), as_matrix(wanted, module))
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()
        if step == 3:
            other = {
                k: v + 0.1 if v.is_floating_point() else v for k, v in module.state_dict().items()
            }
            module.load_state_dict(other)
        first = module[0] if isinstance(module, nn.Sequential) else module
        if step == 4 and type(first) is nn.Linear:
            trained = first.weight.requires_grad
            first.weight = nn.Parameter(rand(*first.weight.shape), requires_grad=trained)


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.shift


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Linear(3, 4),
        nn.Tanh(),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Shift()),
    ]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(4, 2)).to(DTYPE).eval()


@pytest.mark.parametrize(
    ("wrt", "names"),
    [
        ("4.bias", ["4.bias"]),
        (["4.bias", "0.weight"], ["4.bias", "0.weight"]),
        ("*.weight", ["0.weight", "2.0.weight", "2.1.weight", "4.weight"]),
        ("2.*", ["2.0.weight", "2.0.bias", "2.1.weight", "2.1.bias"]),
        (["4.*", "*.weight"], ["4.weight", "4.bias", "0.weight", "2.0.weight", "2.1.weight"]),
        (["[04].bias"], ["0.bias", "4.bias"]),
        (["2.2.shift", "0.bias"], ["2.2.shift", "0.bias"]),
        (("0.bias", "0.bias"), ["0.bias"]),
    ],
)
def test_names_and_patterns_in_the_order_given(net: nn.Module, wrt: Any, names: list[str]) -> None:
    x = rand(3, 3)
    wanted = truth(net, x, names=names)
    assert list(wanted) == names
    assert close(pb.jacobian(net, wrt=wrt)(x), wanted)
    plan = pb.plan_jacobian(net, x, wrt=wrt)
    assert plan.wrt == tuple(names)
    with torch.no_grad():
        found = pb.jacobian(net, plan=plan, wrt=wrt)(x)
    assert torch.allclose(found.to_dense(), as_matrix(wanted, net))


def test_inputs_are_what_argnums_selects(net: nn.Module) -> None:
    x = rand(3, 3)
    plain = pb.jacobian(net)(x)
    assert torch.equal(pb.jacobian(net, wrt="inputs")(x), plain)
    assert pb.plan_jacobian(net, x, wrt="inputs").wrt == ()
    assert pb.JacobianOperator(net, x, wrt="inputs").shape == (6, 9)


def test_a_frozen_parameter_counts_by_name_alone(net: nn.Sequential) -> None:
    net[0].requires_grad_(False)
    x = rand(3, 3)
    assert "0.weight" not in pb.jacobian(net, wrt="parameters")(x)
    found = pb.jacobian(net, wrt="0.weight")(x)
    assert close(found, truth(net, x, names=["0.weight"]))
    assert not net[0].weight.requires_grad
    assert net[0].weight.grad is None


def test_parameters_are_looked_up_at_every_call(net: nn.Sequential) -> None:
    x = rand(3, 3)
    jac = pb.jacobian(net, wrt="parameters")
    for _ in range(4):
        with torch.no_grad():
            jac(x)
    net[0].requires_grad_(False)
    assert list(jac(x)) == list(truth(net, x))
    net[4] = nn.Linear(4, 1).to(DTYPE)
    assert close(jac(x), truth(net, x))
    net[4].register_parameter("bias", None)
    assert close(jac(x), truth(net, x))


def test_tied_tensors_take_their_columns_once() -> None:
    module, x = Tied().to(DTYPE), rand(2, 3)
    for wrt in (["encoder.weight", "decoder.weight"], "encoder.weight", "*.weight"):
        plan = pb.plan_jacobian(module, x, wrt=wrt)
        assert plan.wrt == ("encoder.weight",)
        assert any("encoder.weight" in n and "decoder.weight" in n for n in plan.notes)
    jac = pb.jacobian(module, wrt="decoder.weight")
    whole = truth(module, x)["encoder.weight"]
    assert torch.allclose(jac(x)["decoder.weight"], whole)
    assert any("encoder.weight" in note for note in jac.notes)


def test_untying_is_seen() -> None:
    module, x = Tied().to(DTYPE), rand(2, 3)
    jac = pb.jacobian(module, wrt="*.weight")
    with torch.no_grad():
        for _ in range(4):
            assert list(jac(x)) == ["encoder.weight"]
        module.decoder.weight = nn.Parameter(rand(3, 3))
        assert close(jac(x), truth(module, x, names=["encoder.weight", "decoder.weight"]))
        module.decoder.weight = module.encoder.weight
        assert close(jac(x), truth(module, x, names=["encoder.weight"]))


def test_a_part_at_two_places_keeps_its_tensors() -> None:
    module, x = Twice().to(DTYPE), rand(2, 3)
    weight = module.layers[0].weight
    pb.jacobian(module, wrt="parameters")(x)
    assert module.layers[0].weight is weight
    assert module.layers[2].weight is weight


def test_dropout_draws_as_one_forward_does() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)).to(DTYPE)
    x = rand(4, 3)
    jac = pb.jacobian(net, wrt="parameters")
    plan = pb.plan_jacobian(net, x, wrt="parameters")
    sparse = pb.jacobian(net, plan=plan, wrt="parameters")
    for seed in range(5):
        torch.manual_seed(seed)
        wanted = jacrev(lambda p: functional_call(net, p, (x,)), chunk_size=None)(
            {n: p.detach() for n, p in net.named_parameters()}
        )
        after = torch.get_rng_state()
        with torch.no_grad():
            torch.manual_seed(seed)
            assert close(jac(x), wanted)
            assert torch.equal(torch.get_rng_state(), after)
            torch.manual_seed(seed)
            assert torch.allclose(sparse(x).to_dense(), as_matrix(wanted, net))


class WithExtras(nn.Module):
    """Several arguments, and aux beside the output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, scale: float, shift: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = torch.tanh(self.layer(x))
        return hidden * scale + shift, {"hidden": hidden}


def test_aux_and_further_arguments() -> None:
    module, x, shift = WithExtras().to(DTYPE), rand(2, 3), rand(2)
    jac = pb.jacobian(module, wrt="parameters", has_aux=True)
    for scale in (2.0, 2.0, 2.0, 2.0, 3.0):
        with torch.no_grad():
            found, aux = jac(x, scale, shift)
            assert torch.equal(aux["hidden"], torch.tanh(module.layer(x)))
        weight, bias = module.layer.weight, module.layer.bias
        wanted = jacrev(
            lambda w, b, s=scale: torch.tanh(nn.functional.linear(x, w, b)) * s, argnums=(0, 1)
        )(weight.detach(), bias.detach())
        assert torch.allclose(found["layer.weight"], wanted[0])
        assert torch.allclose(found["layer.bias"], wanted[1])
    plan = pb.plan_jacobian(module, x, 2.0, shift, wrt="layer.*", has_aux=True)
    pb.verify(module, x, 2.0, shift, plan=plan, has_aux=True)


def test_the_result_has_derivatives(net: nn.Sequential) -> None:
    x = rand(2, 3)
    found = pb.jacobian(net, wrt="4.weight")(x)["4.weight"].square().sum()
    (gradient,) = torch.autograd.grad(found, net[0].weight)
    chosen = net[4].weight.detach()

    def size(first: Tensor) -> Tensor:
        block = jacrev(lambda w: functional_call(net, {"4.weight": w, "0.weight": first}, (x,)))(
            chosen
        )
        return block.square().sum()

    assert torch.allclose(gradient, torch.func.grad(size)(net[0].weight.detach()))


def test_inside_vmap(net: nn.Module) -> None:
    batch = rand(5, 1, 3)
    jac = pb.jacobian(net, wrt="0.weight")
    with torch.no_grad():
        found = torch.func.vmap(jac)(batch)["0.weight"]
        assert torch.allclose(found, torch.stack([jac(x)["0.weight"] for x in batch]))


def test_plans_are_saved_with_their_names(net: nn.Module, tmp_path: Path) -> None:
    x = rand(3, 3)
    plan = pb.plan_jacobian(net, x, wrt=["4.bias", "0.weight"])
    plan.save(tmp_path / "plan")
    read = pb.Plan.load(tmp_path / "plan")
    assert read.wrt == ("4.bias", "0.weight")
    found = pb.jacobian(net, plan=read, wrt=["4.bias", "0.weight"])(x)
    assert torch.allclose(found.to_dense(), as_matrix(truth(net, x, names=read.wrt), net))
    pb.verify(net, x, plan=read)


@pytest.mark.parametrize("wrt", [None, "0.weight", ["0.weight", "4.bias"]])
def test_a_plan_with_other_names_is_refused(net: nn.Module, wrt: Any) -> None:
    plan = pb.plan_jacobian(net, rand(3, 3), wrt=["4.bias", "0.weight"])
    with pytest.raises(ArgumentError, match=r"'4.bias', '0.weight'.*Pass the same wrt"):
        pb.jacobian(net, plan=plan, wrt=wrt)(rand(3, 3))
    plain = pb.plan_jacobian(net, rand(3, 3))
    with pytest.raises(ArgumentError, match=r"the arguments \(no wrt\)"):
        pb.jacobian(net, plan=plain, wrt="0.weight")(rand(3, 3))


@pytest.mark.parametrize("ask", [pb.jacobian, pb.plan_jacobian, pb.JacobianOperator])
@pytest.mark.parametrize(
    ("wrt", "message"),
    [
        ("0.wieght", "Near it: '0.weight'"),
        ("4.layer.weight", "Near it:.*'4.weight'"),
        ("nothing.like.it", "It has '0.weight', "),
        ("*.running_*", "buffers, which count only by their full names: '2.1.running_mean'"),
        ("bn.*", "matches no parameter"),
        ([], "is empty"),
        (3, "it must be 'inputs', 'parameters'"),
        (["0.weight", 1], "it must be 'inputs', 'parameters'"),
        ("2.1.num_batches_tracked", "dtype int64"),
    ],
)
def test_names_that_are_not_there(net: nn.Module, ask: Any, wrt: Any, message: str) -> None:
    x = rand(3, 3)
    name = "JacobianOperator" if ask is pb.JacobianOperator else ask.__name__
    with pytest.raises((ArgumentError), match=message) as refused:
        ask(net, wrt=wrt)(x) if ask is pb.jacobian else ask(net, x, wrt=wrt)
    assert str(refused.value).startswith(f"{name}: ")


def test_what_is_no_module_is_refused(net: nn.Module) -> None:
    for func, remedy in ((lambda x: net(x), "functional_call"), (net.forward, "the module itself")):
        with pytest.raises(ArgumentError, match=remedy):
            pb.jacobian(func, wrt="0.weight")
    with pytest.raises(ArgumentError, match="Leave argnums out"):
        pb.jacobian(net, argnums=1, wrt="0.weight")
    net.requires_grad_(False)
    with pytest.raises(ArgumentError, match="no parameter of the module requires grad"):
        pb.jacobian(net, wrt="parameters")(rand(3, 3))
    with pytest.raises(ArgumentError, match="was never called"):
        pb.jacobian(nn.LazyLinear(3), wrt="weight")(rand(3, 3))


class Listed(nn.Module):
    """Reads its weight from a plain list, where no other tensor can take its place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(rand(3))
        self.kept = [self.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x + self.kept[0] ** 2


@pytest.mark.parametrize("trained", [True, False])
def test_a_way_past_the_name_is_refused(trained: bool) -> None:
    module, x = Listed(), rand(3)
    module.requires_grad_(trained)
    for ask in (
        lambda: pb.jacobian(module, wrt="weight")(x),
        lambda: pb.jacobian(module, wrt="weight", layout=torch.sparse_csr)(x),
        lambda: pb.plan_jacobian(module, x, wrt="weight"),
        lambda: pb.JacobianOperator(module, x, wrt="weight"),
    ):
        with pytest.raises(UnsupportedError, match="`weight` on a way past the name"):
            ask()
    assert module.weight.requires_grad is trained
    module.kept = [module.weight.detach()]
    assert torch.equal(pb.jacobian(module, wrt="weight")(x)["weight"], torch.diag(x))


def test_an_argument_made_with_the_same_parameter_is_no_way_past() -> None:
    layer = nn.Linear(3, 3).to(DTYPE)
    hidden = layer(rand(2, 3))
    found = pb.jacobian(layer, wrt="weight")(hidden)["weight"]
    assert torch.allclose(found, truth(layer, hidden.detach(), names=["weight"])["weight"])


def test_a_plan_pays_for_an_embedding() -> None:
    """A row of the table for every token: no more products for more tokens."""
    table = nn.Embedding(1000, 2).to(DTYPE)
    tokens = torch.randint(0, 1000, (40,))
    plan = pb.plan_jacobian(table, tokens, wrt="weight")
    assert plan.pattern.shape == (80, 2000)
    assert plan.pattern.nnz == 80
    assert plan.num_products <= 1


def test_one_linear_layer_is_a_kronecker_product() -> None:
    layer, x = nn.Linear(3, 4).to(DTYPE), rand(5, 3)
    plan = pb.plan_jacobian(layer, x, wrt="weight")
    assert plan.pattern.nnz == 5 * 4 * 3
    with torch.no_grad():
        found = pb.jacobian(layer, plan=plan, wrt="weight")(x).to_dense()
    wanted = torch.einsum("bi,oq->boqi", x, torch.eye(4, dtype=DTYPE)).reshape(20, 12)
    assert torch.equal(found, wanted)


class Loss(nn.Module):
    """One number of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.layers(x) - y).square().sum()


@pytest.mark.parametrize("wrt", ["parameters", ["layers.2.bias", "layers.0.weight"]])
def test_hessians(wrt: Any) -> None:
    torch.manual_seed(0)
    module, x, y = Loss().to(DTYPE), rand(5, 3), rand(5, 2)
    names = [n for n, _ in module.named_parameters()] if wrt == "parameters" else wrt
    held = dict(module.named_parameters())
    chosen = {name: held[name].detach() for name in names}
    plan = pb.plan_hessian(module, x, y, wrt=wrt)
    assert plan.wrt == tuple(names)
    dense, sparse = pb.hessian(module, wrt=wrt), pb.hessian(module, plan=plan, wrt=wrt)
    first = next(module.parameters())
    first.grad = torch.full_like(first, 0.5)
    for _ in range(4):
        wanted = jacrev(jacrev(lambda p: functional_call(module, p, (x, y))))(chosen)
        whole = torch.cat([as_matrix(wanted[name], module) for name in names])
        with torch.no_grad():
            found = dense(x, y)
            assert torch.allclose(sparse(x, y).to_dense(), whole)
        assert all(close(found[name], wanted[name]) for name in names)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.1)
    assert bool((first.grad == 0.5).all())
    with pytest.raises(ArgumentError, match="Pass the same wrt"):
        pb.hessian(module, plan=plan)(x, y)


def test_hessians_of_weighed_outputs() -> None:
    module, x, v = nn.Sequential(nn.Linear(2, 3), nn.Tanh()).to(DTYPE), rand(4, 2), rand(4, 3)
    found = pb.hessian(module, wrt="0.weight")(x, cotangents=v)["0.weight"]["0.weight"]
    bias = module[0].bias.detach()
    wanted = jacrev(jacrev(lambda w: (torch.tanh(x @ w.T + bias) * v).sum()))(
        module[0].weight.detach()
    )
    assert torch.allclose(found, wanted)


def test_a_nearly_full_plan_is_taken_for_full() -> None:
    """A few zeros of the last layer are not worth a place for every other entry."""
    net = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 2)).to(DTYPE)
    x = rand(4, 20)
    plan = pb.plan_jacobian(net, x, wrt="parameters")
    assert plan.mode == "dense"
    assert plan.pattern.is_full
    assert plan.num_products == 8
    assert "stored as zeros" in plan.reason
    pb.verify(net, x, plan=plan)
    with torch.no_grad():
        found = pb.jacobian(net, plan=plan, wrt="parameters")(x)
    assert torch.allclose(found.to_dense(), as_matrix(truth(net, x), net))
    exact = pb.plan_jacobian(net, x, wrt="parameters", lift=False)
    assert not exact.pattern.is_full
    assert exact.pattern.nnz == 8 * (20 * 30 + 30 + 30 + 1)
