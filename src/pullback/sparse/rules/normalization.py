"""The backwards of normalizations: dense over what was averaged, apart elsewhere."""

from __future__ import annotations

from ..dependence import Dependence
from .axes import alone, merged, mixed, reshaped
from .base import Declined, Result, Step, rule


def _given(step: Step, *parts: Dependence) -> Result:
    """A gradient per entry of the result; None where torch was not asked for it."""
    return [
        None if meta is None else reshaped(part.broadcast(meta.shape), meta.shape)
        for part, meta in zip(parts, step.outs, strict=False)
    ]


def _per_channel(dep: Dependence) -> Dependence:
    """One element for each place on dim 1."""
    found = merged(dep, [d for d in range(len(dep.shape)) if d != 1])
    return reshaped(found, (dep.shape[1],))


def _batch_norm(step: Step, dep: Dependence, pointwise: bool) -> Result:
    channels = _per_channel(dep)
    over = [d for d in range(len(dep.shape)) if d != 1]
    inputs = dep if pointwise else mixed(dep, over, dep.shape)
    return _given(step, inputs, channels, channels)


@rule("native_batch_norm_backward", "grad_out")
def _native_batch_norm_backward(step: Step) -> Result:
    return _batch_norm(step, alone(step, "grad_out"), pointwise=not step["train"])


@rule("batch_norm_backward", "grad_out")
def _any_batch_norm_backward(step: Step) -> Result:
    # On CUDA this runs cudnn's backward of training, whatever ``update`` says.
    fixed = not step["update"] and step.out.device.type == "cpu"
    return _batch_norm(step, alone(step, "grad_out"), pointwise=fixed)


@rule("cudnn_batch_norm_backward miopen_batch_norm_backward", "grad_output")
def _cudnn_batch_norm_backward(step: Step) -> Result:
    return _batch_norm(step, alone(step, "grad_output"), pointwise=False)


@rule("native_layer_norm_backward _fused_rms_norm_backward", "grad_out")
def _layer_norm_backward(step: Step) -> Result:
    dep = alone(step, "grad_out")
    lead = len(dep.shape) - len(step["normalized_shape"])
    inputs = mixed(dep, range(lead, len(dep.shape)), dep.shape)
    weights = reshaped(merged(dep, range(lead)), dep.shape[lead:])
    return _given(step, inputs, weights, weights)


@rule("native_group_norm_backward", "grad_out")
def _group_norm_backward(step: Step) -> Result:
    dep = alone(step, "grad_out")
    n, channels, groups = (int(step[name]) for name in ("N", "C", "group"))
    each = int(step["HxW"])
    blocks = reshaped(dep, (n, groups, channels // groups * each))
    inputs = reshaped(mixed(blocks, [2], blocks.shape), dep.shape)
    weights = _per_channel(reshaped(dep, (n, channels, each)))
    return _given(step, inputs, weights, weights)


@rule("_weight_norm_interface_backward", "grad_w")
def _weight_norm_backward(step: Step) -> Result:
    """Each slice along ``dim`` has a norm of its own."""
    dep = alone(step, "grad_w")
    rank = len(dep.shape)
    if not 0 <= step["dim"] < rank:
        raise Declined("its dim is not one of the weight's")
    over = [d for d in range(rank) if d != step["dim"]]
    norms = merged(dep, over)
    return _given(step, norms.broadcast(dep.shape), norms)
