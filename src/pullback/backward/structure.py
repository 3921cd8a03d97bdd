"""The pattern of the Jacobian behind a record, at this very point, and the colors that cover it."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import numpy as np

from .. import _checks
from .._graph_jacobian import plan_of_graph, values_of_graph
from ..sparse.detect import TooManyEntriesError
from ..sparse.plan import Plan
from ..sparse.products import Existing
from .outcome import Job
from .responses import Structure, Vector

_CALLER = "record.to_html"
_ENTRIES = 200_000


class Known(NamedTuple):
    plan: Plan
    source: Existing


def plan_of(job: Job, at_most: int) -> Known | None:
    """None where the graph behind ``job`` cannot be read, or its Jacobian has more entries than
    ``at_most`` and than can be drawn: a page can do without."""
    reached = [target for target in job.targets.items if target.port is not None]
    if not reached:
        return None
    inputs = _checks.leaves_of(_CALLER, "inputs", {t.label: t.tensor for t in reached})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            most = max(at_most, _ENTRIES)
            return Known(*plan_of_graph(_CALLER, job.out, inputs, at_most=most))
    except (TooManyEntriesError, RuntimeError, ValueError, NotImplementedError):
        return None


def jacobian_values(known: Known) -> Vector:
    values: Vector = values_of_graph(known.plan, known.source).double().cpu().numpy()
    return values


def drawn(job: Job, plan: Plan) -> Structure | None:
    """What a page shows of a plan; None for more entries than can be drawn."""
    pattern, coloring = plan.pattern, plan.colored
    if pattern.nnz > _ENTRIES:
        return None
    starts = np.zeros(pattern.shape[0] + 1, np.int32)
    np.cumsum(np.bincount(pattern.rows.numpy(), minlength=pattern.shape[0]), out=starts[1:])
    by: Literal["rows", "columns", "none"] = "none"
    colors = np.zeros(0, np.int32)
    if coloring is not None and coloring.kind in ("rows", "columns"):
        by = "rows" if coloring.kind == "rows" else "columns"
        colors = coloring.colors.numpy().astype(np.int32)
    columns = pattern.cols.numpy().astype(np.int32)
    leaves = tuple(k for k, target in enumerate(job.targets.items) if target.port is not None)
    return Structure(
        pattern.shape, leaves, starts, columns, by, colors, plan.num_products, plan.reason
    )
