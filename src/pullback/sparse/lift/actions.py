"""Which linear calls are fixed linear maps, and what each does to a map that goes through it.

Index movement is known by running the call on element numbers. Anything else whose other operands
are settled is a matrix: its places come from the call's own rule, its numbers from running the call
on a few seeds, and both are believed only if a random vector agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from ..graph import Meta, PullbackGraph, packet_name
from ..rules.base import Declined, Step
from ..rules.movement import ON_ELEMENTS, places
from .linear import LinearMap, lanes_of, picked
from .probing import matrix_of
from .settled import Settled

Known: TypeAlias = "dict[fx.Node, Any]"
Result: TypeAlias = "LinearMap | list[LinearMap | None]"
Action: TypeAlias = Callable[[Known], Result]

_SAME = frozenset(
    "clone alias detach contiguous lift_fresh lift_fresh_copy lift positive resolve_conj "
    "resolve_neg _to_copy".split()
)
_CONJUGATES = frozenset("_conj _conj_physical conj_physical _conj_copy".split())
_NEGATES = frozenset("neg _neg_view _neg_view_copy".split())
_PAIRS = frozenset("view_as_real view_as_real_copy view_as_complex view_as_complex_copy".split())


@dataclass
class Actions:
    """The fixed linear maps among the linear calls of a graph, each worked out once."""

    graph: PullbackGraph
    settled: Settled

    def __post_init__(self) -> None:
        self._found: dict[fx.Node, Action | None] = {}

    def of(self, node: fx.Node) -> Action | None:
        """What the call does, or None where it is no fixed linear map of its linear operands."""
        if node not in self._found:
            try:
                self._found[node] = self._action(node)
            except Declined:
                self._found[node] = None
        return self._found[node]

    def _action(self, node: fx.Node) -> Action | None:
        name = packet_name(node)
        step = Step(self.graph, node, {})
        if name == "getitem":
            return self._entry(node)
        if any(isinstance(self.graph.metas[n], tuple | list) for n in step.linear_inputs):
            return None
        if not isinstance(step.outs[0], Meta):
            return None
        if name in ON_ELEMENTS:
            return self._movement(step)
        simple = self._simple(step, name)
        return simple if simple is not None else self._matrix(step)

    def _entry(self, node: fx.Node) -> Action | None:
        source, entry = node.args
        assert isinstance(source, fx.Node)
        assert isinstance(entry, int)
        if self.of(source) is None:
            return None

        def pick(known: Known) -> Result:
            found = known[source][entry]
            if found is None:
                raise Declined("an entry that is no tensor")
            return found  # type: ignore[no-any-return]

        return pick

    def _movement(self, step: Step) -> Action | None:
        inputs = step.linear_inputs
        metas = [step.meta_of(n) for n in inputs]
        outs = step.outs
        lanes = {lanes_of(m) for m in (*metas, *outs) if m is not None}
        if len(lanes) > 1:
            return None
        where = [w.astype(np.int32, copy=False) for w in places(step)]
        single = isinstance(self.graph.metas[step.node], Meta)

        def move(known: Known) -> Result:
            parts = [known[n] for n in inputs]
            found: list[LinearMap | None] = [picked(parts, w) for w in where]
            return found[0] if single and found[0] is not None else found

        return move

    def _simple(self, step: Step, name: str) -> Action | None:
        """Sums, and products by settled factors."""
        lanes = {lanes_of(step.meta_of(n)) for n in step.linear_inputs} | {lanes_of(step.out)}
        if name in _PAIRS:
            return self._reshaped(step)
        if len(lanes) > 1:
            return None
        if name in _SAME:
            return self._sum(step, [("self", 1.0)])
        if name in _NEGATES:
            return self._sum(step, [("self", -1.0)])
        if name in _CONJUGATES and lanes == {1}:
            return self._sum(step, [("self", 1.0)])
        if name in ("add", "sub", "rsub"):
            alpha = step.get("alpha", 1)
            if isinstance(alpha, complex):
                return None
            signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
            return self._sum(step, [("self", float(signs[0])), ("other", float(signs[1]))])
        if name in ("mul", "div", "true_divide") and step.get("rounding_mode") is None:
            return self._scaled(step, divided=name != "mul")
        if name in ("where", "masked_fill"):
            return self._chosen(step, name)
        return None

    def _reshaped(self, step: Step) -> Action:
        (source,) = step.linear_inputs
        shape, lanes = step.out.shape, lanes_of(step.out)
        return lambda known: known[source].with_ids(known[source].ids.reshape(*shape, lanes))

    def _sum(self, step: Step, terms: list[tuple[str, float]]) -> Action | None:
        shape = step.out.shape
        parts: list[tuple[fx.Node, float]] = []
        for name, factor in terms:
            value = step[name]
            if isinstance(value, fx.Node) and value in self.graph.linear:
                parts.append((value, factor))
            elif not self._is_zero(value):
                return None

        def add(known: Known) -> LinearMap:
            found: LinearMap | None = None
            for node, factor in parts:
                term = known[node].broadcast(shape)
                term = term if factor == 1 else term.scaled(factor)
                found = term if found is None else found.plus(term)
            assert found is not None
            return found

        return add

    def _is_zero(self, value: Any) -> bool:
        if isinstance(value, (int, float, complex)):
            return value == 0
        found = self.settled.value(value) if isinstance(value, fx.Node) else None
        return found is not None and not bool(found.any())

    def _scaled(self, step: Step, *, divided: bool) -> Action | None:
        shape = step.out.shape
        if step["self"] in self.graph.linear:
            source, factor = step["self"], step["other"]
        else:
            source, factor = step["other"], step["self"]
        if isinstance(factor, fx.Node) and factor in self.graph.linear:
            return None
        numbers = self._factors(factor)
        if numbers is None:
            return None
        with np.errstate(all="ignore"):
            numbers = 1 / numbers if divided else numbers
        if not np.isfinite(numbers).all():
            return None
        if numbers.size == 1:
            scale = float(numbers.reshape(-1)[0])
            return lambda known: known[source].broadcast(shape).scaled(scale)
        spread = np.broadcast_to(numbers, shape)
        return lambda known: known[source].broadcast(shape).weighed(spread)

    def _factors(self, factor: Any) -> npt.NDArray[np.float64] | None:
        if isinstance(factor, (bool, int, float)):
            return np.array(float(factor))
        value = self.settled.value(factor) if isinstance(factor, fx.Node) else None
        if value is None or value.is_complex():
            return None
        return value.to(torch.float64).cpu().numpy()

    def _chosen(self, step: Step, name: str) -> Action | None:
        selector = step["condition" if name == "where" else "mask"]
        on, off = ("self", "other") if name == "where" else ("value", "self")
        mask = self.settled.value(selector)
        if mask is None:
            return None
        shape = step.out.shape
        taken = np.broadcast_to(mask.ne(0).cpu().numpy(), shape)
        parts: list[tuple[fx.Node, npt.NDArray[np.bool_]]] = []
        for argument, keep in ((on, taken), (off, ~taken)):
            value = step[argument]
            if isinstance(value, fx.Node) and value in self.graph.linear:
                parts.append((value, keep))
            elif not self._is_zero(value):
                return None

        def choose(known: Known) -> LinearMap:
            found: LinearMap | None = None
            for node, keep in parts:
                whole = known[node].broadcast(shape)
                term = whole.with_ids(np.where(keep[..., None], whole.grid, np.int32(0)))
                found = term if found is None else found.plus(term)
            assert found is not None
            return found

        return choose

    def _matrix(self, step: Step) -> Action | None:
        outs = step.outs
        if any(m is None for m in outs[1:]) and not isinstance(self.graph.metas[step.node], Meta):
            outs = outs[:1]
        if len(outs) != 1 or outs[0] is None:
            return None
        matrix = matrix_of(step, self.settled)
        if matrix is None:
            return None
        out, inputs = outs[0], step.linear_inputs
        single = isinstance(self.graph.metas[step.node], Meta)

        def apply(known: Known) -> Result:
            found = _stacked([known[n] for n in inputs]).through(matrix, out.shape, lanes_of(out))
            return found if single else [found]

        return apply


def _stacked(parts: list[LinearMap]) -> LinearMap:
    """All real elements of the parts in one tensor of one dim."""
    flat = [p.with_ids(p.ids.reshape(-1, 1)) for p in parts]
    if len(flat) == 1:
        return flat[0]
    total = sum(p.ids.size for p in flat)
    return picked(flat, np.arange(1, total + 1, dtype=np.int32))
