"""The pullback graph: ATen calls from arguments and cotangents to gradients, without writes.

Its nodes fall into two parts. What does not depend on a cotangent is the *forward part*, run once
per call; the rest is linear in the cotangents and runs once per product, or once for a batch.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from .. import _torch
from .tape import NOTE
from .trial import rounding_of

Places: TypeAlias = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Meta:
    """What is known of a tensor before it is computed."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    offset: int = 0

    @classmethod
    def of(cls, tensor: Tensor) -> Meta:
        strided = tensor.layout is torch.strided
        return cls(
            tuple(tensor.shape),
            tensor.stride() if strided else (),
            tensor.dtype,
            tensor.device,
            int(tensor.storage_offset()) if strided else 0,
        )

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Input:
    """A placeholder: ``kind`` is "primal", "argument", "owned" or "cotangent"."""

    kind: str
    name: str
    meta: Meta
    node: fx.Node = field(compare=False, repr=False)


class Survey(fx.Interpreter):
    """One run of a graph on real tensors: every node's meta, and the data of ``wanted`` nodes."""

    def __init__(self, module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._wanted = wanted
        self.metas: dict[fx.Node, Any] = {}
        self.data: dict[fx.Node, Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if node.op != "output":
            self.metas[node] = _metas(result)
            if node in self._wanted and isinstance(result, Tensor):
                self.data[node] = result.detach().clone()
        return result


@dataclass
class PullbackGraph:
    """``module`` maps the inputs, in order, to (gradient per primal or None, *outputs, *aux).

    ``metas`` holds the meta of every node's result; ``fixed`` are the nodes whose data follows
    from literals and from guarded tensors alone, ``data`` that of those which linear nodes use,
    and ``relies_on`` the owned inputs or arguments whose content such a node was made of.
    ``moves`` keeps, for calls that were found to move elements, which one stands where.
    """

    module: fx.GraphModule
    inputs: list[Input]
    primals: list[Meta]
    num_outputs: int
    metas: dict[fx.Node, Any] = field(default_factory=dict)
    fixed: set[fx.Node] = field(default_factory=set)
    data: dict[fx.Node, Tensor] = field(default_factory=dict)
    relies_on: dict[fx.Node, frozenset[str]] = field(default_factory=dict)
    linear: dict[fx.Node, None] = field(default_factory=dict)
    moves: dict[fx.Node, list[Places]] = field(default_factory=dict)
    _given: tuple[frozenset[str], bool] = (frozenset(), True)

    @property
    def nodes(self) -> list[fx.Node]:
        return list(self.module.graph.nodes)

    @property
    def cotangents(self) -> list[Input]:
        return [i for i in self.inputs if i.kind == "cotangent"]

    @property
    def results(self) -> tuple[Any, ...]:
        output = next(iter(reversed(self.module.graph.nodes)))
        return tuple(output.args[0])

    @property
    def gradients(self) -> tuple[fx.Node | None, ...]:
        return self.results[: len(self.primals)]

    def classify(self, guarded: frozenset[str], literals: bool = True) -> None:
        """Find the linear nodes and the fixed ones.

        ``guarded`` names the inputs of fixed content; ``literals`` says whether the tensors that
        the program made of Python numbers are the same at every point.
        """
        self.linear = {i.node: None for i in self.cotangents}
        self._given = (guarded, literals)
        self.fixed, self.relies_on, self.data, self.moves = set(), {}, {}, {}
        by_node = {i.node: i for i in self.inputs}
        for node in self.nodes:
            if node.op == "placeholder":
                given = by_node[node]
                if given.kind in ("argument", "owned") and given.name in guarded:
                    self.fixed.add(node)
                    self.relies_on[node] = frozenset({given.name})
            elif node.op == "get_attr" and literals:
                self.fixed.add(node)
                self.relies_on[node] = frozenset()
            elif node.op == "call_function":
                inputs = node.all_input_nodes
                if any(n in self.linear for n in inputs) and not ignores_values(node):
                    self.linear[node] = None
                elif _has_fixed_data(node) and self.fixed.issuperset(
                    inputs := [] if ignores_values(node) else inputs
                ):
                    self.fixed.add(node)
                    self.relies_on[node] = frozenset().union(*(self.relies_on[n] for n in inputs))

    def classify_again(self) -> None:
        """After the graph was rewritten."""
        self.classify(*self._given)

    def counts(self, tensors: Sequence[Tensor], masks: Sequence[fx.Node]) -> list[int]:
        """How many entries each mask holds, on ``tensors``."""
        survey = Survey(self.module, set(masks))
        survey.run(*tensors)
        return [int(survey.data[mask].sum()) for mask in masks]

    def survey(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Run once on ``tensors``: fills ``metas`` and ``data``, returns the results."""
        wanted = {n for node in self.linear for n in node.all_input_nodes if n in self.fixed} - set(
            self.linear
        )
        survey = Survey(self.module, wanted)
        with torch.enable_grad():
            results = survey.run(*tensors)
        self.metas, self.data = survey.metas, survey.data
        return tuple(results)

    @property
    def late(self) -> dict[fx.Node, None]:
        """The linear nodes, and those that need one to be there: zeros shaped like a cotangent."""
        late: dict[fx.Node, None] = {}
        for node in self.nodes:
            follows = node in self.linear or any(n in late for n in node.all_input_nodes)
            if follows and node.op != "output":
                late[node] = None
        return late

    @property
    def rounding(self) -> float:
        """How closely two runs can be expected to agree, by the coarsest dtype on the way."""
        dtypes = {
            meta.dtype
            for entry in self.metas.values()
            for meta in ([entry] if isinstance(entry, Meta) else entry or ())
            if isinstance(meta, Meta) and (meta.dtype.is_floating_point or meta.dtype.is_complex)
        }
        return max((rounding_of(d) for d in dtypes), default=0.0)

    @property
    def bytes_per_product(self) -> int:
        """The most that one run of the linear part holds at once, seeds and results included."""
        alive: dict[fx.Node, int] = {}
        last: dict[fx.Node, fx.Node] = {}
        for node in self.linear:
            for n in node.all_input_nodes:
                last[n] = node
        peak = held = sum(_bytes(self.metas.get(i.node)) for i in self.cotangents)
        kept = {g for g in self.gradients if g is not None}
        for node in self.linear:
            if node.op != "call_function" or packet_name(node) in _VIEWS:
                continue
            alive[node] = _bytes(self.metas.get(node))
            held += alive[node]
            peak = max(peak, held)
            for n in [n for n in alive if last.get(n, node) is node and n not in kept]:
                held -= alive.pop(n)
        return peak

    def line_of(self, node: fx.Node) -> str:
        note = node.meta.get(NOTE) or {}
        return str(note.get("line", ""))

    def formula_of(self, node: fx.Node) -> str:
        """The autograd node of torch's own whose formula made this call, or nothing."""
        note = node.meta.get(NOTE) or {}
        return str(note.get("formula", ""))


# Results that take no memory of their own. Those that outlive their base are counted too low.
_VIEWS = frozenset(
    "view expand slice select squeeze unsqueeze t transpose permute getitem diagonal unbind split "
    "split_with_sizes as_strided view_as_real view_as_complex alias detach".split()
)
_SHAPES_ONLY = frozenset(
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty "
    "new_empty_strided".split()
)


def _metas(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return [_metas(entry) for entry in result]
    return Meta.of(result) if isinstance(result, Tensor) else result


def _bytes(meta: Any) -> int:
    parts = [meta] if isinstance(meta, Meta) else list(meta or ())
    return sum(m.numel * m.dtype.itemsize for m in parts if isinstance(m, Meta))


def packet_name(node: fx.Node) -> str:
    """``mul`` for ``aten.mul.Tensor``, ``getitem`` for a tuple's entry."""
    target: Any = node.target
    if target is operator.getitem:
        return "getitem"
    packet = getattr(target, "overloadpacket", None)
    name = str(packet.__name__ if packet is not None else getattr(target, "__name__", target))
    namespace = getattr(target, "namespace", "aten")
    return name if namespace == "aten" else f"{namespace}::{name}"


def ignores_values(node: fx.Node) -> bool:
    """Whether a call reads the shape of its tensor arguments and nothing else."""
    return packet_name(node) in _SHAPES_ONLY


def _has_fixed_data(node: fx.Node) -> bool:
    return not is_draw(node) and "empty" not in packet_name(node)


def is_draw(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def is_needed(node: fx.Node) -> bool:
    """Whether a call whose result nobody uses must be kept: it writes, or moves a generator."""
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    schema = getattr(node.target, "_schema", None)
    if schema is not None and schema.is_mutable:
        return True
    return is_draw(node) or packet_name(node) in HIDDEN_WRITERS


HIDDEN_WRITERS = frozenset({"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"})


def drop_detaches(module: fx.GraphModule) -> None:
    """Take the identities out that would cut the linear part off when it is transposed."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and packet_name(node) == "detach":
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code(is_impure_node=is_needed)
    module.recompile()


def merge_equal_calls(module: fx.GraphModule) -> None:
    """Let calls of one operator on the same operands be one. The graph must write nowhere before
    its last calls, which are left alone."""
    seen: dict[Any, fx.Node] = {}
    for node in list(module.graph.nodes):
        if node.op != "call_function" or is_needed(node) or "empty" in packet_name(node):
            continue
        if any(n.op == "call_function" and _writes(n) for n in node.all_input_nodes):
            continue
        key = (node.target, _spelled(node.args), _spelled(dict(node.kwargs)))
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            module.graph.erase_node(node)
    module.recompile()


def _spelled(value: Any) -> Any:
    """Equal only for equal operands: 1, 1.0 and True are three, and so are 0.0 and -0.0."""
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(_spelled, value))
    if isinstance(value, dict):
        return tuple((name, _spelled(value[name])) for name in sorted(value))
    if isinstance(value, slice):
        return ("slice", _spelled(value.start), _spelled(value.stop), _spelled(value.step))
    return value if isinstance(value, fx.Node) else (type(value), repr(value))


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def split(graph: PullbackGraph) -> tuple[fx.GraphModule, fx.GraphModule, list[fx.Node]]:
    """The forward part and the linear part as two modules, and the nodes handed from one to the
    other: ``forward(*inputs but cotangents) -> (handed..., outputs...)`` and
    ``linear(*handed, *cotangents) -> gradients``."""
    needed = [g for g in graph.gradients if g is not None]
    late = graph.late
    inside = ancestors(needed, late)
    used = [n for node in late if node in inside for n in node.all_input_nodes] + needed
    handed = dict.fromkeys(n for n in used if n not in late)
    forward = extract(
        graph,
        [i.node for i in graph.inputs if i.kind != "cotangent"],
        [n for n in graph.nodes if n.op in ("call_function", "get_attr") and n not in late],
        (*handed, *graph.results[len(graph.primals) :]),
    )
    linear = extract(
        graph,
        [*handed, *(i.node for i in graph.cotangents)],
        [n for n in late if n.op == "call_function" and n in inside],
        graph.gradients,
    )
    return forward, linear, list(handed)


def ancestors(ends: Sequence[fx.Node], within: dict[fx.Node, None]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    stack = [n for n in ends if n in within]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(n for n in node.all_input_nodes if n in within)
    return found


def extract(
    graph: PullbackGraph,
    inputs: Sequence[fx.Node],
    nodes: Sequence[fx.Node],
    results: Sequence[fx.Node | None],
) -> fx.GraphModule:
    """A part of the graph as a module of its own: ``inputs`` to ``results`` by way of ``nodes``."""
    piece = fx.Graph()
    copies = {node: piece.placeholder(f"in_{k}") for k, node in enumerate(inputs)}
    for node in nodes:
        copies[node] = piece.node_copy(node, copies.__getitem__)
    piece.output(tuple(None if r is None else copies[r] for r in results))
    piece.eliminate_dead_code(is_impure_node=is_needed)
    return _torch.graph_module(graph.module, piece)
