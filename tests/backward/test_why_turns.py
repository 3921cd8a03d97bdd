"""Where ``pb.why`` could take a wrong turn: what is not on the way, and what cannot be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import pullback as pb

PLAIN = torch.tensor([5.0, 6.0])


def filled(x: Tensor) -> Tensor:
    buffer = x.detach().clone()
    return buffer.zero_()


@pytest.mark.parametrize(
    "other",
    [
        lambda x: PLAIN.expand_as(x),
        lambda x: PLAIN.double().to(x),
        lambda x: PLAIN.double().type_as(x),
        lambda x: PLAIN.view_as(x),
        filled,
    ],
)
def test_only_the_form_of_a_tensor_was_taken(other: Callable[[Tensor], Tensor]) -> None:
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pb.trace():
        out = (other(x) * w).sum()
    assert pb.why(x, out).code == "not_reached"


def test_a_cut_into_out() -> None:
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    buffer = torch.zeros(2)
    with pb.trace():
        with torch.no_grad():
            torch.add(x, 1, out=buffer)
        out = (buffer * w).sum()
    verdict = pb.why(x, out)
    assert verdict.code == "cut"
    assert "torch.add(x, 1, out=buffer)" in verdict.text


def test_a_reentrant_checkpoint_is_no_cut() -> None:
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pb.trace():
        out = checkpoint(lambda t: (t * w).sin(), x, use_reentrant=True).sum()
    assert (pb.why(w, out).code, pb.why(x, out).code) == ("opaque", "opaque")
    out.backward()
    assert w.grad is not None
    assert x.grad is not None


def test_hooks_in_the_graph_run_once_and_may_ask_themselves() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    codes: list[str] = []
    y.register_hook(lambda _: codes.append(pb.why(x, y).code))
    assert pb.why(x, y).code == "no_backward"
    assert codes == ["no_backward"]


def test_samples_have_a_derivative_of_zero_by_rule() -> None:
    x = torch.ones(2, requires_grad=True)
    assert pb.why(x, torch.normal(x, 1.0).sum()).code == "structural_zero"
