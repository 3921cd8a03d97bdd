"""A lifted graph read at a few entries only, at the point of an operator that is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._engines import BYTES_AT_ONCE
from .._linear import GraphProducts
from .._trees import from_vector
from .arguments import devices_of
from .graph import Meta, PullbackGraph, is_needed, packet_name
from .lift.factor import Terms
from .lift.pairs import Pairs
from .lift.spec import Lift
from .lifted import LiftedRun
from .lifting import lift_of, plain_cost
from .products import Replay
from .study import Study
from .trial import same_where_finite, weights

Ints = npt.NDArray[np.int64]
# Working a lift out takes its time with every entry of its fixed maps. So many of them are looked
# at in any case, and so many where the products would take more than _LONG (in nanoseconds).
_ENTRIES = (200_000, 5_000_000)
_LONG = 1e9
_CONTRACTIONS = frozenset(
    "mm bmm addmm baddbmm mv dot matmul convolution convolution_backward".split()
)


class Shortcut:
    """The lift of a studied function, and the tensors of the point."""

    def __init__(self, found: Study, lift: Lift, products: str, tensors: Sequence[Tensor]) -> None:
        assert found.captured is not None
        assert found.detection is not None
        self.pattern, self.products = found.detection.pattern, products
        self._primals = found.arguments.primals
        self._captured, self._lift, self._dtype = found.captured, lift, found.dtype
        self._tensors = tensors
        self._versions = [t._version for t in tensors]
        self._chunk = max(1, BYTES_AT_ONCE // found.bytes_per_product)

    @property
    def num_products(self) -> int:
        return self._lift.num_products

    def is_where_it_was(self) -> bool:
        """Whether nothing was written to the tensors since."""
        return [t._version for t in self._tensors] == self._versions

    def belongs_to(self, up: GraphProducts) -> bool:
        """Whether a random product of the captured graph is one of an operator."""
        with torch.no_grad(), torch.random.fork_rng(devices=devices_of(self._tensors)):
            source = Replay(self._captured, self._tensors, self._primals)
            v = torch.cat([w.reshape(-1) for w in weights(source.outputs)])
            here = source.rev(v[None])[0]
            truth = torch.cat([t.reshape(-1) for t in up.one(from_vector(v, up.outputs))])
        return same_where_finite(here, truth.to(here.dtype), self._captured.graph.rounding)

    def values(self, numbers: Ints) -> Tensor:
        """The entries of these numbers, in CSR order of the pattern."""
        lift, rest = _restricted(self._lift, numbers)
        run = LiftedRun(self._captured, lift, self._dtype)
        values, _ = run.values(self._tensors, self._chunk)
        return values if rest is None else values[torch.from_numpy(rest).to(values.device)]


def shortcut_of(found: Study, count: int, forward: str) -> Shortcut | None:
    """A lift of fewer and cheaper products than ``count`` of the whole graph, or None."""
    captured, detection = found.captured, found.detection
    if captured is None or detection is None:
        return None
    dear = plain_cost(found, detection.pattern, count)
    if _entries(captured.graph) + detection.pattern.nnz > _ENTRIES[dear > _LONG]:
        return None
    if any(n.op == "call_function" and is_needed(n) for n in captured.graph.nodes):
        return None  # it draws or writes, and would again
    mode = "rev" if forward else "auto"
    lifting = lift_of(found, found.arguments, detection.pattern, mode)
    if isinstance(lifting, str) or lifting.cost > dear:
        return None
    lift = lifting.spec()
    if isinstance(lift, str):
        return None
    tensors = found.tensors(found.arguments, found.reading)
    if any(t.is_inference() for t in tensors):
        return None
    return Shortcut(found, lift, lifting.products, tensors)


def _entries(graph: PullbackGraph) -> int:
    """How many entries the linear calls would have as matrices, about."""
    total = 0
    for node in graph.linear:
        meta = graph.metas[node]
        if node.op != "call_function" or not isinstance(meta, Meta):
            continue
        each = 1
        if packet_name(node) in _CONTRACTIONS:
            operands = [graph.metas.get(n) for n in node.all_input_nodes]
            each = max(max(m.shape, default=1) for m in operands if isinstance(m, Meta))
        total += meta.numel * each
    return total


def _restricted(lift: Lift, numbers: Ints) -> tuple[Lift, Ints | None]:
    """The lift with the assembly of these entries alone; or itself, and what to take of it."""
    if lift.pairs is not None:
        pairs = lift.pairs
        starts, terms = _picked(pairs.starts, numbers)
        sides = pairs.first[terms], pairs.second[terms]
        few = Pairs(starts, *sides, pairs.weights[terms], pairs.ones)
        return replace(lift, pairs=few), None
    if len(lift.factors) > 1 or lift.factors[0].solving is not None:
        return lift, numbers
    factor = lift.factors[0]
    whole = factor.terms
    starts, terms = _picked(whole.starts, numbers)
    weighed = whole.weights is not None
    cut = Terms(
        starts,
        whole.sources[terms],
        whole.weight[terms] if weighed else None,
        None if whole.template is None else whole.template[numbers],
    )
    return replace(lift, factors=(replace(factor, terms=cut),)), None


def _picked(starts: Any, numbers: Ints) -> tuple[Any, Ints]:
    """The starts of the entries picked, and the numbers of their terms."""
    counts = np.diff(starts)[numbers].astype(np.int64)
    fresh = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(int(fresh[-1]), dtype=np.int64) - np.repeat(fresh[:-1], counts)
    firsts = np.repeat(starts[:-1][numbers].astype(np.int64), counts)
    return fresh.astype(starts.dtype), firsts + within
