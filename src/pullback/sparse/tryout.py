"""A captured graph tried out at a second point before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
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
from .detect import detect, linear_by_rule
from .tape import Tape
from .trial import Trial, perturbed, same, shuffled, weights


def try_out(
    caller: str,
    captured: Captured,
    func: Callable[..., Any],
    arguments: Arguments,
    tape: Tape,
    tensors: Sequence[Tensor],
    masks: Sequence[fx.Node] = (),
) -> None:
    """At a point a few percent away or, where the function has no value there, much nearer.

    A graph with ``masks`` in where-form is tried where they hold another number of entries, too.
    """
    trial = _Trials(caller, captured, func, arguments, tape, tensors)
    trial.near_by()
    if masks:
        trial.at_other_counts(masks)


@dataclass
class _Trials:
    caller: str
    captured: Captured
    func: Callable[..., Any]
    arguments: Arguments
    tape: Tape
    tensors: Sequence[Tensor]

    def near_by(self) -> None:
        reason = ""
        for step in (1e-2, 1e-5):
            try:
                self._at([perturbed(t, step) for t in self.arguments.primals])
                return
            except (NotCaptured, PullbackError):
                raise
            except Exception as error:
                self.tape.restore()
                reason = _checks.first_line(error)
        raise NotCaptured(f"it cannot be tried out at a second point: {reason}")

    def at_other_counts(self, masks: Sequence[fx.Node]) -> None:
        """A number of entries baked into the graph shows where there is another number."""
        try:
            before = self._counts(self.arguments.primals, masks)
        except KeyError:
            raise NotCaptured("its masks are not all left in its graph") from None
        for attempt in range(8):
            primals = [shuffled(t, flip=attempt % 2 == 1) for t in self.arguments.primals]
            try:
                counts = self._counts(primals, masks)
                if all(a != b for a, b in zip(counts, before, strict=True)):
                    self._at(primals)
                    return
            except (NotCaptured, PullbackError):
                raise
            except Exception:  # no value there: the next point may have one
                self.tape.restore()
        raise NotCaptured("its masks hold as many entries wherever it was tried out")

    def _counts(self, primals: Sequence[Tensor], masks: Sequence[fx.Node]) -> list[int]:
        with torch.random.fork_rng(devices=devices_of(self.tensors)), torch.no_grad():
            weights = [t.detach() for t in self.tensors[len(self._inputs(primals)) :]]
            return self.captured.graph.counts([*self._inputs(primals), *weights], masks)

    def _inputs(self, primals: Sequence[Tensor]) -> list[Tensor]:
        cut = len(self.captured.owned)
        laid_out = [
            in_layout(p, strides_of(t))
            for p, t in zip(primals, self.arguments.primals, strict=True)
        ]
        owned = [fresh(t) for t in self.tensors[:cut]]
        return owned + laid_out + [fresh(t) for t in self.arguments.others]

    def _at(self, primals: Sequence[Tensor]) -> None:
        """The graph must agree with the function here, and be linear in the cotangents."""
        captured, arguments = self.captured, self.arguments
        inputs = self._inputs(primals)
        cut = len(captured.owned)
        like = self.tensors[len(inputs) :]
        given = (weights(like), weights(like))
        devices = devices_of(self.tensors)
        with torch.random.fork_rng(devices=devices):
            leaves = [fresh(t).requires_grad_() for t in inputs[cut : cut + len(primals)]]
            with torch.enable_grad():
                returned = arguments.call(self.func, leaves, fresh_others(arguments))
                returned = returned[0] if captured.aux is not None else returned
                outputs = [as_real(t) for t in pytree.tree_leaves(returned)]
            truth = gradients(outputs, leaves, given[0], retain_graph=False)
        self.tape.restore()
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            loose = captured.graph.rounding
            handed, values = captured.run_forward(inputs)
            trial = Trial.on(lambda v: captured.run_linear(handed, v), given, loose)
            pairs = [*zip(trial.of_first, truth, strict=True), *zip(values, outputs, strict=False)]
            if not all(same(a, b, loose) for a, b in pairs):
                raise NotCaptured("its replay at another point differs from the function itself")
            if not trial.is_linear(linear_by_rule(captured.graph)):
                detect(self.caller, captured.graph)  # names the operator, where a rule knows it
                raise _checks.nonlinear_backward(self.caller)
            captured.batches = trial.batches_well()
