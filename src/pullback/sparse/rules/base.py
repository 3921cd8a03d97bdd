"""What a rule sees of a call, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx

from ..dependence import Dependence, grouped, nothing
from ..graph import Meta, PullbackGraph, packet_name

Result: TypeAlias = "Dependence | list[Dependence | None]"


@dataclass(frozen=True)
class Rule:
    """``apply`` gives the dependence of a call's result; one per entry where it is a tuple.

    ``linear`` lists groups of argument names: the call is linear in the arguments of any one
    group together, those of all others held fixed.
    """

    apply: Callable[[Step], Result]
    linear: tuple[frozenset[str], ...]


RULES: dict[str, Rule] = {}


def rule(names: str, linear: str) -> Callable[[Callable[[Step], Result]], Callable[[Step], Result]]:
    """Register a rule for the operators ``names``, separated by blanks.

    ``linear`` is a list of argument names, with ``|`` between groups: "self other" for a sum,
    "self | mat2" for a product.
    """
    groups = tuple(frozenset(part.split()) for part in linear.split("|"))

    def register(apply: Callable[[Step], Result]) -> Callable[[Step], Result]:
        def of_something(step: Step) -> Result:
            return apply(step) if any(map(is_something, step.inputs)) else _of_nothing(step)

        for name in names.split():
            assert name not in RULES, name
            RULES[name] = Rule(of_something, groups)
        return apply

    return register


def is_something(dependence: Dependence) -> bool:
    """Whether any element depends on anything: a buffer that was overwritten does not."""
    return dependence.is_something


def _of_nothing(step: Step) -> Result:
    meta = step.graph.metas[step.node]
    if isinstance(meta, Meta):
        return step.nothing()
    return [None if m is None else step.nothing(m.shape) for m in step.outs]


def nodes_in(value: Any) -> list[fx.Node]:
    """The graph nodes in an argument: one, none, or those of a list."""
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found


class Declined(Exception):  # noqa: N818 - it is no error: the pessimistic rule takes over
    """A rule does not cover this form of its operator."""


@dataclass
class Step:
    """One call on tensors of which some depend on the cotangents.

    ``arguments`` are those of the call by the names of its schema; tensors are graph nodes.
    Facts that a rule asks for with ``data`` are noted in ``relied``: the plan is then good only
    as long as these tensors keep their content.
    """

    graph: PullbackGraph
    node: fx.Node
    known: dict[fx.Node, Any]
    arguments: dict[str, Any] = field(init=False)
    relied: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        schema = getattr(self.node.target, "_schema", None)
        names = [a.name for a in schema.arguments] if schema is not None else []
        if not names:
            names = [f"arg{k}" for k in range(len(self.node.args))]
        self.arguments = dict(zip(names, self.node.args, strict=False)) | dict(self.node.kwargs)
        if schema is not None:
            for a in schema.arguments:
                if a.name not in self.arguments:
                    self.arguments[a.name] = a.default_value

    @property
    def name(self) -> str:
        return packet_name(self.node)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def out(self) -> Meta:
        """The meta of the result, or of the first entry of a tuple."""
        meta = self.graph.metas[self.node]
        return meta if isinstance(meta, Meta) else meta[0]

    @property
    def outs(self) -> list[Meta | None]:
        """The metas of a tuple's entries; None where an entry is no tensor."""
        meta = self.graph.metas[self.node]
        entries = [meta] if isinstance(meta, Meta) else list(meta)
        return [m if isinstance(m, Meta) else None for m in entries]

    def meta(self, name: str) -> Meta:
        """The meta of a tensor argument."""
        found = self.graph.metas[self.arguments[name]]
        assert isinstance(found, Meta)
        return found

    def meta_of(self, node: fx.Node) -> Meta:
        found = self.graph.metas[node]
        assert isinstance(found, Meta)
        return found

    def dep(self, name: str) -> Dependence | None:
        """The dependence of a tensor argument; None where it does not depend on cotangents."""
        value = self.arguments.get(name)
        found = self.dep_of(value) if isinstance(value, fx.Node) else None
        return found if found is not None and is_something(found) else None

    def dep_of(self, node: fx.Node) -> Dependence | None:
        found = self.known.get(node)
        assert found is None or isinstance(found, Dependence)
        return found

    def only(self, *names: str) -> tuple[str, Dependence]:
        """The one of these arguments that depends on cotangents, and its dependence."""
        for name in names:
            found = self.dep(name)
            if found is not None:
                return name, found
        raise Declined(f"none of {names} depends on a cotangent")

    @property
    def linear_inputs(self) -> list[fx.Node]:
        return [n for n in self.node.all_input_nodes if n in self.graph.linear]

    @property
    def inputs(self) -> list[Dependence]:
        """The dependences of everything that the call reads."""
        found: list[Dependence] = []
        for node in self.linear_inputs:
            parts = self.known[node]
            found += [p for p in (parts if isinstance(parts, list) else [parts]) if p is not None]
        return found

    def linear_arguments(self) -> set[str]:
        """The names of the arguments that depend on cotangents."""
        return {
            name for name, value in self.arguments.items() if any(map(self._reads, nodes_in(value)))
        }

    def names_of_linear_nodes(self) -> set[str]:
        """The names of the arguments among whose nodes are linear ones, whatever is in them."""
        linear = self.graph.linear
        return {
            name
            for name, value in self.arguments.items()
            if any(n in linear for n in nodes_in(value))
        }

    def _reads(self, node: fx.Node) -> bool:
        if node not in self.graph.linear:
            return False
        parts = self.known[node]
        return any(
            p is not None and is_something(p)
            for p in (parts if isinstance(parts, list) else [parts])
        )

    def data(self, value: Any) -> Tensor | None:
        """The data of a tensor argument (a name or a node) that cannot change unnoticed."""
        node = self.arguments.get(value) if isinstance(value, str) else value
        if not isinstance(node, fx.Node) or node not in self.graph.fixed:
            return None
        found = self.graph.data.get(node)
        if found is not None:
            self.relied |= self.graph.relies_on[node]
        return found

    def nonzero(self, value: Any) -> npt.NDArray[np.bool_] | None:
        """Where fixed data is not zero, in the tensor's shape; None if it may change."""
        found = self.data(value)
        return None if found is None else found.ne(0).cpu().numpy()

    def nothing(self, shape: Sequence[int] | None = None) -> Dependence:
        """No dependence, in the shape of the result."""
        like = next(iter([*self.inputs, *self.known.values()]))
        return nothing(tuple(self.out.shape if shape is None else shape), like)


def numbers(shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """0, 1, 2... in C order, in ``shape``."""
    return np.arange(int(np.prod(shape, dtype=np.int64))).reshape(tuple(shape))


def blockwise(
    step: Step, dims_of: Sequence[tuple[Dependence, Sequence[int]]], out: Meta, kept: Sequence[int]
) -> Dependence:
    """Everything depends on everything within a block, and on nothing across blocks.

    The blocks are the places along some dims that all tensors share: with each dependence comes
    the list of its dims that tell blocks apart, in the same order as ``kept``, those of the
    result. All other dims mix.
    """
    sizes = [out.shape[d] for d in kept]
    labels = numbers(sizes)
    parts = []
    for dependence, dims in dims_of:
        shape = dependence.shape
        assert [shape[d] for d in dims] == sizes, (shape, dims, sizes)
        parts.append((dependence, _spread(labels, dims, shape)))
    blocks = grouped(parts, tuple(sizes))
    return blocks.with_ids(_spread(blocks.grid, kept, out.shape))


def _spread(
    labels: npt.NDArray[Any], dims: Sequence[int], shape: Sequence[int]
) -> npt.NDArray[Any]:
    """Broadcast ``labels``, one axis per entry of ``dims``, over a tensor of ``shape``."""
    order = np.argsort(dims, kind="stable")
    moved = labels.transpose(tuple(order)) if len(dims) else labels
    view = moved.reshape([shape[d] if d in dims else 1 for d in range(len(shape))])
    return np.broadcast_to(view, tuple(shape))
