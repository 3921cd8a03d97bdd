"""Whether and how the Jacobian of a studied function is lifted, and the proof that it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from . import cost
from .arguments import Arguments, devices_of, fresh
from .captured import Captured
from .coloring import Coloring
from .graph import Meta, PullbackGraph
from .lift.cut import calls_of
from .lift.decide import Lifter, Way
from .lift.factor import Terms
from .lift.spec import Factor, Lift
from .lifted import LiftedRun
from .pattern import INT32_MAX, SparsityPattern
from .plan import Plan
from .products import Replay
from .rules.base import Declined
from .study import Study
from .trial import rounding_of, same_where_finite, weights

# The share that a batch of dense products takes of what its calls would take one by one.
_DENSE = 0.5
_ENTRIES_AT_ONCE = 2**22
LIFTED_MODES = ("auto", "fwd", "rev")


@dataclass(frozen=True)
class Lifting:
    """The best way to lift: its estimated cost, its products in words, and how to work it out."""

    cost: float
    products: str
    spec: Callable[[], Lift | str]


def lift_of(
    found: Study,
    arguments: Arguments,
    pattern: SparsityPattern,
    mode: str,
    changing: frozenset[str] = frozenset(),
    *,
    fewest: bool = False,
) -> Lifting | str:
    """The cheapest way to lift what was captured (or that of the ``fewest`` products), or why there
    is none.

    ``changing`` names tensors that were seen to change, whose content nothing may be made of.
    """
    captured = found.captured
    if captured is None:
        return "there is no captured graph"
    if mode not in LIFTED_MODES:
        return f"mode {mode!r} was asked for"
    if not pattern.nnz:
        return "the Jacobian has no entry"
    graph = captured.graph
    if _is_coarser_inside(graph):
        return "it computes in lower precision inside, and is to round there as autograd does"
    tensors = found.tensors(arguments, found.reading)
    try:
        lifter = Lifter(
            found.caller, graph, tensors, pattern, found.key, mode,
            lambda: found.forward_refusal, changing,
        )  # fmt: skip
        way = lifter.best(fewest)
    except Declined as reason:
        return str(reason)
    if isinstance(way, str):
        return way

    def spec() -> Lift | str:
        try:
            lift = lifter.spec(way)
        except Declined as reason:
            return str(reason)
        return _disproved(found, captured, arguments, pattern, lift) or lift

    return Lifting(way.cost, _in_words(way), spec)


def _is_coarser_inside(graph: PullbackGraph) -> bool:
    """Whether a linear call gives fewer digits than arguments and outputs have."""
    ends = [i.meta.dtype for i in graph.inputs if i.kind in ("primal", "cotangent")]
    finest = min(map(rounding_of, ends))
    entries = [graph.metas[node] for node in graph.linear]
    metas = [m for entry in entries for m in ([entry] if isinstance(entry, Meta) else entry)]
    inside = [m.dtype for m in metas if isinstance(m, Meta)]
    smooth = [d for d in inside if d.is_floating_point or d.is_complex]
    return any(rounding_of(d) > finest for d in smooth)


def _in_words(way: Way) -> str:
    rows = sum(core.choice.coloring.split.rows for core in way.cores)
    columns = way.num_products - rows
    kinds = [f"{k} {kind}{'s' * (k > 1)}" for k, kind in ((rows, "VJP"), (columns, "JVP")) if k]
    products = " and ".join(kinds) or "no product"
    if len(way.pieces) == 1:
        return f"{products} of the part that varies"
    return f"{products} of {len(way.pieces)} sparse factors"


def _disproved(
    found: Study, captured: Captured, arguments: Arguments, pattern: SparsityPattern, lift: Lift
) -> str:
    """Why a lift is not believed: a random product with its matrix is not that of the graph."""
    tensors = found.tensors(arguments, found.reading)
    dtype = found.dtype
    with torch.random.fork_rng(devices=devices_of(tensors)), torch.no_grad():
        state = torch.get_rng_state()
        here = [fresh(t) for t in tensors]  # it may write to what it is given, too
        source = Replay(captured, here, arguments.primals)
        v = torch.cat([w.reshape(-1) for w in weights(source.outputs)]).to(dtype)
        truth = source.rev(v[None])[0].to(dtype)
        del source, here  # as large as one forward
        torch.set_rng_state(state)
        here = [fresh(t) for t in tensors]
        values, _ = LiftedRun(captured, lift, dtype).values(here, lift.num_products or 1)
    if same_where_finite(_product(v, values, pattern), truth, captured.graph.rounding):
        return ""
    return "its values differ from those of the whole graph"


def _product(v: Tensor, values: Tensor, pattern: SparsityPattern) -> Tensor:
    """``v J``, a run of rows after the other."""
    if pattern.is_full:
        return v @ values.reshape(pattern.shape)
    product = values.new_zeros(pattern.shape[1])
    starts, cols = pattern.indptr, torch.from_numpy(pattern.indices)
    cuts = np.searchsorted(starts, np.arange(0, pattern.nnz, _ENTRIES_AT_ONCE)).tolist()
    for first, last in pairwise([*cuts, pattern.shape[0]]):
        here = slice(int(starts[first]), int(starts[last]))
        lengths = torch.from_numpy(np.diff(starts[first : last + 1])).to(v.device)
        spread = v[first:last].repeat_interleave(lengths)
        product.index_add_(0, cols[here].to(v.device), values[here] * spread)
    return product


def unlifted(captured: Captured, plan: Plan) -> Lift | str:
    """Products of the whole graph in the form of a lift that takes nothing out; or why not."""
    graph = captured.graph
    numbers = {node: k for k, node in enumerate(graph.nodes)}
    ends = [g for g in graph.gradients if g is not None and g in graph.linear]
    if len(set(ends)) < len(graph.gradients):
        return "the gradients are not one linear tensor each"
    starts, reads = np.zeros(1, dtype=np.int32), np.zeros(0, dtype=np.int32)
    if plan.assembly.solving is None:
        found = plan.assembly.flat_places()
        if found.size and int(found.max()) > INT32_MAX:
            return "its products are longer than 32-bit numbers count"
        starts = np.arange(plan.pattern.nnz + 1, dtype=np.int32)
        reads = found.astype(np.int32, copy=False)
    factor = Factor(
        tuple(numbers[i.node] for i in graph.cotangents),
        tuple(numbers[n] for n in ends),
        plan.coloring,
        plan.mode,
        Terms(starts, reads, None, None),
        plan.pattern,
        plan.assembly.solving,
    )
    return Lift((factor,), (), plan.key)


def fewest_products(pattern: SparsityPattern) -> int:
    """No coloring of the rows or of the columns alone takes fewer."""
    m, n = pattern.shape
    if pattern.is_full:
        return min(m, n)
    longest = int(np.diff(pattern.indptr).max(initial=0))
    return min(longest, int(np.bincount(pattern.indices, minlength=1).max(initial=0)))


def plain_cost(found: Study, pattern: SparsityPattern, products: Coloring | int) -> float:
    """Of coloring the whole Jacobian, in nanoseconds."""
    assert found.captured is not None
    graph = found.captured.graph
    count = products if isinstance(products, int) else products.num_colors
    total = cost.work(graph, calls_of(graph), count) + sum(
        cost.seeding(count, size) for size in pattern.shape
    )
    if pattern.is_full:  # its products are its rows: one batch of dense calls, read as it comes
        return total * _DENSE
    if isinstance(products, Coloring) and products.kind == "acyclic":
        return total + cost.solving(pattern.nnz)
    return total + cost.gathering(pattern.nnz)
