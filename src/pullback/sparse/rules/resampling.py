"""Interpolation, sampling at places that move, and padding that repeats elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..dependence import Dependence
from .axes import Ints, alone, along, gathered_by, merged, mixed
from .base import Result, Step, numbers, rule

# A basis is run in parts of about this many elements.
_BASIS_AT_MOST = 2**24
_MODES = """
    nearest1d nearest2d nearest3d _nearest_exact1d _nearest_exact2d _nearest_exact3d linear1d
    bilinear2d trilinear3d bicubic2d _bilinear2d_aa _bicubic2d_aa _lanczos2d_aa
""".split()
_FORWARD = [f"{'_' * m.startswith('_')}upsample_{m.lstrip('_')}" for m in _MODES]


@rule(" ".join(f"{name}_backward" for name in _FORWARD), "grad_output")
def _upsample_backward(step: Step) -> Result:
    return _interpolated(step, alone(step, "grad_output"))


@rule(" ".join(_FORWARD), "self")
def _upsample(step: Step) -> Result:
    return _interpolated(step, alone(step, "self"))


def _interpolated(step: Step, dep: Dependence) -> Dependence:
    """An interpolation is a product of one per axis, each found by running it on a basis."""
    sizes = list(zip(dep.shape[2:], step.out.shape[2:], strict=True))
    for axis, (_, size) in enumerate(sizes):
        target, source = np.nonzero(_reach(step, axis, sizes))
        dep = along(dep, 2 + axis, target, source, size)
    return dep


def _reach(step: Step, axis: int, sizes: list[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """``[t, s]``: does place t of the result along ``axis`` read place s?

    The weights' rounding decides which of them are zero: hence the tensor's own device, and
    several dtypes. The other axes are cut short, to equal sizes only where all are equal, since
    torch then copies whatever the scales say.
    """
    copied = all(before == after for before, after in sizes)
    short = (2, 2) if copied else (2, 3) if not step.name.endswith("_backward") else (3, 2)
    cut = [pair if d == axis else short for d, pair in enumerate(sizes)]
    reached = np.zeros(sizes[axis][::-1], dtype=bool)
    wide = {torch.float64} if step.out.device.type in ("cpu", "cuda") else set()
    for dtype in {step.out.dtype, torch.float32} | wide:
        basis = torch.eye(sizes[axis][0], dtype=dtype, device=step.out.device)
        rows = max(1, _BASIS_AT_MOST // (16 * max(sizes[axis], default=1)))
        columns = [_answers(step, part, axis, cut) for part in basis.split(rows)]
        reached |= np.concatenate(columns).T
    return reached


def _answers(
    step: Step, seeds: Tensor, axis: int, sizes: list[tuple[int, int]]
) -> npt.NDArray[np.bool_]:
    """One row per seed: where along ``axis`` the operator's result on it is not zero."""
    before, after = ([pair[k] for pair in sizes] for k in (0, 1))
    shape = [seeds.shape[1] if d == axis else 1 for d in range(len(sizes))]
    planes = seeds.reshape(-1, 1, *shape).expand(-1, 1, *before).contiguous()
    backward = step.name.endswith("_backward")
    arguments = [before, [len(planes), 1, *after]] if backward else [after]
    corners = [step["align_corners"]] if "align_corners" in step.arguments else []
    scales = [name for name in step.arguments if name.startswith("scales")]
    given = [step[name] if d == axis else None for d, name in enumerate(scales)]
    target: Any = getattr(torch.ops.aten, step.name).default
    with torch.no_grad():
        found = target(planes, *arguments, *corners, *given).ne(0)
    hit: npt.NDArray[np.bool_] = found.movedim(2 + axis, 1).flatten(2).any(2).cpu().numpy()
    return hit


@rule("grid_sampler_2d_backward grid_sampler_3d_backward", "grad_output | input")
def _grid_sampler_backward(step: Step) -> Result:
    if step.dep("input") is not None:
        return _slopes(step, alone(step, "input"))
    return _sampler_gradients(step)


@rule("cudnn_grid_sampler_backward _grid_sampler_2d_cpu_fallback_backward", "grad_output")
def _other_grid_sampler_backward(step: Step) -> Result:
    return _sampler_gradients(step)


def _slopes(step: Step, dep: Dependence) -> Result:
    """The gradient of the grid reads the input at any place; that of the input does not."""
    to_input, to_grid = step.outs
    item = merged(dep, range(1, len(dep.shape)))
    return [
        None if to_input is None else step.nothing(to_input.shape),
        None if to_grid is None else item.broadcast(to_grid.shape),
    ]


def _sampler_gradients(step: Step) -> Result:
    """Samples lie anywhere in their plane; a place of the grid reads its own, in all channels."""
    dep = alone(step, "grad_output")
    to_input, to_grid = step.outs
    of_grid = None
    if to_grid is not None:
        channels = merged(dep, [1])
        of_grid = channels.with_ids(np.moveaxis(channels.grid, 1, -1)).broadcast(to_grid.shape)
    plane = range(2, len(dep.shape))
    return [None if to_input is None else mixed(dep, plane, to_input.shape), of_grid]


@rule("grid_sampler_2d grid_sampler_3d cudnn_grid_sampler", "input | self")
def _grid_sampler(step: Step) -> Result:
    dep = alone(step, "input", "self")
    return mixed(dep, range(2, len(dep.shape)), step.out.shape)


_PADS = [f"{kind}_pad{d}d" for kind, d in product(("reflection", "replication"), (1, 2, 3))]


@rule(" ".join(f"{name}_backward" for name in _PADS), "grad_output")
def _pad_backward(step: Step) -> Result:
    dep = alone(step, "grad_output")
    name = step.name.removesuffix("_backward")
    return gathered_by(dep, _copies(name, step.out.shape, [step["padding"]]), step.out.shape)


@rule(" ".join(_PADS), "self")
def _pad(step: Step) -> Result:
    dep = alone(step, "self")
    return dep.with_ids(dep.ids[_copies(step.name, dep.shape, [step["padding"]]) - 1])


@rule("col2im", "self")
def _col2im(step: Step) -> Result:
    dep, shape = alone(step, "self"), step.out.shape
    options = [step[name] for name in ("kernel_size", "dilation", "padding", "stride")]
    return gathered_by(dep, _copies("im2col", shape, options), shape)


def _copies(name: str, shape: Sequence[int], options: list[Any]) -> Ints:
    """Which element (from 1; 0 is none) each place of the result of ``name`` is a copy of."""
    ids = torch.from_numpy(numbers(shape) + 1).to(torch.float64)
    target: Any = getattr(torch.ops.aten, name).default
    copies: Ints = target(ids, *options).numpy().astype(np.int64)
    return copies
