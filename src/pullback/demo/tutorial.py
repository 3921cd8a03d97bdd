"""A tensor-valued output and its backward pass, twice, with the gradient zeroed in between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import pullback as pb


@dataclass(frozen=True)
class FirstSteps:
    """The tensors of the example, and ``inp.grad`` after each of the three calls."""

    inp: Tensor
    out: Tensor
    record: pb.BackwardRecord
    explanation: pb.Explanation
    first_call: Tensor
    second_call: Tensor
    after_zeroing: Tensor


def first_steps() -> FirstSteps:
    """``out = (inp + 1).pow(2).t()`` at an identity-like ``inp``, weighed with ones."""
    inp = torch.eye(4, 5, requires_grad=True)
    with pb.trace():
        out = (inp + 1).pow(2).t()
    ones = pb.cotangents.ones(out)
    explanation = pb.explain(out, ones, inputs={"inp": inp})
    record = pb.record(out, ones, inputs={"inp": inp}, accumulate=True, retain_graph=True)
    first = _grad(inp)
    out.backward(ones, retain_graph=True)
    second = _grad(inp)
    assert inp.grad is not None
    inp.grad.zero_()
    out.backward(ones)
    return FirstSteps(inp, out, record, explanation, first, second, _grad(inp))


def _grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad.clone()


@dataclass(frozen=True)
class Exercise:
    """The exercise: what a weight on the first row of ``out`` does to ``inp.grad``."""

    inp: Tensor
    out: Tensor
    first_row: Tensor
    weighed: pb.Sensitivity


def exercise() -> Exercise:
    """``out = (inp + 10).pow(3).t()``: the first row alone, then three weighings that add to 1."""
    inp = torch.eye(4, 5, requires_grad=True)
    out = (inp + 10).pow(3).t()
    v = pb.cotangents.rows(out, {0: 1.0})
    record = pb.record(out, v, inputs={"inp": inp})
    weighed = pb.sensitivity(
        out,
        {"inp": inp},
        {
            "uniform": pb.cotangents.normalized(pb.cotangents.ones(out)),
            "first row": pb.cotangents.normalized(v),
            "last row": pb.cotangents.normalized(pb.cotangents.rows(out, {-1: 1.0})),
        },
    )
    return Exercise(inp, out, record.deposits["inp"], weighed)
