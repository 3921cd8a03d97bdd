"""Facts of torch's engine that taking a pass node by node rests on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node


class Enough(Exception):  # noqa: N818 - it ends a pass and reports nothing
    pass


def enough(grad_inputs: Any, grad_outputs: Any) -> None:
    raise Enough


def chain(log: list[str]) -> tuple[Tensor, Node, Node]:
    """x -> exp -> sin, where the hooks on exp's result and node are logged."""
    x = torch.ones(2, requires_grad=True)
    h = x.exp()
    y = h.sin()
    assert h.grad_fn is not None
    assert y.grad_fn is not None
    h.register_hook(lambda grad: log.append("tensor"))
    h.grad_fn.register_hook(lambda *_: log.append("node"))
    return x, h.grad_fn, y.grad_fn


def run(node: Node, end: GradientEdge) -> Any:
    return torch.autograd.grad(
        [GradientEdge(node, 0)], [end], [torch.ones(2)], retain_graph=True, allow_unused=True
    )


def test_a_captured_cotangent_has_been_through_the_hooks_of_its_tensor() -> None:
    """Why a step is not simply a pass from a node to the edges below it."""
    log: list[str] = []
    _, exp, sin = chain(log)
    run(sin, GradientEdge(exp, 0))
    assert log == ["tensor"]


def test_an_exception_of_a_hook_after_a_node_ends_the_pass_there() -> None:
    log: list[str] = []
    _, exp, sin = chain(log)
    handle = sin.register_hook(enough)
    with pytest.raises(Enough):
        run(sin, GradientEdge(exp, 0))
    handle.remove()
    assert log == []
    run(sin, GradientEdge(exp, 0))  # and the graph is as it was


def test_capturing_at_the_root_runs_its_tensor_hooks_and_nothing_else() -> None:
    log: list[str] = []
    _, exp, _ = chain(log)
    run(exp, GradientEdge(exp, 0))
    assert log == ["tensor"]


def test_capturing_on_the_way_sees_the_cotangent_before_its_hooks() -> None:
    x = torch.ones(2, requires_grad=True)
    h = x * 1
    h.register_hook(lambda grad: grad * 10)
    at_h, at_x = torch.autograd.grad(h.sum(), [h, x])
    assert (at_h[0], at_x[0]) == (1, 10)


def test_a_node_computes_only_what_is_captured_below_it() -> None:
    """Why a step asks for every edge, though one would do to start the engine."""
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    node = (a * b).grad_fn
    assert node is not None
    sent: list[Any] = []
    node.register_hook(lambda gi, go: sent.append(gi))
    ends = [GradientEdge(*edge) for edge in node.next_functions]  # type: ignore[arg-type]
    run(node, ends[0])
    assert sent[0][1] is None


def test_a_prehook_may_take_a_cotangent_away() -> None:
    """How a node is run that has received nothing."""
    log: list[str] = []
    _, exp, sin = chain(log)
    sent: list[Any] = []
    sin.register_prehook(lambda grads: (None,))  # type: ignore[arg-type, return-value]
    sin.register_hook(lambda gi, go: sent.append(gi))
    run(sin, GradientEdge(exp, 0))
    assert sent == [(None,)]


def test_the_accumulator_can_be_the_root_of_a_pass() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    assert y.grad_fn is not None
    ((accumulator, _),) = y.grad_fn.next_functions
    assert accumulator is not None
    value = torch.full((2,), 3.0)
    torch.autograd.backward([GradientEdge(accumulator, 0)], [value])
    assert x.grad is not None
    assert torch.equal(x.grad, value)
    assert x.grad.data_ptr() != value.data_ptr()
