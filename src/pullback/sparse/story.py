"""Why an entry is in a pattern: the chain of calls that leads from an input to an output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from .. import draw
from .dependence import Dependence, Table
from .detect import starts, through
from .graph import PullbackGraph, packet_name
from .leaf import Leaf
from .rules import Step


@dataclass(frozen=True)
class Link:
    """One tensor element on the way: which call of the backward made it, and for which line."""

    call: str
    formula: str
    line: str
    index: tuple[int, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        made_by = f", in {self.formula}" if self.formula else ""
        where = f" at {self.line}" if self.line else ""
        place = f"{draw.shape(self.index)} of {draw.shape(self.shape)}" if self.shape else "scalar"
        return f"{self.call}{made_by}{where}: element {place}"


@dataclass(frozen=True)
class Chain:
    """How output element ``row`` comes to depend on input element ``col``, from input to output.

    ``links`` are empty, and ``exists`` is False, where it does not.
    """

    row: int
    col: int
    output: str
    input: str
    links: tuple[Link, ...]
    exists: bool

    def __str__(self) -> str:
        if not self.exists:
            return f"{self.output} does not depend on {self.input}."
        lines = [f"{self.output} may depend on {self.input}, through the backward of:"]
        return "\n".join([*lines, *(f"  {link}" for link in self.links)])

    __repr__ = __str__


@dataclass(frozen=True)
class Densest:
    """The call that made a pattern dense: ``before`` and ``after`` are the mean sizes of the sets
    of output elements that its operands and its result depend on."""

    link: Link | None
    before: float
    after: float
    pessimistic: str

    def __str__(self) -> str:
        if self.link is None:
            return "No call joins what its operands depend on: every element has one output."
        because = f" ({self.pessimistic})" if self.pessimistic else ""
        made_by = f", in {self.link.formula}" if self.link.formula else ""
        where = f" at {self.link.line}" if self.link.line else ""
        return (
            f"{self.link.call}{made_by}{where} made it dense{because}: before it an element "
            f"depended on {draw.number(self.before)} of the outputs on average, after it on "
            f"{draw.number(self.after)}."
        )

    __repr__ = __str__


class Story:
    """The pullback graph that a pattern was read from; answers questions by running it again."""

    def __init__(
        self,
        caller: str,
        graph: PullbackGraph,
        outputs: Sequence[Leaf],
        inputs: Sequence[Leaf],
    ) -> None:
        self._caller, self._graph = caller, graph
        self._outputs, self._inputs = tuple(outputs), tuple(inputs)

    def why(self, row: int, col: int) -> Chain:
        """The chain from input element ``col`` to output element ``row``."""
        output, input_ = _named(self._outputs, row), _named(self._inputs, col)
        reached = self._reached_from(row)
        node, element = self._gradient_of(col)
        if node is None or not _is_reached(reached.get(node), element):
            return Chain(row, col, output, input_, (), exists=False)
        links = []
        while node.op == "call_function":
            links.append(self._link(_made_by(node), reached[node], element))
            node, element = self._step_back(node, element, reached)
        # Sums of contributions at a fork leave elements where they are.
        telling = [link for link in links if link.call != "add"]
        return Chain(row, col, output, input_, tuple(telling or links), exists=True)

    def densest(self) -> Densest:
        """The call at which the sets grew most."""
        known: dict[fx.Node, Any] = dict(starts(self._graph))
        best = Densest(None, 1.0, 1.0, "")
        for node in self._calls():
            pessimistic: dict[str, str] = {}
            step = Step(self._graph, node, known)
            known[node] = through(self._caller, step, set(), pessimistic)
            before = max(map(_mean_size, step.inputs), default=1.0)
            results = known[node] if isinstance(known[node], list) else [known[node]]
            after = max((_mean_size(r) for r in results if r is not None), default=0.0)
            if after * best.before > best.after * max(before, 1.0):
                first = next(r for r in results if r is not None)
                link = self._link(node, first, 0)
                best = Densest(link, before, after, pessimistic.get(packet_name(node), ""))
        return best

    def _calls(self) -> list[fx.Node]:
        return [n for n in self._graph.linear if n.op == "call_function"]

    def _reached_from(self, row: int) -> dict[fx.Node, Any]:
        """For every node, which of its elements depend on output element ``row``."""
        known: dict[fx.Node, Any] = {}
        at = 0
        for cotangent in self._graph.cotangents:
            size = cotangent.meta.numel
            ids = np.zeros(size, dtype=np.int32)
            if at <= row < at + size:
                ids[row - at] = 1
            known[cotangent.node] = Dependence(cotangent.meta.shape, ids, Table.everything(1))
            at += size
        for node in self._calls():
            known[node] = through(self._caller, Step(self._graph, node, known), set(), {})
        return known

    def _gradient_of(self, col: int) -> tuple[fx.Node | None, int]:
        for meta, gradient in zip(self._graph.primals, self._graph.gradients, strict=True):
            if col < meta.numel:
                return gradient, col
            col -= meta.numel
        return None, 0

    def _step_back(
        self, node: fx.Node, element: int, reached: dict[fx.Node, Any]
    ) -> tuple[fx.Node, int]:
        """An operand's element that is reached and that this element reads."""
        if packet_name(node) == "getitem":
            return self._step_back_entry(node, element, reached)
        return self._candidates(node, element, None, reached)

    def _step_back_entry(
        self, node: fx.Node, element: int, reached: dict[fx.Node, Any]
    ) -> tuple[fx.Node, int]:
        source, entry = node.args
        assert isinstance(source, fx.Node)
        assert isinstance(entry, int)
        return self._candidates(source, element, entry, reached)

    def _candidates(
        self, node: fx.Node, element: int, entry: int | None, reached: dict[fx.Node, Any]
    ) -> tuple[fx.Node, int]:
        operands = [n for n in node.all_input_nodes if n in self._graph.linear]
        known: dict[fx.Node, Any] = {}
        numbered: list[tuple[fx.Node, int]] = []
        for operand in operands:
            elements = np.flatnonzero(reached[operand].ids)
            ids = np.zeros(reached[operand].numel, dtype=np.int64)
            ids[elements] = np.arange(len(numbered) + 1, len(numbered) + 1 + elements.size)
            known[operand] = (reached[operand].shape, ids)
            numbered += [(operand, int(e)) for e in elements]
        table = Table.singletons(len(numbered))
        known = {n: Dependence(shape, ids, table) for n, (shape, ids) in known.items()}
        found = through(self._caller, Step(self._graph, node, known), set(), {})
        if isinstance(found, list):
            picked = found[entry or 0]
            assert picked is not None
            found = picked
        which = found.ids[element]
        first = int(found.table.indptr[which])
        return numbered[int(found.table.indices[first : found.table.indptr[which + 1]].min())]

    def _link(self, node: fx.Node, found: Any, element: int) -> Link:
        shape = found.shape if isinstance(found, Dependence) else ()
        index = np.unravel_index(element, shape) if shape and np.prod(shape) else ()
        return Link(
            packet_name(node),
            self._graph.formula_of(node),
            self._graph.line_of(node),
            tuple(int(k) for k in index),
            shape,
        )


def _made_by(node: fx.Node) -> fx.Node:
    """The call behind a result: of a tuple's entry, the call that returned the tuple."""
    source = node.args[0] if packet_name(node) == "getitem" else node
    return source if isinstance(source, fx.Node) else node


def _is_reached(found: Any, element: int) -> bool:
    return isinstance(found, Dependence) and bool(found.ids[element])


def _mean_size(found: Dependence) -> float:
    sizes = found.table.sizes[found.ids]
    return float(sizes.mean()) if sizes.size else 0.0


def _named(leaves: Sequence[Leaf], number: int) -> str:
    for leaf in leaves:
        if number < leaf.numel:
            shape = (*leaf.shape, 2) if leaf.dtype.is_complex else leaf.shape
            index = ", ".join(str(int(k)) for k in np.unravel_index(number, shape)) if shape else ""
            return f"{leaf.name}[{index}]" if index else leaf.name
        number -= leaf.numel
    return str(number)
