"""A captured graph tried out at a second point before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .. import _checks
from .._engines import gradients
from .._errors import PullbackError
from .arguments import (
    Arguments,
    as_real,
    devices_of,
    fresh,
    fresh_others,
    in_layout,
    strides_of,
)
from .captured import Captured, NotCaptured
from .detect import detect
from .tape import Tape
from .trial import Trial, perturbed, same, weights


def try_out(
    caller: str,
    captured: Captured,
    func: Callable[..., Any],
    arguments: Arguments,
    tape: Tape,
    tensors: Sequence[Tensor],
) -> None:
    """At a point a few percent away or, where the function has no value there, much nearer."""
    for step in (1e-2, 1e-5):
        try:
            _try_out_at(caller, captured, func, arguments, tape, tensors, step)
            return
        except (NotCaptured, PullbackError):
            raise
        except Exception as error:
            tape.restore()
            reason = _checks.first_line(error)
    raise NotCaptured(f"it cannot be tried out at a second point: {reason}")


def _try_out_at(
    caller: str,
    captured: Captured,
    func: Callable[..., Any],
    arguments: Arguments,
    tape: Tape,
    tensors: Sequence[Tensor],
    step: float,
) -> None:
    """Trust the graph only if it agrees with the function at another point, and is linear there."""
    cut = len(captured.owned)
    primals = [in_layout(perturbed(t, step), strides_of(t)) for t in arguments.primals]
    inputs = [fresh(t) for t in tensors[:cut]] + primals + [fresh(t) for t in arguments.others]
    like = tensors[len(inputs) :]
    given = (weights(like), weights(like))
    devices = devices_of(tensors)
    with torch.random.fork_rng(devices=devices):
        leaves = [fresh(t).requires_grad_() for t in primals]
        with torch.enable_grad():
            returned = arguments.call(func, leaves, fresh_others(arguments))
        returned = returned[0] if captured.aux is not None else returned
        outputs = [as_real(t) for t in pytree.tree_leaves(returned)]
        truth = gradients(outputs, leaves, given[0], retain_graph=False)
    tape.restore()
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        loose = captured.graph.rounding
        handed, values = captured.run_forward(inputs)
        trial = Trial.on(lambda v: captured.run_linear(handed, v), given, loose)
        pairs = [*zip(trial.of_first, truth, strict=True), *zip(values, outputs, strict=False)]
        if not all(same(a, b, loose) for a, b in pairs):
            raise NotCaptured("its replay at another point differs from the function itself")
        if not trial.is_linear():
            detect(caller, captured.graph)  # names the operator, where a rule knows it
            raise _checks.nonlinear_backward(caller)
        captured.batches = trial.batches_well()
