"""What a call costs that finds everything as an earlier one left it: no check is made twice."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pullback as pb
from pullback import _jacobian, _settings, _torch
from pullback._jacobian import Jacobian
from pullback.sparse import session
from pullback.sparse.state import owner

from .test_jacobian_costs import counting

X = torch.linspace(0.1, 1, 12, dtype=torch.float64)


def squared(x: Tensor) -> Tensor:
    return (x + 1).pow(2).t()


def dense(func: Callable[..., Any], *args: Any) -> Tensor:
    """The matrix by torch.func alone: a row per output element."""
    found: Tensor = torch.func.jacrev(func)(*args)
    return found.reshape(-1, args[0].numel())


def is_ready(monkeypatch: pytest.MonkeyPatch, jac: Jacobian, *args: Any) -> bool:
    """Whether ``jac(*args)`` goes past the long way, where it is right as well."""
    with counting(monkeypatch, session.Session, "evaluate") as long_way:
        found = jac(*args).to_dense()
    torch.testing.assert_close(found.detach(), dense(jac._func, *args).detach(), check_stride=False)
    return not long_way


def made_ready(func: Callable[..., Any], *args: Any) -> Jacobian:
    jac = pb.jacobian(func, layout=torch.sparse_csr)
    jac(*args)
    assert jac.engine == "replay", jac.notes
    return jac


def test_a_ready_call_flattens_and_inspects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 5)
    jac = made_ready(squared, x)
    with (
        counting(monkeypatch, pytree, "tree_flatten_with_path") as flattened,
        counting(monkeypatch, inspect, "signature") as signatures,
        counting(monkeypatch, _jacobian, "arguments_for") as split,
        counting(monkeypatch, session.Session, "evaluate") as long_way,
        counting(monkeypatch, owner, "Snapshot") as walks,
    ):
        jac(2 * x)
        assert [*flattened, *signatures, *split, *long_way, *walks] == []
        jac(x.double())
        assert all((flattened, split, long_way, walks))


def test_a_ready_call_is_right_and_says_what_the_long_way_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jac = made_ready(squared, torch.rand(4, 5))
    said = (jac.plan, jac.engine, jac.notes, repr(jac))
    assert is_ready(monkeypatch, jac, torch.rand(4, 5))
    assert (jac.plan, jac.engine, jac.notes, repr(jac)) == said


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr, torch.sparse_coo, "scipy"])
def test_every_layout_has_ready_calls(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 5)
    jac = pb.jacobian(squared, plan=pb.plan_jacobian(squared, x), layout=layout)
    jac(x)
    with counting(monkeypatch, session.Session, "evaluate") as long_way:
        found = jac(2 * x)
        assert not long_way
        out = jac(x)
        assert jac(2 * x, out=out) is out
        assert not long_way
    for matrix in (found, out):
        plain = matrix.toarray() if layout == "scipy" else matrix.to_dense()
        torch.testing.assert_close(
            torch.as_tensor(plain).reshape(20, 20), dense(squared, 2 * x), check_stride=False
        )


def test_a_few_kinds_of_calls_are_ready_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [X, X[:5], X.float()]
    jac = made_ready(torch.sin, X)
    for x in kinds:
        jac(x)
    assert all(is_ready(monkeypatch, jac, x) for x in kinds * 2)


def test_arguments_of_many_kinds_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scale:
        by = 2.0

    def func(x: Tensor, rest: dict[str, Any], scale: Scale) -> Tensor:
        a, (b, exponent) = rest["a"], rest["b"]
        found: Tensor = (x * a + b) ** exponent * scale.by
        return found

    scale = Scale()
    rest = {"a": X.flip(0), "b": [X.cos(), 2]}
    jac = made_ready(func, X, rest, scale)
    assert is_ready(monkeypatch, jac, X, rest, scale)
    assert is_ready(monkeypatch, jac, 2 * X, {"a": X.sin(), "b": [X.clone(), 2]}, scale)
    others = [
        ({"a": X, "b": [X, 3]}, scale),
        ({"a": X, "b": [X, 2.0]}, scale),
        ({"b": [X, 2], "a": X}, scale),
        ({"a": X, "b": (X, 2)}, scale),
        ({"a": X[:1], "b": [X, 2]}, scale),
        ({"a": X, "b": [X.float(), 2]}, scale),
        ({"a": X, "b": [X, 2]}, Scale()),
    ]
    for given, holder in others:
        assert not is_ready(monkeypatch, jac, X, given, holder)
    scale.by = 3.0
    assert not is_ready(monkeypatch, jac, X, rest, scale)


class Pair(NamedTuple):
    left: Tensor
    right: Any


class Other(NamedTuple):
    left: Tensor
    right: Any


def test_named_tuples_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    def func(x: Tensor, pair: Any) -> Tensor:
        found: Tensor = x * pair.left**pair.right
        return found

    jac = made_ready(func, X, Pair(X.cos(), 2))
    assert is_ready(monkeypatch, jac, 2 * X, Pair(X.sin(), 2))
    assert not is_ready(monkeypatch, jac, X, Pair(X.sin(), 3))
    assert not is_ready(monkeypatch, jac, X, Other(X.sin(), 2))


def test_aux_is_that_of_the_ready_call(monkeypatch: pytest.MonkeyPatch) -> None:
    jac = pb.jacobian(
        lambda x: (x.sin(), {"twice": 2 * x, "name": "n"}), layout=torch.sparse_csr, has_aux=True
    )
    jac(X)
    for k in range(1, 6):
        with counting(monkeypatch, session.Session, "evaluate") as long_way:
            found, aux = jac(X + k)
        assert not long_way
        torch.testing.assert_close(found.to_dense(), torch.diag((X + k).cos()))
        assert torch.equal(aux["twice"], 2 * (X + k))
        assert aux["name"] == "n"


def test_one_tensor_twice_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    jac = made_ready(lambda x, y: x * y, X, X.clone())
    assert is_ready(monkeypatch, jac, X, X.clone())
    assert not is_ready(monkeypatch, jac, X, X)


@pytest.mark.parametrize("mode", [
    torch.no_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    torch.inference_mode, lambda: torch.device("cpu"), nullcontext,
], ids=["no_grad", "autocast", "inference", "device", "none"])  # fmt: skip
def test_another_mode_is_another_call(
    mode: Callable[[], AbstractContextManager[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    A = torch.rand(3, 4)
    jac = made_ready(lambda x: (A @ x).sin(), torch.rand(4))
    x = torch.rand(4)
    with counting(monkeypatch, session.Session, "evaluate") as long_way:
        with mode():
            found = jac(x).to_dense()
        assert bool(long_way) is (mode is not nullcontext)
    with mode() if mode is not torch.inference_mode else nullcontext():
        expected = dense(jac._func, x)
    torch.testing.assert_close(found.detach(), expected.detach(), check_stride=False)
    assert is_ready(monkeypatch, jac, x)


def test_settings_of_torch_that_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    jac = made_ready(lambda x: x * torch.ones(12), X)
    assert is_ready(monkeypatch, jac, X)
    torch.set_default_dtype(torch.float64)
    try:
        assert not is_ready(monkeypatch, jac, X)
        assert is_ready(monkeypatch, jac, X)
    finally:
        torch.set_default_dtype(torch.float32)
    assert is_ready(monkeypatch, jac, X)


@pytest.mark.parametrize("change", [
    lambda x: x.float(), lambda x: x[:5], lambda x: torch.stack([x, x])[:, ::2].reshape(-1)[:12],
    lambda x: x.repeat_interleave(2)[::2], lambda x: nn.Parameter(x),
    lambda x: x.clone().requires_grad_(), lambda x: torch._neg_view(x),
    lambda x: x.reshape(3, 4).t(),
])  # fmt: skip
def test_another_form_is_another_call(
    change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    jac = made_ready(lambda x: x.sin() * 2, X)
    other = change(X)
    same = (other.dtype, other.shape, other.stride()) == (X.dtype, X.shape, X.stride())
    same &= type(other) is Tensor and not other.requires_grad and not other.is_neg()
    assert is_ready(monkeypatch, jac, other) is same


def test_a_conjugate_is_another_call(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.complex(X, X.flip(0))
    jac = pb.jacobian(lambda z: z * z, layout=torch.sparse_csr, holomorphic=True)
    for given, ready in ((z, False), (2 * z, True), (z.conj(), False), (z, True)):
        with counting(monkeypatch, session.Session, "evaluate") as long_way:
            found = jac(given).to_dense()
        torch.testing.assert_close(found, torch.diag(2 * given))
        assert bool(long_way) is not ready


@pytest.mark.parametrize("trust", [False, True])
def test_the_content_of_an_index_is_read(trust: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    index = torch.tensor([2, 0, 1, 1])
    mask = torch.tensor([True, False, True, True])
    jac = pb.jacobian(
        lambda x, i: torch.where(mask, x[i], x[i] ** 2), layout=torch.sparse_csr,
        trust_indices=trust,
    )  # fmt: skip
    jac(X, index)
    assert is_ready(monkeypatch, jac, X, index)
    assert is_ready(monkeypatch, jac, X, index.clone())
    assert not is_ready(monkeypatch, jac, X, index.flip(0))
    index[0] = 5
    assert not is_ready(monkeypatch, jac, X, index)
    assert is_ready(monkeypatch, jac, X, index)
    mask[1] = True
    is_ready(monkeypatch, jac, X, index)
    if not trust:
        index.data[0] = 7
        assert not is_ready(monkeypatch, jac, X, index)


def test_a_cell_that_is_bound_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    step, offset, table = 0.5, X.clone(), {"k": 2}

    def func(x: Tensor) -> Tensor:
        return (x - offset) ** 2 * step * table["k"]

    jac = made_ready(func, X)
    assert is_ready(monkeypatch, jac, 2 * X)
    offset.mul_(3)
    assert is_ready(monkeypatch, jac, 2 * X)
    step = 0.25
    assert not is_ready(monkeypatch, jac, 2 * X)
    offset = X.sin()
    assert not is_ready(monkeypatch, jac, 2 * X)
    table["k"] = 3
    assert not is_ready(monkeypatch, jac, 2 * X)
    assert is_ready(monkeypatch, jac, 2 * X)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 6, dtype=torch.float64)
        self.second = nn.Linear(6, 6, dtype=torch.float64)
        self.drop = nn.Dropout(0.5)
        self.scale = 2.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).tanh()) * self.scale
        return y if self.training else y.sin()


def no_change(net: Network) -> None: ...


def share(net: Network) -> None:
    net.second.bias = net.first.bias


def share_memory(net: Network) -> None:
    net.second.bias.data = net.first.bias.data


def new_weight(net: Network) -> None:
    net.first.weight = nn.Parameter(torch.rand(6, 12, dtype=torch.float64))


def hook(net: Network) -> None:
    net.first.register_forward_hook(lambda module, args, out: out * 2)


def patched(net: Network) -> None:
    net.forward = lambda x: x[:6] ** 2  # type: ignore[method-assign]


@pytest.mark.parametrize(("change", "ready"), [
    (no_change, True),
    (lambda net: net.first.bias.data.mul_(2), True),
    (lambda net: net.first.weight.data.mul_(2), False),  # the plan lifted it
    (lambda net: net.eval(), False),
    (lambda net: setattr(net, "scale", 3.0), False),
    (lambda net: setattr(net.second, "bias", None), False),
    (lambda net: net.__dict__.update(scale=5.0), False),
    (lambda net: net.first.weight.requires_grad_(True), False),
    (new_weight, False), (share, False), (share_memory, False), (hook, False), (patched, False),
])  # fmt: skip
def test_what_a_module_holds(
    change: Callable[[Network], None], ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Network()
    net.requires_grad_(False)
    jac = made_ready(lambda x: net(x), X)
    assert is_ready(monkeypatch, jac, X)
    change(net)
    assert is_ready(monkeypatch, jac, X) is ready


def test_a_class_that_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        by = 0.5

        def __call__(self, x: Tensor) -> Tensor:
            return x.sin() * self.by

    jac = made_ready(Half(), X)
    assert is_ready(monkeypatch, jac, X)
    Half.by = 0.25
    assert not is_ready(monkeypatch, jac, X)


def test_a_transform_around_the_call_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    func = lambda x: x**3  # noqa: E731
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, X), layout=torch.strided)
    jac(X)
    with counting(monkeypatch, session.Session, "evaluate") as long_way:
        found = torch.func.grad(lambda x: jac(x).sum())(X)
        assert long_way
    torch.testing.assert_close(found, 6 * X)
    with counting(monkeypatch, session.Session, "evaluate") as long_way:
        rows = torch.func.vmap(lambda x: jac(x).sum(0))(torch.stack([X, 2 * X]))
        assert long_way
    torch.testing.assert_close(rows, 3 * torch.stack([X, 2 * X]) ** 2)
    _torch.load_forward_mode()
    with torch.autograd.forward_ad.dual_level():
        assert not is_ready(monkeypatch, jac, X)
    x = X.clone().requires_grad_()
    (again,) = torch.autograd.grad(jac(x).to_dense().sum(), x)
    torch.testing.assert_close(again, 6 * X)
    assert is_ready(monkeypatch, jac, X)


def test_refresh_forgets_ready_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    jac = made_ready(squared, torch.rand(4, 5))
    jac.refresh()
    assert not is_ready(monkeypatch, jac, torch.rand(4, 5))


def test_a_ready_call_keeps_no_tensor_alive() -> None:
    jac = made_ready(lambda x, y: x * y, X, X.clone())
    x, y = X.clone(), X.clone()
    jac(x, y)
    jac.refresh()
    jac(X, X.clone())
    jac(x, y)
    seen = [weakref.ref(x), weakref.ref(y)]
    del x, y
    assert [ref() for ref in seen] == [None, None]


def test_without_quick_checks_every_call_goes_the_long_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_settings, "_guards", None)
    monkeypatch.setattr(_settings, "dict_version", None)
    jac = made_ready(squared, torch.rand(4, 5))
    assert not is_ready(monkeypatch, jac, torch.rand(4, 5))
