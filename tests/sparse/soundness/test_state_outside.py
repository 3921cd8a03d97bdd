"""Rule 1: what a function reads besides its arguments is read again at every call."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pullback as pb

from .reference import CSR, assert_right, matrix_of, whole

y_old: Any = torch.ones(4, dtype=torch.float64)
dt: Any = 0.1


def at_every_change(
    func: Callable[..., Any], changes: list[Callable[[], object]], *args: Any
) -> None:
    """One ``jac`` per way of calling it; each is right after each change."""
    plan = pb.plan_jacobian(func, *args)
    own, given = pb.jacobian(func, layout=CSR), pb.jacobian(func, plan=plan)
    with torch.no_grad():
        off = pb.jacobian(func, plan=plan)
    for change in [lambda: None, *changes]:
        change()
        for jac in (own, given):
            assert_right(jac, func, *args)
        with torch.no_grad():
            assert_right(off, func, *args)


def test_a_parameter_is_replaced() -> None:
    layer = nn.Linear(4, 4)

    def replace() -> None:
        layer.weight = nn.Parameter(torch.randn(4, 4))

    at_every_change(lambda x: layer(x).sin(), [replace, replace], torch.rand(4))


def test_a_parameter_is_updated_in_place() -> None:
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)

    def step() -> None:
        layer(torch.rand(2, 4)).sum().backward()
        optimizer.step()

    at_every_change(
        lambda x: layer(x).sin(), [step, lambda: layer.weight.data.zero_()], torch.rand(4)
    )


def test_a_number_in_the_closure() -> None:
    step = 0.1

    def func(x: Tensor) -> Tensor:
        return x + step * x**2

    def change() -> None:
        nonlocal step
        step = 0.7

    at_every_change(func, [change], torch.rand(4))


def test_globals() -> None:
    def func(x: Tensor) -> Tensor:
        return x - y_old - dt * x**2 * y_old

    def rebind() -> None:
        globals()["y_old"] = torch.rand(4, dtype=torch.float64)

    def number() -> None:
        globals()["dt"] = globals()["dt"] * 3

    at_every_change(func, [rebind, number, rebind, lambda: y_old.mul_(2)], torch.rand(4))


def test_an_attribute_an_entry_and_a_partial() -> None:
    config = types.SimpleNamespace(k=2.0)
    table = {"w": torch.rand(4), "n": [1.0, 2.0]}

    def func(scale: Tensor, x: Tensor) -> Tensor:
        return scale * x**2 * config.k * table["w"] * table["n"][1]

    scale = torch.rand(4)
    changes: list[Callable[[], object]] = [
        lambda: setattr(config, "k", 5.0),
        lambda: table.update(w=torch.rand(4)),
        lambda: table["n"].__setitem__(1, 7.0),
        lambda: scale.mul_(3),
    ]
    at_every_change(functools.partial(func, scale), changes, torch.rand(4))


def test_a_numpy_array() -> None:
    weights = np.ones(4)
    at_every_change(
        lambda x: x**2 * torch.from_numpy(weights),
        [lambda: weights.__setitem__(1, 5.0)],
        torch.rand(4),
    )


def test_bound_methods_callable_objects_and_properties() -> None:
    class Model:
        base = 1.0

        def __init__(self) -> None:
            self.own = 2.0

        @property
        def rate(self) -> float:
            return self.base * self.own

        def __call__(self, x: Tensor) -> Tensor:
            return x**2 * self.rate

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    for make in (lambda model: model, lambda model: model.__call__):
        model = Model()
        changes: list[Callable[[], object]] = [
            lambda model=model: setattr(model, "own", 3.0),
            lambda: setattr(Model, "base", 4.0),
            lambda model=model: setattr(model, "base", 5.0),
        ]
        at_every_change(make(model), changes, torch.rand(4))


def test_objects_that_claim_to_be_equal() -> None:
    class Same:
        def __init__(self, k: float) -> None:
            self.k = k

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    holder = [Same(2.0)]
    at_every_change(
        lambda x: x**2 * holder[0].k, [lambda: holder.__setitem__(0, Same(3.0))], torch.rand(4)
    )


def test_training_mode() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2))
    at_every_change(net, [net.eval, net.train, net.eval], torch.rand(3, 4))


def test_tied_weights_are_untied() -> None:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    two.weight = one.weight

    def untie() -> None:
        two.weight = nn.Parameter(torch.randn(4, 4))

    at_every_change(
        lambda x: two(one(x).tanh()), [lambda: one.weight.data.mul_(2), untie], torch.rand(4)
    )


def test_a_forward_hook_is_added_and_removed() -> None:
    layer = nn.Linear(4, 4)
    handles: list[Any] = []

    def add() -> None:
        handles.append(layer.register_forward_hook(lambda module, args, out: out * 3))

    at_every_change(lambda x: layer(x).sin(), [add, lambda: handles[0].remove()], torch.rand(4))


@pytest.mark.parametrize("kind", ["spectral", "weight", "orthogonal"])
def test_parametrizations(kind: str) -> None:
    make = getattr(
        nn.utils.parametrizations, {"orthogonal": "orthogonal"}.get(kind, f"{kind}_norm")
    )
    layer = make(nn.Linear(4, 4))
    plan = pb.plan_jacobian(layer, torch.rand(2, 4))
    jac = pb.jacobian(layer, plan=plan)
    for grad in (True, False, True):
        X = torch.rand(2, 4)
        buffers = {k: v.clone() for k, v in layer.state_dict().items()}
        expected = matrix_of(layer, X)
        after = {k: v.clone() for k, v in layer.state_dict().items()}
        layer.load_state_dict(buffers)
        with torch.set_grad_enabled(grad):
            found = whole(jac(X))
        assert_close(found, expected)
        assert_close(dict(layer.state_dict()), after)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1.1)


def test_grad_mode_and_autocast_and_the_default_dtype() -> None:
    def func(x: Tensor) -> Tensor:
        scale = 2.0 if torch.is_grad_enabled() else 3.0
        return scale * x * torch.ones(4) * torch.tensor(0.1)

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    for dtype in (torch.float64, torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        assert_right(jac, func, x)

    layer = nn.Linear(4, 4, dtype=torch.float32).requires_grad_(False)
    jac = pb.jacobian(layer, layout=CSR)
    y = torch.rand(4, dtype=torch.float32)
    assert_right(jac, layer, y, close=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_right(jac, layer, y, close=1e-6)
    assert_right(jac, layer, y, close=1e-6)


@pytest.mark.parametrize("grad", [True, False])
def test_a_region_without_autocast_keeps_its_precision(grad: bool) -> None:
    layer = nn.Linear(4, 4, dtype=torch.float32).requires_grad_(False)

    def func(x: Tensor) -> Tensor:
        h = layer(x)
        with torch.autocast("cpu", enabled=False):
            return nn.functional.linear(h.float(), layer.weight) * x

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return func(x)

    x = torch.rand(4, dtype=torch.float32)
    for lift in (True, False):
        plans = [pb.plan_jacobian(f, x, lift=lift) for f in (func, under_autocast)]
        jac, inside = pb.jacobian(func, plan=plans[0]), pb.jacobian(under_autocast, plan=plans[1])
        with torch.set_grad_enabled(grad):
            for _ in range(2):
                assert_right(inside, under_autocast, x, close=1e-6)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    assert_right(jac, func, x, close=1e-6)


def test_caches() -> None:
    @functools.lru_cache
    def ramp(n: int) -> Tensor:
        return torch.arange(float(n))

    stored: dict[str, Tensor] = {}

    def func(x: Tensor) -> Tensor:
        if "w" not in stored:
            stored["w"] = torch.full((4,), 3.0)
        return x**2 * ramp(4) * stored["w"]

    jac = pb.jacobian(func, layout=CSR)
    for _ in range(3):
        assert_right(jac, func, torch.rand(4))
    stored["w"] = torch.ones(4)
    assert_right(jac, func, torch.rand(4))
    stored.clear()
    stored["w"] = torch.full((4,), 3.0)
    assert_right(jac, func, torch.rand(4))


def test_one_call_is_one_forward_where_the_function_keeps_a_list() -> None:
    calls: list[int] = []

    def func(x: Tensor) -> Tensor:
        calls.append(1)
        return x**2 * len(calls)

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    jac(x)
    for _ in range(3):
        before = len(calls)
        found = whole(jac(x))
        assert len(calls) == before + 1
        assert_close(found, torch.diag(2 * x * (before + 1)))


def test_refresh_forgets() -> None:
    k = [2.0]
    jac = pb.jacobian(lambda x: x**2 * k[0], layout=CSR)
    x = torch.rand(4)
    assert_right(jac, lambda x: x**2 * k[0], x)
    k[0] = 3.0
    jac.refresh()
    assert_right(jac, lambda x: x**2 * k[0], x)


def test_code_that_is_changed_while_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def func(x: Tensor, acc: Any = [2.0], *, power: float = 2.0) -> Tensor:  # noqa: B006
        return nn.functional.relu(x) ** power * acc[0]

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    assert_right(jac, func, x)
    func.__defaults__[0][0] = 5.0
    assert_right(jac, func, x)
    func.__defaults__ = ([7.0],)
    assert_right(jac, func, x)
    func.__kwdefaults__["power"] = 3.0
    assert_right(jac, func, x)
    monkeypatch.setattr(nn.functional, "relu", lambda t: 3 * t)
    assert_right(jac, func, x)
    monkeypatch.undo()
    assert_right(jac, func, x)
    func.__code__ = (lambda x, acc, *, power: x * 9).__code__
    assert_right(jac, func, x)
