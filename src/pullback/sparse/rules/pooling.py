"""Pooling and its backwards: windows along each axis, channels apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dependence import Dependence
from .axes import Ints, alone, along, mixed
from .base import Result, Step, rule
from .convolution import meeting_places


def _windows(step: Step, large: Sequence[int], small: Sequence[int]) -> list[tuple[Ints, Ints]]:
    """Per axis, all (x, y) with x inside window y."""
    axes = len(large)
    kernel = _per_axis(step["kernel_size"], axes)
    stride = _per_axis(step["stride"], axes) or kernel
    padding = _per_axis(step["padding"], axes)
    dilation = _per_axis(step.get("dilation", 1), axes)
    found = []
    for d in range(axes):
        options = kernel[d], stride[d], padding[d], dilation[d]
        x, y, _ = meeting_places(large[d], small[d], *options)
        found.append((x, y))
    return found


def _per_axis(option: Any, axes: int) -> list[int]:
    given = [option] if isinstance(option, int) else list(option)
    return given * axes if len(given) == 1 else given


def adaptive_windows(large: int, small: int) -> tuple[Ints, Ints]:
    """All (x, y) with x inside the y-th of ``small`` windows that cover ``large`` places."""
    x, y = (a.reshape(-1) for a in np.indices((large, small)))
    inside = (x >= y * large // small) & (x < -((-(y + 1) * large) // small))
    return x[inside], y[inside]


def _spread(dep: Dependence, windows: list[tuple[Ints, Ints]], shape: Sequence[int]) -> Dependence:
    """From the windows' results back to their places."""
    first = len(shape) - len(windows)
    for d, (x, y) in enumerate(windows):
        dep = along(dep, first + d, x, y, shape[first + d])
    return dep


def _collect(dep: Dependence, windows: list[tuple[Ints, Ints]], shape: Sequence[int]) -> Dependence:
    first = len(shape) - len(windows)
    for d, (x, y) in enumerate(windows):
        dep = along(dep, first + d, y, x, shape[first + d])
    return dep


def _axes(step: Step) -> int:
    return 3 if "3d" in step.name else 2


@rule(
    "avg_pool2d_backward avg_pool3d_backward max_pool2d_with_indices_backward "
    "max_pool3d_with_indices_backward max_pool2d_backward",
    "grad_output",
)
def _pool_backward(step: Step) -> Result:
    dep, shape, axes = alone(step, "grad_output"), step.out.shape, _axes(step)
    return _spread(dep, _windows(step, shape[-axes:], dep.shape[-axes:]), shape)


@rule("avg_pool2d avg_pool3d", "self")
def _pool(step: Step) -> Result:
    dep, shape, axes = alone(step, "self"), step.out.shape, _axes(step)
    return _collect(dep, _windows(step, dep.shape[-axes:], shape[-axes:]), shape)


@rule(
    "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward "
    "adaptive_max_pool3d_backward",
    "grad_output",
)
def _adaptive_backward(step: Step) -> Result:
    dep, shape, axes = alone(step, "grad_output"), step.out.shape, _axes(step)
    sizes = zip(shape[-axes:], dep.shape[-axes:], strict=True)
    return _spread(dep, [adaptive_windows(large, small) for large, small in sizes], shape)


@rule("_adaptive_avg_pool2d _adaptive_avg_pool3d", "self")
def _adaptive(step: Step) -> Result:
    dep, shape, axes = alone(step, "self"), step.out.shape, _axes(step)
    sizes = zip(dep.shape[-axes:], shape[-axes:], strict=True)
    return _collect(dep, [adaptive_windows(large, small) for large, small in sizes], shape)


# The windows are drawn at random, or lie where the indices say: anywhere in the channel's plane.
@rule("fractional_max_pool2d_backward fractional_max_pool3d_backward", "grad_output")
def _anywhere_backward(step: Step) -> Result:
    return mixed(alone(step, "grad_output"), range(-_axes(step), 0), step.out.shape)


@rule("max_unpool2d max_unpool3d", "self")
def _unpool(step: Step) -> Result:
    return mixed(alone(step, "self"), range(-_axes(step), 0), step.out.shape)
