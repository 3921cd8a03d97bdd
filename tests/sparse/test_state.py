"""What a function reads besides its arguments: found, watched, named, and never disturbed."""

from __future__ import annotations

import builtins
import collections
import dataclasses
import enum
import functools
import gc
import itertools
import math
import operator
import os
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pullback.sparse.state import Reading, State, TensorGuard
from pullback.sparse.state.code import reads_of

dt: Any = 0.1
y_old: Any = torch.zeros(3)


def helper(x: Tensor) -> Tensor:
    return x * 2


def change(func: Callable[..., Any], act: Callable[[], object]) -> tuple[str, ...]:
    """What ``act`` changes of the state of ``func``; before it, nothing has changed."""
    state = State.of(func)
    assert state.unseen == ()
    before = state.read()
    assert state.read().changes(before) == ()
    act()
    now = state.read()
    assert now.changes(State.of(func).read()) == (), "as a new walk sees it"
    return now.changes(before)


@contextmanager
def restored(scope: Any, *names: str) -> Iterator[None]:
    kept = {name: scope[name] for name in names}
    try:
        yield
    finally:
        scope.update(kept)


def a_module(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    return module


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.1)
        self.scale = 2.0
        self.register_buffer("shift", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.lin(x)) * self.scale + self.shift


class Config:
    def __init__(self) -> None:
        self.k = 2.0
        self.inner: Any = None


class Solver:
    order = 2

    def __init__(self) -> None:
        self.cfg = Config()
        self.cfg.inner = Config()
        self.weights = torch.ones(3)
        self.history: list[float] = []

    def step(self, x: Tensor) -> Tensor:
        return x * self.cfg.k

    def residual(self, x: Tensor) -> Tensor:
        return self.step(x) * self.cfg.inner.k**self.order + self.weights


# What is found.


def test_every_way_to_hold_a_tensor_is_a_path() -> None:
    w = [torch.ones(1) for _ in range(9)]
    pair = collections.namedtuple("pair", "left right")(w[0], w[1])
    table = {"a": [w[2], (w[3],)], 5: {"b": w[4]}}
    net = nn.Linear(1, 1)

    def func(x: Tensor, shift: Tensor = w[5], *, scale: Tensor = w[6]) -> Tensor:
        return net(x) + pair.left + table["a"][0] + y_old + shift + scale

    state = State.of(functools.partial(func, shift=w[7]), extra=[w[8]])
    assert state.unseen == ()
    paths = dict(state.leaves)
    held = {
        "pair.left": w[0],
        "pair.right": w[1],
        "table['a'][0]": w[2],
        "table['a'][1][0]": w[3],
        "table[5]['b']": w[4],
        "net.weight": net.weight,
        "net.bias": net.bias,
    }
    name = "test_every_way_to_hold_a_tensor_is_a_path.func"
    for expr, tensor in held.items():
        assert paths.pop(f"{expr} (closure of {name})") is tensor
    assert paths.pop(f"shift (default of {name})") is w[5]
    assert paths.pop(f"scale (default of {name})") is w[6]
    assert paths.pop(f"y_old (global of {__name__})") is y_old
    assert paths.pop("keywords['shift'] (in partial)") is w[7]
    assert paths.pop("extra[0]") is w[8]
    assert paths == {}
    assert state.path_of(w[0]) == f"pair.left (closure of {name})"
    assert state.path_of(torch.ones(1)) is None


def test_the_parameters_of_a_module_have_the_names_that_torch_gives() -> None:
    net = nn.Sequential(Net(), nn.LSTM(4, 2), nn.MultiheadAttention(2, 1), nn.BatchNorm1d(3))
    expected = dict(net.named_parameters()) | dict(net.named_buffers())
    state = State.of(net)
    assert state.unseen == ()
    found = {o.path.removesuffix(" (in Sequential)"): o.tensor for o in state.leaves}
    assert expected.keys() <= found.keys()
    assert all(found[name] is tensor for name, tensor in expected.items())
    extra = found.keys() - expected.keys()
    assert all("_flat_weight" in name for name in extra)  # an LSTM's own list of them


def test_tied_weights_are_found_under_all_their_paths() -> None:
    net = Net()
    net.other = nn.Linear(3, 4)
    net.other.weight = net.lin.weight
    state = State.of(net)
    paths = [o.path for o in state.leaves if o.tensor is net.lin.weight]
    assert paths == ["lin.weight (in Net)", "other.weight (in Net)"]
    assert state.path_of(net.lin.weight) == "lin.weight (in Net)"


def test_a_method_of_a_tensor_reads_that_tensor() -> None:
    w = torch.eye(3)
    assert State.of(w.matmul).path_of(w) is not None
    assert State.of(functools.partial(torch.add, w)).path_of(w) is not None


@pytest.mark.parametrize(
    "wrap",
    [
        torch.func.vmap,
        torch.func.grad,
        torch.func.jacrev,
        functools.partial,
        torch.no_grad(),
        functools.wraps(helper),
        lambda f: functools.wraps(f)(lambda *a: f(*a)),
        staticmethod,
    ],
    ids=lambda w: getattr(w, "__name__", type(w).__name__),
)
def test_what_wraps_a_function_is_seen_through(wrap: Callable[..., Any]) -> None:
    k = [3.0]
    w = torch.ones(3)

    def func(x: Tensor) -> Tensor:
        return (x * w * k[0]).sum()

    wrapped = wrap(func)
    assert State.of(wrapped).path_of(w) is not None
    assert any(
        "was 3.0 and is 4.0" in text
        for text in change(wrapped, lambda: k.insert(0, 4.0) or k.pop())
    )


@contextmanager
def at_module_level() -> Iterator[float]:
    yield dt


@functools.wraps(helper)
def wrapped_at_module_level(x: Tensor) -> Tensor:
    return x * dt


@pytest.mark.parametrize("name", ["at_module_level", "wrapped_at_module_level"])
def test_a_decorated_function_that_bears_the_name_of_the_users(name: str) -> None:
    """Its code is installed code, and its module holds it under its name."""
    func = globals()[name]
    state = State.of(lambda x: func(x))
    assert state.unseen or f"dt (global of {__name__})" in state.read().facts


def test_an_installed_function_is_trusted_unless_it_is_the_one_to_watch(tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()
    file = tmp_path / "site-packages" / "a_package.py"
    file.write_text("k = 1.0\ndef f(x): return x * k\n")
    package = types.ModuleType("a_package")
    package.__file__ = str(file)
    exec(compile(file.read_text(), str(file), "exec"), package.__dict__)
    sys.modules["a_package"] = package
    try:
        f = package.f
        assert change(f, lambda: setattr(package, "k", 2.0)) != ()
        assert change(lambda x: f(x), lambda: setattr(package, "k", 3.0)) == ()
    finally:
        del sys.modules["a_package"]


# What may change.


def test_a_float_in_a_closure() -> None:
    step = 0.1

    def residual(x: Tensor) -> Tensor:
        return x * step

    def act() -> None:
        nonlocal step
        step = 0.2

    name = "test_a_float_in_a_closure.residual"
    assert change(residual, act) == (f"`step` (closure of {name}) was 0.1 and is 0.2",)


def test_a_global_number() -> None:
    def act() -> None:
        global dt
        dt = 0.2

    with restored(globals(), "dt"):
        assert change(lambda x: x * dt, act) == (f"`dt` (global of {__name__}) was 0.1 and is 0.2",)


def test_a_global_read_by_a_helper_of_a_helper() -> None:
    scope = a_module("deep", "c = 1.5\ndef a(x): return x * c\ndef b(x): return [a(v) for v in x]")
    b = scope.b
    text = change(lambda x: b(x), lambda: scope.__dict__.update(c=2.5))
    assert text == ("`c` (global of deep) was 1.5 and is 2.5",)


def test_a_rebound_global_tensor_is_another_tensor_only_if_its_form_is() -> None:
    with restored(globals(), "y_old"):
        func = lambda x: x - y_old  # noqa: E731
        assert change(func, lambda: globals().update(y_old=torch.ones(3))) == ()
        assert change(func, lambda: globals().update(y_old=torch.ones(3, dtype=torch.float64))) == (
            f"`y_old` (global of {__name__}) is another tensor: (3,) float32 before, (3,) float64 now",
        )
        globals()["y_old"] = torch.ones(3)
        assert change(func, lambda: globals().update(y_old=0.5)) == (
            f"`y_old` (global of {__name__}) was a tensor (3,) float32 and is 0.5",
        )


def test_a_replaced_parameter() -> None:
    net = Net()
    replace = lambda *shape: setattr(net.lin, "weight", nn.Parameter(torch.ones(*shape)))  # noqa: E731
    assert change(net, lambda: replace(4, 3)) == ()
    assert change(net, lambda: replace(5, 3)) == (
        "`lin.weight` (in Net) is another tensor: (4, 3) float32 before, (5, 3) float32 now",
    )
    assert change(net, lambda: net.lin.weight.requires_grad_(False)) == (
        "`lin.weight` (in Net) is another tensor: requires_grad True before, False now",
    )
    assert change(net, lambda: setattr(net.lin, "weight", nn.Parameter(torch.ones(3, 5).t()))) != ()
    assert change(net, lambda: setattr(net.lin, "bias", None)) == (
        "`lin.bias` (in Net) was a tensor (4,) float32 and is None",
    )


def test_a_parameter_whose_data_is_replaced() -> None:
    net = Net()
    assert change(net, lambda: net.double()) != ()
    assert any("shift" in t for t in change(net, lambda: setattr(net.shift, "data", torch.ones(2))))


def test_eval_and_attributes_of_a_module() -> None:
    net = Net()
    assert "`drop.training` (in Net) was True and is False" in change(net, net.eval)
    assert change(net, lambda: setattr(net, "scale", 3.0)) == (
        "`scale` (in Net) was 2.0 and is 3.0",
    )
    assert change(net, lambda: setattr(net.drop, "p", 0.2)) == (
        "`drop.p` (in Net) was 0.1 and is 0.2",
    )
    assert change(net, lambda: setattr(net, "drop", nn.Identity())) != ()
    assert change(net, lambda: net.add_module("more", nn.ReLU())) != ()
    assert change(net, lambda: net.lin.register_forward_hook(lambda *_: None)) != ()


def test_the_function_that_a_hook_calls() -> None:
    net, gain = Net(), [2.0]
    net.register_forward_hook(lambda _m, _i, out: out * gain[0])
    assert any("was 2.0 and is 3.0" in t for t in change(net, lambda: gain.__setitem__(0, 3.0)))


def test_tensors_that_come_to_be_tied_or_untied() -> None:
    net = Net()
    net.other = nn.Linear(3, 4)
    assert change(net, lambda: setattr(net.other, "weight", net.lin.weight)) == (
        "`lin.weight` (in Net) and `other.weight` (in Net) are one tensor now",
        "`lin.weight` (in Net) and `other.weight` (in Net) share memory now",
    )
    assert change(net, lambda: setattr(net.other, "weight", nn.Parameter(torch.ones(4, 3)))) == (
        "`lin.weight` (in Net) and `other.weight` (in Net) are different tensors now",
        "`lin.weight` (in Net) and `other.weight` (in Net) no longer share memory now",
    )


def test_views_that_come_to_share_memory() -> None:
    a, b = torch.zeros(4), torch.zeros(4)
    texts = change(lambda x: x + a + b, lambda: b.set_(a.untyped_storage(), 0, (4,)))
    assert len(texts) == 1
    assert "share memory" in texts[0]


def test_nested_objects_and_their_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Solver()
    func = solver.residual
    origin = "(bound to Solver.residual)"
    assert change(func, lambda: setattr(solver.cfg, "k", 3)) == (
        f"`self.cfg.k` {origin} was 2.0 and is 3",
    )
    assert change(func, lambda: setattr(solver.cfg.inner, "k", 3.0)) == (
        f"`self.cfg.inner.k` {origin} was 2.0 and is 3.0",
    )
    assert change(func, lambda: setattr(solver, "order", 3)) == (
        f"`self.order` {origin} is new: 3",
    )
    assert change(func, lambda: monkeypatch.setattr(Solver, "order", 4)) == (
        "`order` (in class Solver) was 2 and is 4",
    )
    assert change(func, lambda: monkeypatch.setattr(Solver, "step", lambda self, x: x)) != ()
    assert change(func, lambda: setattr(solver, "step", lambda x: x)) != ()
    assert change(func, lambda: setattr(solver, "__class__", Config)) != ()


def test_attributes_that_no_code_names_do_not_count() -> None:
    solver = Solver()
    solver.__dict__["lock"] = threading.Lock()
    assert change(solver.residual, lambda: solver.history.append(1.0)) == ()

    class Reflecting(Solver):
        def residual(self, x: Tensor) -> Tensor:
            return x * sum(vars(self)["history"])

    other = Reflecting()
    assert change(other.residual, lambda: other.history.append(1.0)) != ()


@pytest.mark.parametrize(
    ("value", "act"),
    [
        ([1.0, 2.0], lambda v: v.__setitem__(0, 1.5)),
        ([1.0, 2.0], lambda v: v.append(3.0)),
        ([torch.ones(2), 1.0], lambda v: v.__setitem__(0, torch.ones(3))),
        ([[1.0], [2.0, None]], lambda v: v[1].clear()),
        ({"a": 1, "b": 2}, lambda v: v.update(a=True)),
        ({"a": 1, "b": 2}, lambda v: v.update(b=v.pop("a"), a=v.pop("b"))),
        ({"a": 1}, lambda v: v.setdefault("b", 1)),
        ({}, lambda v: v.setdefault("b", 1)),
        ({1, 2}, lambda v: v.add(3)),
        (collections.deque([1, 2]), lambda v: v.rotate(1)),
        (collections.OrderedDict(a=1, b=1), lambda v: v.move_to_end("a")),
        (collections.defaultdict(list, a=1), lambda v: setattr(v, "default_factory", dict)),
        (bytearray(b"ab"), lambda v: v.__setitem__(0, 0)),
        (np.zeros(3), lambda v: v.__setitem__(1, 1.0)),
        (np.zeros(3), lambda v: v.__setitem__(1, -0.0)),
        (np.zeros((2, 3)), lambda v: setattr(v, "shape", (3, 2))),
        (np.zeros((4, 4))[::2, ::2], lambda v: v.__setitem__((1, 1), 1)),
        (types.SimpleNamespace(a=1.0), lambda v: setattr(v, "a", 1)),
        ((1.0, [2.0]), lambda v: v[1].append(0)),
        (types.MappingProxyType({"a": [1]}), lambda v: v["a"].append(0)),
        (functools.partial(max, 1, key=abs), lambda v: v.keywords.update(key=len)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_containers_hold(value: Any, act: Callable[[Any], Any]) -> None:
    texts = change(lambda x: x + value, lambda: act(value))
    assert texts
    assert all("`value" in text for text in texts)


def test_an_entry_of_a_list_is_named() -> None:
    table = [0.1, 0.2]
    [text] = change(lambda x: x * table[1], lambda: table.__setitem__(1, 0.3))
    assert text.startswith("`table[1]` (closure of ")
    assert text.endswith(" was 0.2 and is 0.3")


@dataclasses.dataclass
class Record:
    a: float
    b: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    a: float
    b: Any = None


class Named(NamedTuple):
    a: float
    b: Any


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Kilogram(float):
    pass


@pytest.mark.parametrize("make", [Record, Slotted])
def test_fields_of_records_count_whether_named_or_not(make: Any) -> None:
    record = make(1.0, torch.ones(2))
    state = State.of(lambda x: dataclasses.astuple(record))
    assert len(state.leaves) == 1
    assert change(lambda x: x + record, lambda: setattr(record, "a", 2.0)) != ()
    assert change(lambda x: x + record, lambda: setattr(record, "b", torch.ones(3))) != ()


VALUES = [
    *(0.0, -0.0, 1, 1.0, True, math.nan, math.inf, 1 + 0j, complex(0.0, -0.0), complex(0.0, 0.0)),
    *("1", b"1", None, ..., NotImplemented, slice(0, 1), slice(0, 2), range(2), range(3)),
    *(torch.float32, torch.float64, torch.device("cpu"), torch.device("meta"), torch.strided),
    *(torch.Size([2]), (2,), [2], np.float64(1), np.float32(1), np.int64(1), np.bool_(True)),
    *(np.dtype("f4"), np.dtype("f8"), Color.RED, Color.BLUE, Kilogram(1), torch.channels_last),
    *(Named(1.0, 2), Named(1, 2), {1}, frozenset({1}), {"a": 1}, {"a": 1.0}, math.sin, math.cos),
    *(torch.sin, torch.cos, np.sin, np.cos, Record, Slotted, helper, len, int, float, 10**100),
    *(operator.itemgetter(1), operator.itemgetter(2), operator.attrgetter("a.b"), nn.ReLU),
    *(torch.ops.aten.sin.default, torch.ops.aten.cos.default, F.relu, F.gelu, F.max_pool2d),
    *(collections.OrderedDict(a=1), np.zeros(2), np.zeros(2, dtype="f4"), np.zeros(0), list[int]),
]


def test_values_differ_exactly_from_all_others() -> None:
    """Each value is itself on a second look, and no other value of the list."""
    box: list[Any] = [None]

    def func(x: Tensor) -> Any:
        return box[0]

    state = State.of(func)
    readings = []
    for value in VALUES:
        box[0] = value
        readings.append(state.read())
        assert state.unseen == (), value
        assert state.read().changes(readings[-1]) == ()
        assert State.of(func).read().changes(readings[-1]) == ()
    for i, one in enumerate(readings):
        for j, other in enumerate(readings):
            assert (one.changes(other) == ()) == (i == j), (VALUES[i], VALUES[j])


def test_a_helper_defined_anew_a_method_patched_a_library_function_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def func(x: Tensor) -> Tensor:
        return helper(x) + math.floor(2.5) + F.relu(x)

    def other(x: Tensor) -> Tensor:
        return x * 3

    with restored(globals(), "helper"):
        [text] = change(func, lambda: globals().update(helper=other))
        assert text.startswith(f"`helper` (global of {__name__}) was the function helper of ")
    code = helper.__code__
    assert change(func, lambda: setattr(helper, "__code__", other.__code__)) != ()
    helper.__code__ = code
    assert change(func, lambda: monkeypatch.setattr(math, "floor", math.ceil)) != ()
    assert change(func, lambda: monkeypatch.setattr(F, "relu", other)) != ()
    assert change(func, lambda: monkeypatch.setattr(builtins, "helper", other, raising=False)) == ()


def test_defaults_and_attributes_of_functions() -> None:
    def func(x: Tensor, k: float = 2.0, *, m: float = 3.0) -> Tensor:
        return x * k * m * func.gain

    func.gain = 1.0  # type: ignore[attr-defined]
    assert change(func, lambda: setattr(func, "__defaults__", (2.5,))) != ()
    assert func.__kwdefaults__ is not None
    assert change(func, lambda: func.__kwdefaults__.update(m=4.0)) != ()
    assert change(func, lambda: setattr(func, "gain", 2.0)) != ()


def test_an_empty_cell_is_a_fact() -> None:
    def outer(fill: bool) -> tuple[Callable[..., Any], Callable[[], None]]:
        if fill:
            late = 1.0

        def func(x: Tensor) -> Tensor:
            return x * late

        def act() -> None:
            nonlocal late
            late = 2.0

        return func, act

    func, act = outer(False)
    [text] = change(func, act)
    assert text.endswith("was not assigned yet and is 2.0")


def test_attributes_of_a_user_module() -> None:
    settings = a_module("settings", "alpha = 1.0\nunused = 3\ninner = None")
    inner = settings.inner = a_module("settings.inner", "beta = 2.0")

    def func(x: Tensor) -> Tensor:
        return x * settings.alpha * settings.inner.beta

    assert change(func, lambda: setattr(settings, "alpha", 2.0)) == (
        "`alpha` (global of settings) was 1.0 and is 2.0",
    )
    assert change(func, lambda: setattr(inner, "beta", 2.5)) != ()
    assert change(func, lambda: setattr(settings, "unused", 4)) == ()
    assert change(func, lambda: setattr(settings, "inner", settings)) != ()
    imported = a_module("_a_settings_module", "alpha = 1.0")
    sys.modules["_a_settings_module"] = imported

    def importing(x: Tensor) -> Tensor:
        from _a_settings_module import alpha  # type: ignore[import-not-found]

        return x * alpha

    assert change(importing, lambda: setattr(imported, "alpha", 2.0)) != ()
    del sys.modules["_a_settings_module"]
    assert State.of(importing).unseen != ()


def test_data_in_installed_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert change(lambda x: x * math.pi, lambda: monkeypatch.setattr(math, "pi", 3.0)) != ()


class Clamp(torch.autograd.Function):
    limit = 1.0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(-Clamp.limit, Clamp.limit)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return v * dt


@pytest.mark.parametrize("make", [lambda: lambda x: Clamp.apply(x), lambda: Clamp.apply])
def test_what_a_custom_function_reads(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    func = make()
    assert change(func, lambda: monkeypatch.setattr(Clamp, "limit", 2.0)) != ()
    with restored(globals(), "dt"):
        assert change(func, lambda: globals().update(dt=7.0)) != ()
    backward = staticmethod(lambda ctx, v: v)
    assert change(func, lambda: monkeypatch.setattr(Clamp, "backward", backward)) != ()


class Base:
    k = 1.0

    @property
    def gain(self) -> float:
        return self.k * dt

    @classmethod
    def make(cls) -> Base:
        return cls()

    @functools.cached_property
    def once(self) -> float:
        return self.k


class Derived(Base):
    __slots__ = ("extra",)

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.gain * self.extra


def test_properties_slots_and_inherited_code() -> None:
    func = Derived()
    func.extra = 1.0
    assert change(func, lambda: setattr(func, "extra", 2.0)) != ()
    with restored(globals(), "dt"):
        assert change(func, lambda: globals().update(dt=7.0)) != ()
    assert change(func, lambda: setattr(func, "k", 7.0)) != ()


def test_a_gradient_that_the_function_reads() -> None:
    w = torch.ones(3, requires_grad=True)
    func = lambda x: x * w.grad  # noqa: E731
    assert change(func, lambda: setattr(w, "grad", torch.ones(3))) != ()
    state = State.of(func)
    assert w.grad is not None
    assert state.path_of(w.grad) is not None
    assert state.path_of(w.grad).startswith("w.grad ")  # type: ignore[union-attr]
    assert change(func, lambda: setattr(w, "grad", torch.zeros(3))) == ()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (torch.no_grad, "`torch.is_grad_enabled()` was True and is False"),
        (
            lambda: torch.autocast("cpu", torch.bfloat16),
            "`torch.autocast('cpu')` was False and is torch.bfloat16",
        ),
        (torch.inference_mode, "`torch.is_inference_mode_enabled()` was False and is True"),
        (
            lambda: torch.device("meta"),
            "`torch.get_default_device()` was device(type='cpu') and is device(type='meta')",
        ),
    ],
)
def test_modes_of_torch(mode: Any, text: str) -> None:
    state = State.of(helper)
    before = state.read()
    with mode():
        assert text in state.read().changes(before)
    assert state.read().changes(before) == ()


def test_settings_of_torch() -> None:
    state = State.of(helper)
    before = state.read()
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        assert state.read().changes(before) == (
            "`torch.get_default_dtype()` was torch.float32 and is torch.float64",
            "`torch.get_deterministic_debug_mode()` was 0 and is 2",
        )
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


# What may not be reported.


def test_training_changes_nothing() -> None:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())

    def act() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(3)).sum().backward()
            optimizer.step()
        with torch.no_grad():
            net.shift.add_(1)
        net.lin.weight = nn.Parameter(torch.randn(4, 3))

    assert change(net, act) == ()


def test_a_function_made_anew_by_the_same_source_is_the_same() -> None:
    box = [lambda x: x * 2]
    make = lambda: lambda x: x * 3  # noqa: E731
    box[0] = make()
    assert change(lambda x: box[0](x), lambda: box.__setitem__(0, make())) == ()


def test_a_number_that_returns_at_the_address_of_another() -> None:
    """The quick look compares by identity: an address that is used again must not deceive it."""
    box: list[Any] = [0.5]
    state = State.of(lambda x: x * box[0])
    before = state.read()
    for k in range(2000):
        box[0] = 0.75 + k
        assert state.read().changes(before) != ()
        box[0] = torch.ones(1)
        before = state.read()
        box[0] = torch.ones(2)
        assert state.read().changes(before) != ()
        box[0] = 0.5 * k
        before = state.read()


def test_a_freed_number_may_leave_its_address_to_another() -> None:
    reused = 0
    for k in range(200):
        step: Any = float(f"{k}.5")
        state = State.of(lambda x: x * step)  # noqa: B023 - read again below
        before, address = state.read(), id(step)
        step = None
        step = float(f"{k}.75")
        reused += id(step) == address
        assert state.read().changes(before) != ()
    assert reused == 0, "the state holds what it compares by identity"


def test_an_attribute_that_a_function_is_given_later() -> None:
    def func(x: Tensor) -> Tensor:
        return x * getattr(func, "gain", 1.0)

    assert change(func, lambda: setattr(func, "gain", 2.0)) != ()


# What cannot be seen.


@functools.lru_cache
def cached(n: int) -> int:
    return n


UNSEEN: list[tuple[Callable[..., Any], str]] = [
    (
        lambda x: x * random.random(),
        "`random` (global of {m}) is the module `random`, which draws random numbers",
    ),
    (
        lambda x: x * time.time(),
        "`time` (global of {m}) is the module `time`, which reads the clock",
    ),
    (
        lambda x: x * float(os.environ["X"]),
        "`os` (global of {m}) is the module `os`, which reads the environment or the file system",
    ),
    (lambda x: x * float(open("x").read()), "`<lambda>` uses `open`, which reads files"),  # noqa: SIM115
    (lambda x: x * float(input()), "`<lambda>` uses `input`, which reads what a person types"),
    (lambda x: eval("x * 2"), "`<lambda>` uses `eval`, which runs code that it makes itself"),
    (lambda x: x * np.random.rand(), "`numpy.random` draws random numbers"),
    (lambda x: torch.load("x"), "`torch.load` reads files"),
    (
        lambda x: torch.manual_seed(0),
        "`torch.manual_seed` sets or reads the state of a random generator",
    ),
    (
        lambda x: cached(1),
        "`cached` (global of {m}) keeps the results of earlier calls (functools.lru_cache)",
    ),
]


@pytest.mark.parametrize(("func", "text"), UNSEEN, ids=[t[:40] for _, t in UNSEEN])
def test_code_that_answers_differently_is_named(func: Any, text: str) -> None:
    unseen = State.of(func).unseen
    assert text.format(m=__name__) in unseen


@pytest.mark.parametrize(
    "value",
    [
        torch.Generator(),
        np.random.default_rng(),
        np.random.RandomState(0),
        random.Random(0),
        iter([1, 2]),
        (k for k in range(3)),
        map(abs, [1]),
        threading.Lock(),
        threading.local(),
        memoryview(b"ab"),
        time.time,
        random.random,
        np.random.rand,
        os.environ,
        torch.ones(2).untyped_storage(),
        np.array([object()]),
        open,
        time,
        itertools.count(),
    ],
    ids=lambda v: type(v).__name__,
)
def test_values_that_cannot_be_watched_are_named(value: Any) -> None:
    [reason, *_] = State.of(lambda x: x + value).unseen
    assert "`value" in reason or type(value) is types.MethodType


def test_a_function_that_writes_outside_of_itself() -> None:
    count = 0

    def counting(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return x * count

    name = "test_a_function_that_writes_outside_of_itself.counting"
    assert State.of(counting).unseen == (f"`{name}` assigns to `count`, which lives outside of it",)

    def local(x: Tensor) -> Tensor:
        total = 0

        def add() -> None:
            nonlocal total
            total += 1

        add()
        return x * total

    assert State.of(local).unseen == ()


def test_a_tensor_class_with_code_of_its_own_is_not_asked() -> None:
    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("called")

    with torch._C.DisableTorchFunctionSubclass():
        value = torch.ones(2).as_subclass(Loud)
    [reason] = State.of(lambda x: x + value).unseen
    assert reason.endswith(
        "is a test_a_tensor_class_with_code_of_its_own_is_not_asked.<locals>.Loud, which overrides torch's own"
    )


def test_too_much_state_is_named() -> None:
    many = [[k, [k]] for k in range(110_000)]
    assert State.of(lambda x: many).unseen == (
        "too much state to watch: more than 200,000 objects",
    )


# No trace.


class Hostile(type):
    def __eq__(cls, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(cls) -> int:
        raise AssertionError("hashed")

    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


class Touchy(metaclass=Hostile):
    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")

    def __len__(self) -> int:
        raise AssertionError("measured")

    __bool__ = __repr__ = __iter__ = __len__  # type: ignore[assignment]

    @property
    def value(self) -> float:
        raise AssertionError("property read")

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.gain * self.value  # type: ignore[attr-defined, no-any-return]


def test_no_code_of_the_user_runs() -> None:
    touchy = object.__new__(Touchy)
    object.__setattr__(touchy, "gain", 2.0)
    others: list[Any] = [touchy, {"a": touchy}, (touchy, 1), types.SimpleNamespace(t=touchy)]
    assert change(touchy, lambda: object.__setattr__(touchy, "gain", 3.0)) != ()
    func = lambda x: others  # noqa: E731
    assert change(func, lambda: object.__setattr__(touchy, "gain", 4.0)) != ()
    replacement = object.__new__(Touchy)
    assert change(func, lambda: others.__setitem__(0, replacement)) != ()


def test_nothing_is_written_and_nothing_drawn() -> None:
    net = Net()
    versions = [p._version for p in net.parameters()]
    seed = torch.get_rng_state()
    keys = {name: list(vars(m)) for name, m in net.named_modules()}
    State.of(net).read()
    assert [p._version for p in net.parameters()] == versions
    assert torch.equal(seed, torch.get_rng_state())
    assert keys == {name: list(vars(m)) for name, m in net.named_modules()}
    assert all(p.grad is None for p in net.parameters())


def test_replaced_tensors_are_let_go() -> None:
    net = Net()
    box = [torch.ones(3), torch.ones(3)]
    state = State.of(lambda x: net(x) + box[0])
    baseline = state.read().without_tensors()
    assert baseline.tensors == {}
    gone = [weakref.ref(net.lin.weight), weakref.ref(box[0])]
    net.lin.weight = nn.Parameter(torch.zeros(4, 3))
    box[0] = torch.zeros(3)
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    now = state.read()
    assert now.changes(baseline) == ()
    assert any(tensor is box[0] for tensor in now.tensors.values())


def test_cycles_and_depth() -> None:
    loop: list[Any] = [1.0]
    loop.append({"loop": loop})
    deep: list[Any] = [torch.ones(1)]
    for _ in range(5000):
        deep = [deep]
    cfg = Config()
    cfg.inner = cfg
    state = State.of(lambda x: (loop, deep, cfg.inner))
    assert state.unseen == ()
    assert len(state.leaves) == 1
    assert change(lambda x: loop, lambda: loop.__setitem__(0, 2.0)) != ()


def test_reads_made_while_the_state_is_at_rest_walk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pullback.sparse.state import owner

    walks = 0

    class Counting(owner.Walk):
        def run(self) -> None:
            nonlocal walks
            walks += 1
            super().run()

    monkeypatch.setattr(owner, "Walk", Counting)
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    state = State.of(net)
    for _ in range(5):
        state.read()
        with torch.no_grad():
            net[0].weight.add_(1)
    assert walks == 1
    net[3].weight = nn.Parameter(torch.ones(2, 2))
    state.read()
    state.read()
    assert walks == 2


def test_reading_is_a_moment() -> None:
    """A reading taken before a change is not altered by it."""
    net = Net()
    state = State.of(net)
    before = state.read()
    assert isinstance(before, Reading)
    forms = before.forms
    net.lin.weight.requires_grad_(False)
    assert before.forms == forms
    assert state.read().changes(before) != ()


# Names in code.


def test_names_that_code_reads() -> None:
    def func(self: Any, x: Any) -> Any:
        import json.decoder

        self.kept = y_old.shape
        del self.gone
        return [helper(v.real) for v in x], getattr(x, "imag", 0), operator.attrgetter("a.b"), json

    reads = reads_of(func.__code__)
    assert set(reads.globals) == {"y_old", "helper", "getattr", "operator"}
    assert {"shape", "real", "imag", "attrgetter", "a", "b"} <= reads.attributes
    assert {"kept", "gone"}.isdisjoint(reads.attributes)
    assert reads.imports == (("json.decoder", 0),)


# The content that a plan relies on.

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
    torch.complex128,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3)])
def test_a_guard_sees_every_single_entry(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape, dtype=dtype)
    guard = TensorGuard.of("t", tensor)
    assert guard.holds(tensor)
    assert guard.holds(tensor.clone())
    assert guard.difference(tensor) == ""
    for k in range(tensor.numel()):
        tensor.view(-1)[k] = 1
        assert not guard.holds(tensor)
        assert not guard.holds(tensor, trust=True), "a counted write"
        tensor.view(-1)[k] = 0
    assert guard.holds(tensor)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[::2, 1:],
        lambda t: t[:, :1].expand(6, 8),
        lambda t: t.to(torch.complex64).conj(),
        lambda t: (t * 1j).conj().imag,
        lambda t: t.to_sparse(),
        lambda t: t.to_sparse_csr(),
        lambda t: t.to_sparse_csc(),
        lambda t: t.requires_grad_(),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_guard_compares_contents_in_any_layout(view: Callable[[Tensor], Tensor]) -> None:
    base = torch.randn(6, 8)
    guard = TensorGuard.of("t", view(base.clone()))
    assert guard.holds(view(base.clone()))
    other = base.clone()
    other[2, 0] += 1
    other[2, 1] += 1
    assert not guard.holds(view(other))
    assert guard.difference(view(other)) != ""


def test_a_guard_compares_bits() -> None:
    guard = TensorGuard.of("t", torch.tensor([math.nan, 0.0]))
    assert guard.holds(torch.tensor([math.nan, 0.0]))
    assert not guard.holds(torch.tensor([math.nan, -0.0]))
    assert not guard.holds(torch.tensor([math.nan, 0.0], dtype=torch.float64))
    assert not guard.holds(torch.tensor([[math.nan, 0.0]]))
    assert not guard.holds(torch.tensor([1.0, 0.0]))


def test_writes_that_no_version_counts() -> None:
    array = np.array([1, 2, 3])
    tensors = [torch.from_numpy(array), torch.tensor([1, 2, 3])]
    guards = [TensorGuard.of("t", tensor) for tensor in tensors]
    versions = [tensor._version for tensor in tensors]
    array[1] = 5
    tensors[1].data[1] = 5
    assert [tensor._version for tensor in tensors] == versions
    for guard, tensor in zip(guards, tensors, strict=True):
        assert not guard.holds(tensor)
        assert guard.holds(tensor, trust=True), "which is what trusting means"
        assert not guard.holds(tensor.clone(), trust=True)


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        (
            torch.tensor([1, 2, 3, 5]),
            torch.tensor([1, 2, 3, 7]),
            "index `edges` (closure of f) changed at [3]: 5 before, 7 now",
        ),
        (
            torch.zeros(2, 3, dtype=torch.bool),
            torch.eye(3, dtype=torch.bool)[1:],
            "mask `edges` (closure of f) changed at [0, 1]: False before, True now",
        ),
        (
            torch.tensor(1.5),
            torch.tensor(2.5),
            "tensor `edges` (closure of f) changed at []: 1.5 before, 2.5 now",
        ),
        (
            torch.tensor([1]),
            torch.tensor([1, 2]),
            "index `edges` (closure of f) changed: (1,) int64 before, (2,) int64 now",
        ),
    ],
)
def test_what_a_guard_says(before: Tensor, now: Tensor, text: str) -> None:
    assert TensorGuard.of("edges (closure of f)", before).difference(now) == text


def test_a_guard_keeps_no_tensor_alive() -> None:
    tensor = torch.ones(3)
    guard, gone = TensorGuard.of("t", tensor), weakref.ref(tensor)
    del tensor
    gc.collect()
    assert gone() is None
    assert guard.holds(torch.ones(3), trust=True)
