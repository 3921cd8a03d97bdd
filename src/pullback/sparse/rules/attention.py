"""The backwards of fused attention and of fused recurrent cells: batch items never mix."""

from __future__ import annotations

from ..dependence import Dependence, union
from .axes import alone, cumulated, merged, mixed, reshaped
from .base import Declined, Result, Step, rule


@rule(
    "_scaled_dot_product_flash_attention_for_cpu_backward "
    "_scaled_dot_product_flash_attention_backward "
    "_scaled_dot_product_efficient_attention_backward "
    "_scaled_dot_product_cudnn_attention_backward "
    "_scaled_dot_product_fused_attention_overrideable_backward",
    "grad_out grad_out_",
)
def _attention_backward(step: Step) -> Result:
    """A query's gradient reads its own row of cotangents, a key's those of the rows that saw it.

    A value's gradient reads them column by column. Shapes are (batch, heads, length, width).
    """
    dep = alone(step, "grad_out", "grad_out_")
    query, key, value = (step.meta(name).shape for name in ("query", "key", "value"))
    batch = dep.shape[:2]
    if len(query) != 4 or not query[:2] == key[:2] == value[:2] == batch:
        raise Declined("its query, key and value differ in batch or heads")
    square = query[2] == key[2]
    rows = merged(dep, [3])
    if step["is_causal"] and square:
        keys = cumulated(rows, 2, lower=False).broadcast(key)
        values = cumulated(dep, 2, lower=False)
    else:
        keys, values = mixed(rows, [2], key), mixed(dep, [2], value)
    found: list[Dependence | None] = [rows.broadcast(query), keys, values]
    found += [None if meta is None else _of_bias(rows, meta.shape) for meta in step.outs[3:]]
    return [None if m is None else d for m, d in zip(step.outs, found, strict=True)]


def _of_bias(rows: Dependence, shape: tuple[int, ...]) -> Dependence:
    if len(shape) != 4 or shape[:3] != rows.shape[:3]:
        return mixed(rows, range(4), (1,) * 4).broadcast_all(shape)
    return rows.broadcast(shape)


def _blend(step: Step, dims: dict[str, int]) -> Dependence:
    """Per batch item (its dim is given by name of argument), all that is known of it: (batch,)."""
    parts = []
    for name, dim in dims.items():
        dep = step.dep(name)
        if dep is not None:
            rest = [d for d in range(len(dep.shape)) if d != dim]
            parts.append(reshaped(merged(dep, rest), (dep.shape[dim],)))
    if not parts or not step.linear_arguments() <= dims.keys():
        raise Declined("a cotangent stands where this rule does not look")
    return union(parts, parts[0].shape)


def _along(items: Dependence, dim: int, shape: tuple[int, ...]) -> Dependence:
    """Every element on place b of ``dim`` depends on what item b does."""
    sizes = [items.shape[0] if d == dim else 1 for d in range(len(shape))]
    return reshaped(items, sizes).broadcast(shape)


def _everywhere(items: Dependence, shape: tuple[int, ...]) -> Dependence:
    return merged(items, [0]).broadcast_all(shape)


@rule("_thnn_fused_lstm_cell_backward_impl", "grad_hy grad_cy")
def _lstm_cell_backward(step: Step) -> Result:
    return _cell(step, _blend(step, {"grad_hy": 0, "grad_cy": 0}))


@rule("_thnn_fused_gru_cell_backward", "grad_hy")
def _gru_cell_backward(step: Step) -> Result:
    return _cell(step, _blend(step, {"grad_hy": 0}))


def _cell(step: Step, items: Dependence) -> Result:
    """Gates and states have a row per batch item, biases are sums over them."""
    return [
        None
        if m is None
        else _along(items, 0, m.shape)
        if len(m.shape) == 2
        else _everywhere(items, m.shape)
        for m in step.outs
    ]


@rule("mkldnn_rnn_layer_backward", "grad_output grad_hy grad_cy")
def _rnn_layer_backward(step: Step) -> Result:
    """Gradients of the input, four weights and two states; the batch is the middle dim."""
    length, batch, _ = step.meta("input").shape
    back = step.meta("grad_output").shape if step.get("grad_output") is not None else None
    if step["batch_sizes"] or (back is not None and back[:2] != (length, batch)):
        raise Declined("its batch items are packed")
    dims = {"grad_output": 1, "grad_hy": -2, "grad_cy": -2}
    ranks = {n: len(d.shape) for n in dims if (d := step.dep(n)) is not None}
    items = _blend(step, {n: dims[n] % rank for n, rank in ranks.items()})
    found: list[Dependence | None] = []
    for k, meta in enumerate(step.outs):
        if meta is None:
            found.append(None)
        elif k in (0, 5, 6) and len(meta.shape) > 1 and meta.shape[-2] == batch:
            found.append(_along(items, len(meta.shape) - 2, meta.shape))
        else:
            found.append(_everywhere(items, meta.shape))
    return found
