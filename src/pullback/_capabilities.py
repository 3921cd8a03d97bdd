"""Every private fact of torch that pullback rests on, tried on the installed version.

``pullback doctor`` prints these probes and ``tests/contracts`` holds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from ._nodeprobes import (
    probe_alone,
    probe_engine_frames,
    probe_first_freed,
    probe_freed,
    probe_hooks,
    probe_leaf,
    probe_metadata,
    probe_overwritten,
    probe_refused,
    probe_retaining,
    probe_sequence,
    probe_single_nodes,
    probe_slots,
    probe_task,
)
from ._settings import device_mode, dict_version, forms_check, one_fake_mode, settings_check
from ._torch import (
    can_map,
    derivatives_yaml,
    expected_at,
    graph_module,
    is_transform_tensor,
    mapped,
    needs_gradient,
    outside_transforms,
    overheard,
    plain_sample,
    running_node,
    running_transform,
    runs_a_formula,
)
from ._tracing import recorded


@dataclass(frozen=True)
class Capability:
    """One private fact: what it is for, whether it holds here, what is lost without it."""

    name: str
    holds: bool
    detail: str
    without: str


def _probe_transform() -> bool:
    inside: list[str | None] = []

    def look(x: Tensor) -> Tensor:
        inside.append(running_transform() if is_transform_tensor(x) else None)
        return x.sum()

    torch.func.grad(look)(torch.ones(1))
    return inside == ["grad"] and running_transform() is None


def _probe_formulas() -> bool:
    return re.search(r"^- name: sqrt\(", derivatives_yaml(), re.MULTILINE) is not None


class _Watch(TorchDispatchMode):
    """Notes which node runs at each call, and whether torch's own formula made the call."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[str, bool]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        node = running_node()
        if node is not None:
            self.seen.add((node.name, runs_a_formula()))
        return func(*args, **(kwargs or {}))


def _probe_running_node() -> bool:
    x = torch.ones(2, requires_grad=True)
    inner = x * 2
    # From a string: a hook in this file would count as pullback's own frame.
    inner.register_hook(eval("lambda g: g.exp()"))
    y = inner.sin()
    with _Watch() as watch:
        torch.autograd.grad(y, x, torch.ones(2))
    expected = {("SinBackward0", True), ("MulBackward0", True), ("MulBackward0", False)}
    return bool(watch.seen == expected)


def _probe_plain_sample() -> bool:
    rows = torch.arange(6.0).reshape(2, 3)
    found: list[Tensor] = []

    def look(row: Tensor) -> Tensor:
        with outside_transforms():
            found.append(plain_sample(row) * 1)
        return row

    torch.func.vmap(look)(rows)
    same = bool(torch.equal(found[0], rows[0]))
    return same and not is_transform_tensor(found[0])


def _probe_settings() -> bool:
    check = settings_check()
    if check is None or not check() or device_mode() is ...:
        return False
    with torch.no_grad():
        without = check()
    with torch.autocast("cpu"):
        cast = check()
    with torch.device("cpu"):
        return not without and not cast and device_mode() is ...


def _probe_forms() -> bool:
    x = torch.ones(2, 3)
    check = forms_check([x])
    others = (x.double(), x.t(), x[:1], torch.nn.Parameter(x), torch._neg_view(x))
    return check is not None and check(torch.zeros(2, 3)) and not any(map(check, others))


class _Plain:
    """An object with attributes."""


def _probe_versions() -> bool:
    if dict_version is None:
        return False
    one, two = _Plain(), _Plain()
    seen = set()
    for k in range(100):  # often enough for Python to specialise the write
        for value in (one, two):
            value.entry = k  # type: ignore[attr-defined]
            seen.add(dict_version(value.__dict__))
    unchanged = dict_version(one.__dict__) in seen
    return unchanged and len(seen) == 200


def _probe_graph_module() -> bool:
    graph = fx.Graph()
    graph.output(graph.call_function(torch.exp, (graph.placeholder("x"),)))
    module = graph_module(torch.nn.Module(), graph)
    waiting = "_code" not in vars(module)
    x = torch.ones(2)
    return waiting and bool(torch.equal(module(x), x.exp()))


def _probe_one_mode() -> bool:
    with one_fake_mode():
        graph = recorded(lambda x: x.exp().sin(), torch.ones(2)).graph
    modes = {id(node.meta["val"].fake_mode) for node in graph.nodes if "val" in node.meta}
    return len(modes) == 1


class _Doubling(torch.autograd.Function):
    """What a probe listens to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return (2 * v).expand(3, 2)


def _probe_overheard() -> bool:
    x = torch.ones(2, requires_grad=True)
    y = _Doubling.apply(x)  # type: ignore[no-untyped-call]
    node, seen = y.grad_fn, []

    def heard(cotangents: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        seen.append(tuple(run().shape))
        return cotangents[0]

    with overheard(node, heard):
        (grad,) = torch.autograd.grad(y, x, torch.ones(2))
    child, slot = node.next_functions[0]
    expects = expected_at(child, slot).shape == (2,) and needs_gradient(node) == (True,)
    return seen == [(3, 2)] and bool(torch.equal(grad, torch.ones(2))) and expects


def _probe_batching() -> bool:
    x, y = torch.rand(3, 2), torch.rand(3, 4)

    def product(given: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        a, b = given
        return a.sum() * b, None, torch.ones(2)

    first, none, last = mapped(product, [x, y])
    assert first is not None
    assert last is not None
    here = torch.equal(first, x.sum(1, keepdim=True) * y) and last.shape == (3, 2)
    return can_map and here and none is None and running_transform() is None


_PROBES: tuple[tuple[str, Callable[[], bool], str], ...] = (
    ("leaf of an AccumulateGrad node", probe_leaf, "leaves are numbered, not named"),
    ("sequence numbers of nodes", probe_sequence, "pb.trace() finds no user calls"),
    ("metadata kept on nodes", probe_metadata, "pb.trace() finds no user calls"),
    ("shapes a node expects", probe_slots, "undefined cotangents have no shape"),
    ("hooks of a node", probe_hooks, "hooks on nodes are not named"),
    ("freed tensors of a node", probe_freed, "a freed graph is reported without the node"),
    ("freed nodes, without unpacking", probe_first_freed, "pb.step meets a freed graph later"),
    ("hooks around single nodes", probe_single_nodes, "pb.step does not work"),
    ("frames of the engine", probe_engine_frames, "pb.diagnose finds no outputs by itself"),
    ("saved tensors written over", probe_overwritten, "in-place errors name no node and no line"),
    ("refused parameters", probe_refused, "a non-leaf given to an optimizer is not named"),
    ("tensors that retain their gradient", probe_retaining, "a look may fill their .grad"),
    ("number of the running pass", probe_task, "passes of other threads mix into a record"),
    ("a node run alone", probe_alone, "pb.find_nonfinite shows no operands and proves no fix"),
    ("running torch.func transforms", _probe_transform, "torch's own error appears there"),
    ("the node that runs", _probe_running_node, "nonlinear hooks are found by trial alone"),
    ("a batched tensor's first entry", _probe_plain_sample, "no plan is made inside vmap"),
    ("batches of flat tensors", _probe_batching, "batches of small products are slower"),
    ("settings at one look", _probe_settings, "every call checks all anew, and is slower"),
    ("forms of tensors at one look", _probe_forms, "every call checks all anew, and is slower"),
    ("versions of dictionaries", _probe_versions, "modules are read anew at every call"),
    ("modules that wait with their code", _probe_graph_module, "plans take longer to make"),
    ("what a custom backward returns", _probe_overheard, "pb.audit sees no wrong shapes"),
    ("one fake mode for a graph", _probe_one_mode, "plans take longer to make"),
    ("derivatives.yaml", _probe_formulas, "records quote no formulas"),
)


def capabilities() -> list[Capability]:
    """Try every private fact on the installed torch."""
    found = []
    for name, probe, without in _PROBES:
        try:
            holds, detail = probe(), ""
        except Exception as error:  # a probe that breaks in any way is a fact that does not hold
            holds, detail = False, f"{type(error).__name__}: {error}"
        found.append(Capability(name, holds, detail, without))
    return found
