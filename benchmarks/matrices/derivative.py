"""What is asked of a function: its Jacobian, or the Hessian of a number that it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import pullback as pb

from ..problems.in_torch import Func


@dataclass(frozen=True)
class Derivative:
    """``plan`` and ``matrix`` are pullback's; the matrix is the Jacobian of ``first(func)``;
    ``colorings`` are those of the whole matrix that are counted."""

    plan: Callable[..., pb.Plan]
    matrix: Callable[..., Any]
    first: Callable[[Func], Func]
    colorings: tuple[str, ...] = ()


DERIVATIVES = {
    "jacobian": Derivative(pb.plan_jacobian, pb.jacobian, lambda func: func),
    "hessian": Derivative(
        pb.plan_hessian, pb.hessian, torch.func.grad, ("rows", "star", "acyclic")
    ),
}
