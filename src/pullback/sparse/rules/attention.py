"""The backwards of fused attention: batch items and heads never mix."""

from __future__ import annotations

from ..dependence import Dependence
from .axes import alone, cumulated, merged, mixed
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
