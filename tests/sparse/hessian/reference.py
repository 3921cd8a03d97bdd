"""What torch gives as a Hessian: the truth of this package, in terms of torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import pullback as pb


def dense_hessian(func: Callable[..., Any], *inputs: Tensor) -> Tensor:
    """The (n, n) matrix of all real ``inputs``, by a backward through the backward per row."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    with torch.enable_grad():
        value = func(*leaves)
        gradient = flat(_gradients(value, leaves, create_graph=True))
        rows = [flat(_gradients(entry, leaves, retain_graph=True)) for entry in gradient.unbind()]
    return torch.stack(rows).detach()


def _gradients(output: Tensor, leaves: Sequence[Tensor], **options: Any) -> Sequence[Tensor]:
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return torch.autograd.grad(output, leaves, allow_unused=True, materialize_grads=True, **options)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def caveats(plan: pb.Plan) -> list[str]:
    """Its notes, but for that on the symmetry that it does not use."""
    return [note for note in plan.notes if "may not be symmetric" not in note]
