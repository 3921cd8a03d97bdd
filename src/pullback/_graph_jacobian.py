"""``jacobian_of``: the Jacobian of tensors that have a graph already."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _torch
from ._checks import Leaves
from ._engines import BYTES_AT_ONCE
from ._trees import flatten
from .sparse.arguments import arguments_for
from .sparse.choice import choose
from .sparse.evaluate import values_of
from .sparse.layouts import LAYOUTS, matrix
from .sparse.leaf import leaf
from .sparse.plan import Plan
from .sparse.products import Existing
from .sparse.study import pattern_here


@_torch.runs_unwatched
def jacobian_of(
    outputs: Any,
    inputs: Any,
    layout: Any = None,
    *,
    chunk_size: int | None = None,
) -> Any:
    """The Jacobian of tensors that have a graph already, with respect to others in that graph.

    The backward from ``outputs`` to ``inputs`` runs once to find the pattern of this very point,
    then a few times, for one VJP per color. The graph is kept, ``.grad`` is not touched, and no
    function is needed. In the sparse layouts the result is the (m, n) matrix, a row per output
    element and a column per input element; ``layout=torch.strided`` gives the nested dense
    tensors of ``torch.func.jacrev``. None is CSR.

    Raises:
        GraphError: no output has a graph. One of several without a graph gives zero rows.
        ArgumentError: an input does not require grad; ``layout`` is none of those of
            ``pb.jacobian``.
        UnsupportedError: the backward is not linear in its cotangent.

    >>> import torch, pullback as pb
    >>> x = torch.arange(4.0, requires_grad=True)
    >>> pb.jacobian_of(x[1:] * x[:-1], x, layout=torch.strided)
    tensor([[1., 0., 0., 0.],
            [0., 2., 1., 0.],
            [0., 0., 3., 2.]])
    """
    caller = "jacobian_of"
    layout = torch.sparse_csr if layout is None else layout
    _checks.jacobian_layout(caller, layout, LAYOUTS)
    _checks.chunk_size(caller, chunk_size)
    rows = _checks.leaves_of(caller, "outputs", outputs)
    columns = _checks.leaves_of(caller, "inputs", inputs)
    _checks.outside_transforms(caller, [*rows.tensors, *columns.tensors])
    _checks.differentiable_outputs(caller, rows)
    _checks.real_graph(caller, rows, columns)
    if not any(t.requires_grad for t in rows.tensors):
        _checks.has_graph(caller, rows)
    _checks.differentiable_inputs(caller, "inputs", columns)
    with _torch.untouched(set(_torch.nodes_behind(rows.tensors))):
        plan, source = plan_of_graph(caller, rows, columns, chunk_size)
        values = values_of_graph(plan, source)
    arguments = arguments_for(caller, (inputs,), 0)
    return matrix(plan, values, layout, arguments, flatten(outputs)[1])


def plan_of_graph(
    caller: str,
    rows: Leaves,
    columns: Leaves,
    chunk_size: int | None = None,
    at_most: int | None = None,
) -> tuple[Plan, Existing]:
    """The plan for the graph from ``columns`` to ``rows``, good at this very point, and its
    products. Raises TooManyEntriesError for a Jacobian of more than ``at_most`` entries."""
    source = Existing(rows.tensors, columns.tensors)
    detection, _, note = pattern_here(caller, source, at_most)
    choice = choose(detection.pattern, "auto", forward="the backward alone is known")
    each = sum(t.numel() * t.element_size() for t in (*rows.tensors, *columns.tensors))
    plan = Plan(
        pattern=detection.pattern,
        colored=choice.coloring,
        mode=choice.mode,
        reason=choice.reason,
        notes=(note,) if note else (),
        inputs=tuple(leaf(n, t) for n, t in zip(columns.names, columns.tensors, strict=True)),
        outputs=tuple(leaf(n, t) for n, t in zip(rows.names, rows.tensors, strict=True)),
        argnums=(0,),
        chunk_size=chunk_size or max(1, BYTES_AT_ONCE // each),
        bytes_per_product=each,
    )
    return plan, source


def values_of_graph(plan: Plan, source: Existing) -> Tensor:
    """The values of the Jacobian's stored entries, in the order of ``plan.pattern``."""
    return values_of(plan.assembly, source, plan.chunk_size, plan.dtype).detach()
