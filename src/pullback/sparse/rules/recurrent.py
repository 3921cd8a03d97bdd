"""The backwards of fused recurrent layers and cells: batch items never mix."""

from __future__ import annotations

from typing import Any

from ..dependence import Dependence, union
from ..graph import Meta
from .axes import merged, reshaped
from .base import Declined, Result, Step, rule

_COTANGENTS = "grad_output grad_hy grad_cy"


def _items(step: Step, dims: dict[str, int]) -> Dependence:
    """What is known of each batch item, from arguments whose batch dim is given: (batch,)."""
    if not step.linear_arguments() <= dims.keys():
        raise Declined("a cotangent stands where this rule does not look")
    parts = []
    for name, dim in dims.items():
        dep = step.dep(name)
        if dep is not None:
            batch = dim % len(dep.shape)
            rest = [d for d in range(len(dep.shape)) if d != batch]
            parts.append(reshaped(merged(dep, rest), (dep.shape[batch],)))
    return union(parts, parts[0].shape)


def _along(items: Dependence, dim: int, shape: tuple[int, ...]) -> Dependence:
    """Every element on place b of ``dim`` depends on what item b does."""
    sizes = [items.shape[0] if d == dim % len(shape) else 1 for d in range(len(shape))]
    return reshaped(items, sizes).broadcast(shape)


def _everywhere(items: Dependence, shape: tuple[int, ...]) -> Dependence:
    return reshaped(merged(items, [0]), ()).broadcast_all(shape)


@rule("_thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell_backward", "grad_hy grad_cy")
def _cell_backward(step: Step) -> Result:
    """Gates and states have a row per batch item, biases are sums over them."""
    items = _items(step, {"grad_hy": 0, "grad_cy": 0})
    found: list[Dependence | None] = []
    for meta in step.outs:
        if meta is None:
            found.append(None)
        elif len(meta.shape) == 2 and meta.shape[0] == items.shape[0]:
            found.append(_along(items, 0, meta.shape))
        else:
            found.append(_everywhere(items, meta.shape))
    return found


@rule("mkldnn_rnn_layer_backward", _COTANGENTS)
def _layer_backward(step: Step) -> Result:
    """Gradients of the input, of four weights and of two states; the batch is the dim before last.

    The input is (length, batch, width) whatever ``batch_first`` says.
    """
    packed = bool(step["batch_sizes"])
    items = _items(step, dict.fromkeys(_COTANGENTS.split(), 0 if packed else -2))
    apart = () if packed else (0, 5, 6)
    return [
        None
        if meta is None
        else _along(items, -2, meta.shape)
        if k in apart
        else _everywhere(items, meta.shape)
        for k, meta in enumerate(step.outs)
    ]


@rule("_cudnn_rnn_backward miopen_rnn_backward", _COTANGENTS)
def _layers_backward(step: Step) -> Result:
    """Gradients of the input, of two states, and a list of those of the weights."""
    packed = bool(step["batch_sizes"])
    batch = 0 if step["batch_first"] else 1
    states = dict.fromkeys(("grad_hy", "grad_cy"), 0 if packed else 1)
    items = _items(step, {"grad_output": 0 if packed else batch, **states})

    def of(meta: Any, dim: int | None) -> Any:
        if isinstance(meta, (list, tuple)):
            return [of(m, None) for m in meta]
        if not isinstance(meta, Meta):
            return None
        if packed or dim is None:
            return _everywhere(items, meta.shape)
        return _along(items, dim, meta.shape)

    metas = step.graph.metas[step.node]
    found: list[Any] = [of(m, d) for m, d in zip(metas, (batch, 1, 1, None), strict=True)]
    return found
