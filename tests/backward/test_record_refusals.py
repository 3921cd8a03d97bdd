"""The whole text of every refusal of ``pb.record``; ``pb.explain`` shares them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import pullback as pb

EXERCISE = """\
pb.record: `out` has shape (5, 4): 20 numbers, not one, so there are 20 gradients, one per entry. \
`cotangents` must say which weighted sum of them is meant, with one weight per entry. For instance:
  torch.ones_like(out)
      the gradient of out.sum()
      leaf 0 (4, 5): entries from 2 to 4, sum 48
  torch.ones_like(out) / 20
      the gradient of out.mean()
      leaf 0 (4, 5): entries from 0.1 to 0.2, sum 2.4
  pb.cotangents.one_hot(out, (0, 0))
      one row of the Jacobian: the gradient of out[0, 0] alone
      leaf 0 (4, 5): entries from 0 to 4, sum 4"""


def refused(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$") as caught:
        call()
    assert isinstance(caught.value, pb.PullbackError)


def tutorial() -> torch.Tensor:
    return (torch.eye(4, 5, requires_grad=True) + 1).pow(2).t()


def test_no_cotangent_for_a_tensor_offers_three() -> None:
    out = tutorial()
    refused(pb.CotangentError, EXERCISE, lambda: pb.record(out))


def test_no_cotangent_on_a_freed_graph_offers_without_numbers() -> None:
    x = torch.ones(2, requires_grad=True)
    out = x.exp()
    out.sum().backward()
    text = """\
pb.record: `out` has shape (2,): 2 numbers, not one, so there are 2 gradients, one per entry. \
`cotangents` must say which weighted sum of them is meant, with one weight per entry. For instance:
  torch.ones_like(out)
      the gradient of out.sum()
  torch.ones_like(out) / 2
      the gradient of out.mean()
  pb.cotangents.one_hot(out, (0,))
      one row of the Jacobian: the gradient of out[0] alone"""
    refused(pb.CotangentError, text, lambda: pb.record(out))


@pytest.mark.parametrize(
    ("v", "text"),
    [
        (
            torch.ones(4, 5),
            "the cotangent `cotangents` has shape (4, 5), but `out` has shape (5, 4); the two are "
            "paired entry by entry. They differ at axis 0 (4 against 5) and axis 1 (5 against 4). "
            "Write cotangents.t() if its rows are the columns of `out`, or "
            "cotangents.reshape((5, 4)) if its entries are already in C order.",
        ),
        (
            torch.ones(20),
            "the cotangent `cotangents` has shape (20,), but `out` has shape (5, 4); the two are "
            "paired entry by entry. One has 1 axis, the other 2 axes. Write "
            "cotangents.reshape((5, 4)) if its entries are already in C order.",
        ),
        (
            torch.ones(4),
            "the cotangent `cotangents` has shape (4,), but `out` has shape (5, 4); the two are "
            "paired entry by entry. One has 1 axis, the other 2 axes. Write "
            "cotangents.expand((5, 4)) to repeat it along the missing axes.",
        ),
        (
            torch.ones(3, 3),
            "the cotangent `cotangents` has shape (3, 3), but `out` has shape (5, 4); the two are "
            "paired entry by entry. They differ at axis 0 (3 against 5) and axis 1 (3 against 4). "
            "Write torch.ones_like(out) and scale the entries that matter.",
        ),
        (
            torch.ones(5, 4, dtype=torch.float64),
            "the cotangent `cotangents` has dtype float64, but `out` has dtype float32. Write "
            "cotangents.to(out.dtype).",
        ),
        (
            torch.ones(5, 4, device="meta"),
            "the cotangent `cotangents` is on meta, but `out` is on cpu. Write "
            "cotangents.to(out.device).",
        ),
        (
            2.0,
            "the cotangent `cotangents` for `out` is a float, not a tensor. Write "
            "torch.full_like(out, value) for one weight everywhere.",
        ),
    ],
)
def test_a_cotangent_that_does_not_pair(v: Any, text: str) -> None:
    out = tutorial()
    refused(pb.CotangentError, f"pb.record: {text}", lambda: pb.record(out, v))


def test_cotangents_in_another_structure() -> None:
    x = torch.ones(2, requires_grad=True)
    outputs = {"a": x.exp(), "b": (x.sin(),)}
    text = (
        "pb.record: `cotangents` is laid out as [tensor, tensor], but the outputs are laid out as "
        "{'a': tensor, 'b': (tensor,)}; the two are paired leaf by leaf. Pass one cotangent per "
        "output, in the same structure."
    )
    refused(pb.CotangentError, text, lambda: pb.record(outputs, [torch.ones(2), torch.ones(2)]))


def test_outputs_without_a_graph() -> None:
    plain, number = torch.ones(2), torch.ones(2).argmax()
    refused(
        pb.GraphError,
        "pb.record: `plain` has no autograd graph (requires_grad is False), so nothing can flow "
        "back from it. Make an input with requires_grad=True before computing `plain`, and look "
        "for torch.no_grad(), .detach(), .data or .item() on the way to it.",
        lambda: pb.record(plain, plain),
    )
    refused(
        pb.GraphError,
        "pb.record: `number` has dtype int64, and only floating point and complex tensors carry "
        "gradients. Differentiate the values before they were rounded, compared or turned into "
        "indices.",
        lambda: pb.record(number),
    )


def test_outputs_that_are_not_tensors() -> None:
    x = torch.ones(1, requires_grad=True)
    refused(
        pb.TreeError,
        "pb.record: `outputs[1]` is a float, not a tensor. Pass a tensor, or a tuple, list or dict "
        "of tensors.",
        lambda: pb.record([x.exp(), 2.0]),
    )
    refused(
        pb.TreeError,
        "pb.record: `outputs` holds no tensors. Pass at least one.",
        lambda: pb.record([]),
    )


def test_a_freed_graph_names_the_node() -> None:
    out = torch.ones(2, requires_grad=True).exp().neg()
    out.sum().backward()
    text = (
        "pb.record: the graph behind `out` was freed by an earlier backward; ExpBackward0 needs "
        "what it had saved. Compute `out` again, or give that earlier call retain_graph=True "
        "(torch frees by default, pb.record does not)."
    )
    refused(pb.GraphError, text, lambda: pb.record(out, torch.ones(2)))


def test_inside_a_transform() -> None:
    def func(x: torch.Tensor) -> torch.Tensor:
        y = x.exp().sum()
        pb.record(y)
        return y

    text = (
        "pb.record: called inside a running torch.func.grad, whose graph torch keeps to itself and "
        "takes apart when it returns. Call pb.record on tensors outside the transform, or take "
        "products inside it with pb.vjp."
    )
    refused(pb.UnsupportedError, text, lambda: torch.func.grad(func)(torch.ones(2)))


def test_a_look_at_a_reentrant_checkpoint() -> None:
    x = torch.ones(2, requires_grad=True)
    out = checkpoint(torch.exp, x, use_reentrant=True)
    text = (
        "pb.record: the graph holds a reentrant checkpoint, which torch only runs in a backward "
        "that writes .grad. Use torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or "
        "pb.record(..., accumulate=True)."
    )
    refused(pb.UnsupportedError, text, lambda: pb.record(out, torch.ones(2)))


def test_inputs_that_cannot_receive_a_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    out = x.sum()
    refused(
        pb.ArgumentError,
        "pb.record: `c` in `inputs` does not require a gradient. Leave it out, or call "
        ".requires_grad_() on it before the outputs are computed.",
        lambda: pb.record(out, inputs={"c": torch.ones(2)}),
    )
    refused(
        pb.ArgumentError,
        "pb.record: `i` in `inputs` has dtype int64, and only floating point and complex tensors "
        "receive gradients. Leave it out.",
        lambda: pb.record(out, inputs={"i": torch.arange(2)}),
    )


def test_keep() -> None:
    x = torch.ones(1, requires_grad=True)
    refused(
        pb.ArgumentError,
        "pb.record: `keep` is 'all'; it must be 'stats' or 'tensors'.",
        lambda: pb.record(x.exp(), keep="all"),
    )


def test_errors_of_the_users_own_graph_pass_through() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    out = y.exp()
    out.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pb.record(out, torch.ones(2))
