"""The backward of softmax and its kin: dense along one dim."""

from __future__ import annotations

from .axes import cumulated, mixed
from .base import Result, Step, rule


@rule("_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward", "grad_output")
def _softmax_backward(step: Step) -> Result:
    name, dep = step.only("grad_output", "output")
    rank = len(dep.shape)
    dim = step["dim"]
    if name == "output":
        dep = dep.broadcast(step.out.shape)
    if rank == 0:
        return dep
    return mixed(dep, [rank - 1 if dim is None else dim], step.out.shape)


@rule("logcumsumexp", "")
def _logcumsumexp(step: Step) -> Result:
    """Linear nowhere; torch's own formula takes it of a cotangent's logarithm."""
    _, dep = step.only("self")
    return cumulated(dep, step["dim"] % len(dep.shape)) if dep.shape else dep
