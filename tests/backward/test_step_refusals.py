"""What ``pb.step`` and its stepper refuse: the whole text of each refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import pullback as pb

from .test_step import diamond, ones, refused


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (
            lambda s: s.until(),
            "until what? Pass nonfinite=True, norm_ratio=10.0, op='Exp', line='model.py:12' (or "
            "line=12), or a function of the step that says when to stop.",
        ),
        (
            lambda s: s.until(op="Tanh"),
            "no node of this pass is named 'Tanh'; there are Sum, Mul, Cos, Sin, Exp, "
            "AccumulateGrad.",
        ),
        (
            lambda s: s.until(line=3),
            "no node of this pass knows the line that made it. Compute the outputs inside `with "
            "pb.trace():`.",
        ),
        (
            lambda s: s.until(norm_ratio=1),
            "`norm_ratio` is 1; it must be above 1 to stop where the norm grows so much in a step, "
            "or between 0 and 1 to stop where it shrinks so much.",
        ),
        (lambda s: s.until(norm_ratio="big"), "`norm_ratio` is a str; it must be a number."),
        (lambda s: s.until(nonfinite=1), "`nonfinite` is 1; it must be True or False."),
        (
            lambda s: s.until("Exp"),
            "`predicate` is a str; it must be a function of the step that says when to stop, such "
            "as lambda step: step.norm_ratio > 10.",
        ),
        (
            lambda s: s.upstream("Exp"),
            "`node` is a str; it must be one of the stepper's `nodes`, or its number.",
        ),
        (
            lambda s: s.upstream(6),
            "`node` is 6, but the pass has 6 nodes, numbered from 0.",
        ),
        (lambda s: s.upstream(slot=1), "`slot` is 1, but SumBackward0 #0 has only slot 0."),
        (
            lambda s: s.back(),
            "nothing has been done yet: this is the start of the pass.",
        ),
        (
            lambda s: (s.finish(), s.next()),
            "the pass is over, all 6 nodes have run. back() undoes the last step; finish() gives "
            "the deposits.",
        ),
        (
            lambda s: (s.finish(accumulate=True), s.back()),
            "finish(accumulate=True) has added the deposits of this pass to .grad, which is "
            "neither undone nor done twice. Begin anew with pb.step(...).",
        ),
        (lambda s: s.finish(accumulate=1), "`accumulate` is 1; it must be True or False."),
        (
            lambda s: s.edit(2.0),
            "SumBackward0 #0 was to receive a float, not a tensor. Pass a tensor of shape (), or a "
            "function that makes one from what arrived.",
        ),
        (
            lambda s: s.edit(torch.ones(3)),
            "the tensor has shape (3,), but SumBackward0 #0 receives a cotangent of shape (); the "
            "two are paired entry by entry.",
        ),
        (
            lambda s: s.edit(lambda t: t.double()),
            "the tensor has dtype float64, but SumBackward0 #0 receives a cotangent of dtype "
            "float32. Write .to(torch.float32).",
        ),
        (
            lambda s: s.edit(torch.ones((), device="meta")),
            "the tensor is on meta, but SumBackward0 #0 receives its cotangent on cpu. Write "
            ".to('cpu').",
        ),
    ],
)
def test_refusals_at_the_prompt(ask: Callable[[pb.Stepper], Any], text: str) -> None:
    s = pb.step(diamond()[1])
    with pytest.raises(pb.PullbackError, match=rf"^stepper\.\w+: {re.escape(text)}$"):
        ask(s)


def test_refusals_are_those_of_a_record() -> None:
    x = ones()
    out = x.exp()
    with pytest.raises(pb.CotangentError, match=r"^pb\.step: `out` has shape \(3,\): 3 numbers"):
        pb.step(out)
    with pytest.raises(pb.CotangentError, match=r"^pb\.step: the cotangent `cotangents` has shape"):
        pb.step(out, torch.ones(4))
    with pytest.raises(pb.GraphError, match=r"^pb\.step: `x` has no autograd graph"):
        pb.step({"x": torch.ones(3)}, {"x": torch.ones(3)})
    refused(
        pb.ArgumentError,
        "pb.step: `budget` is -1; it must be a whole number of bytes, from 0 on (0: nothing is "
        "kept, and back() is not possible).",
        lambda: pb.step(out, torch.ones(3), budget=-1),
    )


def test_a_freed_graph_is_refused_and_named() -> None:
    x = ones()
    out = (x.exp() + 2).sum()
    out.backward()
    refused(
        pb.GraphError,
        "pb.step: the graph behind `out` was freed by an earlier backward; ExpBackward0 needs what "
        "it had saved. Compute `out` again, or give that earlier call retain_graph=True (torch "
        "frees by default, pb.record does not).",
        lambda: pb.step(out),
    )


def test_a_graph_that_is_freed_on_the_way_is_refused_there() -> None:
    x = ones()
    out = (x.exp() + 2).sum()
    s = pb.step(out)
    s.next()
    out.backward()
    s.next()
    with pytest.raises(pb.GraphError, match="freed by an earlier backward; ExpBackward0 needs"):
        s.next()
    assert s.node.name == "ExpBackward0"


def test_a_reentrant_checkpoint_is_refused() -> None:
    x = ones()
    out = checkpoint(torch.exp, x, use_reentrant=True).sum()
    with pytest.raises(pb.UnsupportedError, match=r"^pb\.step: the graph holds a reentrant"):
        pb.step(out)
