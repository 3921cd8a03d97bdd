"""The backward of softmax and its kin: dense along one dim."""

from __future__ import annotations

from .axes import alone, mixed
from .base import Result, Step, rule


@rule("_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward", "grad_output")
def _softmax_backward(step: Step) -> Result:
    dep = alone(step, "grad_output")
    rank = len(dep.shape)
    if rank == 0:
        return dep
    return mixed(dep, [rank - 1 if step["dim"] is None else step["dim"]], step.out.shape)
