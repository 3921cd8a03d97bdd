"""Facts of torch that pullback rests on, each tried on the installed version."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd.graph import get_gradient_edge

from pullback._capabilities import Capability, capabilities
from pullback._torch import overwritten, saved_tensors_kept


@pytest.mark.parametrize("capability", capabilities(), ids=lambda c: c.name)
def test_every_capability_holds(capability: Capability) -> None:
    assert capability.holds, capability.detail


def test_autograd_grad_fills_the_grad_of_retaining_tensors() -> None:
    """Why a look saves and restores them."""
    x = torch.ones(2, requires_grad=True)
    h = x.exp()
    h.retain_grad()
    torch.autograd.grad(h.sum(), x, retain_graph=True)
    assert h.grad is not None


def test_autograd_grad_runs_tensor_hooks_but_not_those_of_the_accumulator() -> None:
    seen: list[str] = []
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda grad: seen.append("tensor"))
    x.register_post_accumulate_grad_hook(lambda t: seen.append("post"))
    y = x.exp().sum()
    torch.autograd.grad(y, x)
    assert seen == ["tensor"]


def test_a_contribution_is_handed_on_as_the_same_tensor() -> None:
    """Why a contribution is measured once."""
    sent, received = [], []
    y = torch.ones(2, requires_grad=True).sin()
    z = y.exp()
    assert z.grad_fn is not None
    assert y.grad_fn is not None
    z.grad_fn.register_hook(lambda gi, go: sent.append(gi[0]))
    y.grad_fn.register_hook(lambda gi, go: received.append(go[0]))
    z.sum().backward()
    assert sent[0] is received[0]


def test_the_engine_adds_contributions_in_the_order_of_arrival() -> None:
    """(a + b) + c is not a + (b + c); conservation to the last bit needs the engine's order."""
    x = torch.ones(1, requires_grad=True)
    h = x * 1
    order: list[float] = []
    parts = [h * 1e8, h * -1e8, h * 1.0]
    for part in parts:
        assert part.grad_fn is not None
        part.grad_fn.register_hook(lambda gi, go: order.append(float(gi[0])))
    sum(parts[1:], parts[0]).backward()
    total = torch.zeros(1)
    for value in order:
        total = total + value
    assert x.grad is not None
    assert torch.equal(x.grad, total)


def test_a_gradient_with_one_owner_is_stolen_not_copied() -> None:
    """Why deposits are copied before the accumulator runs."""
    x = torch.ones(2, requires_grad=True)
    passed = []
    (x * 2).backward(torch.ones(2))
    x.grad = None
    y = x * 2
    assert y.grad_fn is not None
    y.grad_fn.register_hook(lambda gi, go: passed.append(gi[0].data_ptr()))
    y.backward(torch.ones(2))
    assert x.grad is not None
    assert x.grad.data_ptr() == passed[0]


def test_create_graph_false_inside_a_transform_loses_the_derivative() -> None:
    """Why a pull asks for a graph there: the result is a silent zero."""
    x = torch.ones(2, requires_grad=True)
    y = x.exp()

    def square(v: torch.Tensor) -> torch.Tensor:
        (g,) = torch.autograd.grad(y, x, v, retain_graph=True)
        return (g**2).sum()

    assert torch.equal(torch.func.grad(square)(torch.ones(2)), torch.zeros(2))


def test_a_failing_node_keeps_what_it_saved_and_those_before_it_do_not() -> None:
    """Why the node that met a tensor written in place can be found after the error."""
    x = torch.ones(2, requires_grad=True)
    b = x.exp()
    c = b.tanh()
    b += 1
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        (c * b).sum().backward()
    assert b.grad_fn is not None
    exp = b.grad_fn.next_functions[0][0]
    assert exp is not None
    assert [found.name for found in overwritten(exp)] == ["result"]


def test_copies_of_saved_tensors_make_a_write_harmless() -> None:
    """Why running again under this mode proves that the writes are the whole cause."""
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with saved_tensors_kept():
        b = x.exp()
        b += 1
        b.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, x.exp())


def test_torchs_own_mode_misses_writes_through_views_with_an_offset() -> None:
    """Why the copies are made by hooks."""
    gradients = []
    for mode in (torch.autograd.graph.allow_mutation_on_saved_tensors, saved_tensors_kept):
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        with mode():
            b = x.exp()
            b[1:] += 1
            b.sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], x.detach().exp())
    assert not torch.allclose(*gradients)


def test_reading_a_written_tensor_runs_no_hooks_of_the_user() -> None:
    unpacked = []

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        unpacked.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        y = torch.ones(2, requires_grad=True).exp()
    assert y.grad_fn is not None
    assert overwritten(y.grad_fn) == []
    assert unpacked == []


class _Twice(torch.autograd.Function):
    """Returns a gradient of a shape that its input does not have."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        return torch.stack([v, v])


def test_a_gradient_of_a_wrong_shape_is_summed_before_any_hook_sees_it() -> None:
    """Why ``pb.audit`` listens at ``apply``; the node asks for it anew in every pass."""
    x = torch.ones(3, requires_grad=True)
    y = _Twice.apply(x)
    seen: list[tuple[int, ...]] = []
    y.grad_fn.register_hook(lambda sent, came: seen.append(tuple(sent[0].shape)))
    apply = y.grad_fn.apply

    def instead(*cotangents: torch.Tensor) -> Any:
        returned = apply(*cotangents)
        seen.append(tuple(returned.shape))
        return returned

    y.grad_fn.apply = instead
    torch.autograd.grad(y.sum(), x, retain_graph=True)
    del y.grad_fn.apply
    torch.autograd.grad(y.sum(), x)
    assert seen == [(2, 3), (3,), (3,)]


def test_the_tensors_that_a_node_saved_lead_where_its_gradients_go() -> None:
    """How ``pb.audit`` knows an input of forward again."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, n: int, y: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(y, x)
            return n * x * y

        @staticmethod
        def backward(ctx: Any, v: torch.Tensor) -> Any:
            raise NotImplementedError

    x = torch.ones(3, requires_grad=True)
    node = Product.apply(x, 2, x.exp()).grad_fn
    places = [(e.node, e.output_nr) for e in map(get_gradient_edge, node.saved_tensors)]
    assert places == list(reversed(node.next_functions))
    assert node.needs_input_grad == (True, False, True)
