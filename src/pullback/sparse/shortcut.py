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
from .graph import is_needed
from .lift.factor import Terms
from .lift.pairs import Pairs
from .lift.spec import Lift
from .lifted import LiftedRun
from .lifting import lift_of, plain_cost
from .pattern import SparsityPattern
from .products import Replay
from .study import Study
from .trial import same_where_finite, weights

Ints = npt.NDArray[np.int64]
# A lift is worked out for all entries; for a pattern of more it would take too long.
_ENTRIES = 20_000_000


class Shortcut:
    """The lift of a studied function, and the tensors of the point."""

    def __init__(
        self, found: Study, lift: Lift, pattern: SparsityPattern, tensors: Sequence[Tensor]
    ) -> None:
        assert found.captured is not None
        self.pattern, self.products = pattern, ""
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

    def values(self, numbers: Ints) -> Tensor:
        """The entries of these numbers, in CSR order of the pattern."""
        lift, rest = _restricted(self._lift, numbers)
        run = LiftedRun(self._captured, lift, self._dtype)
        values, _ = run.values(self._tensors, self._chunk)
        return values if rest is None else values[torch.from_numpy(rest).to(values.device)]


def shortcut_of(found: Study, up: GraphProducts, count: int, forward: str) -> Shortcut | None:
    """A lift of fewer and cheaper products than ``count`` of the whole graph; None where there is
    none, or where what was captured is not the operator that ``up`` belongs to."""
    captured, detection = found.captured, found.detection
    if captured is None or detection is None or detection.pattern.nnz > _ENTRIES:
        return None
    if any(n.op == "call_function" and is_needed(n) for n in captured.graph.nodes):
        return None  # it draws or writes, and would again
    mode = "rev" if forward else "auto"
    lifting = lift_of(found, found.arguments, detection.pattern, mode)
    if isinstance(lifting, str) or lifting.cost > plain_cost(found, detection.pattern, count):
        return None
    lift = lifting.spec()
    if isinstance(lift, str):
        return None
    tensors = found.tensors(found.arguments, found.reading)
    if any(t.is_inference() for t in tensors) or not _is_the_same(found, up, tensors):
        return None
    shortcut = Shortcut(found, lift, detection.pattern, tensors)
    shortcut.products = lifting.products
    return shortcut


def _is_the_same(found: Study, up: GraphProducts, tensors: Sequence[Tensor]) -> bool:
    """Whether a random product of the captured graph is one of the operator."""
    assert found.captured is not None
    with torch.no_grad(), torch.random.fork_rng(devices=devices_of(tensors)):
        source = Replay(found.captured, tensors, found.arguments.primals)
        v = torch.cat([w.reshape(-1) for w in weights(source.outputs)])
        here = source.rev(v[None])[0]
        truth = torch.cat([t.reshape(-1) for t in up.one(from_vector(v, up.outputs))])
    return same_where_finite(here, truth.to(here.dtype), found.captured.graph.rounding)


def _restricted(lift: Lift, numbers: Ints) -> tuple[Lift, Ints | None]:
    """The lift with the assembly of these entries alone; or itself, and what to take of it."""
    if lift.pairs is not None:
        pairs = lift.pairs
        starts, terms = _picked(pairs.starts, numbers)
        sides = pairs.first[terms], pairs.second[terms]
        few = Pairs(starts, *sides, pairs.weights[terms], pairs.ones)
        return replace(lift, pairs=few), None
    if len(lift.factors) > 1:
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
