"""A gradient that torch has summed to another's shape: over which axes was the sum due?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from .audit_adjoint import disagrees
from .audit_call import Argument
from .audit_forward import Forward
from .audit_state import Cotangents, normal_like
from .verdict import Verdict


def with_right_sums(
    said: list[Verdict], forward: Forward, v: Cotangents, made: torch.Generator
) -> Iterator[Verdict]:
    """``said``, the fix of every silent sum being the one that makes the gradient an adjoint."""
    fixes = {}
    raw = forward.call.raw(v)
    for argument, grad in zip(forward.call.arguments, raw, strict=True):
        if argument.expected is not None and isinstance(grad, Tensor):
            axes = _right_axes(forward, argument, v, grad, made)
            if axes is not None:
                fixes[f"for `{argument.name}`,"] = axes
    for finding in said:
        told = [axes for place, axes in fixes.items() if place in finding.text]
        if finding.code == "gradient_summed" and told:
            fix = f"Sum over the axes that forward broadcasts:\n    grad = grad.sum(dim={told[0]})"
            finding = replace(finding, fix=fix)
        yield finding


def _right_axes(
    forward: Forward, argument: Argument, v: Cotangents, grad: Tensor, made: torch.Generator
) -> tuple[int, ...] | None:
    assert argument.expected is not None
    wanted = argument.expected.shape
    fewer = grad.dim() - len(wanted)
    if fewer <= 0:
        return None
    u = normal_like(forward.arguments[argument.place], made)
    slope = forward.slope(argument.place, u)
    for axes in combinations(range(grad.dim()), fewer):
        summed = grad.sum(dim=axes)
        if tuple(summed.shape) == wanted and not disagrees(slope, v, u, summed):
            return axes
    return None
