"""Values of the forward pass that a graph still holds, and the first of them that is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .finite import Bad, first_bad
from .graph import Graph, Port
from .local import recomputed
from .operations import OPERATIONS

# The place, among a node's inputs, of what it saves under a name.
_PLACES = {"self": 0, "other": 1, "mat2": 1, "x1": 0, "x2": 1, "input": 0, "exponent": 1, "A": 0}
_PLACES |= {"tensor1": 1, "tensor2": 2, "tensor": 0}
_RESULTS = ("result", "result0", "output")


@dataclass(frozen=True, eq=False)
class Origin:
    """The first node, in the order of the forward pass, with a result that is not finite.

    ``operands`` are what it saved; ``bad_operand`` names a saved one that is not finite itself
    (a constant, then: what was computed would come first). ``unseen`` counts the inputs with a
    graph whose values nothing has kept, ``strange`` those known to hold an inf or a nan.
    """

    node: Node
    slot: int
    value: Tensor
    bad: Bad
    operands: Mapping[str, Tensor]
    bad_operand: str
    unseen: int
    strange: int


def known_values(graph: Graph, outputs: Sequence[Tensor]) -> dict[Port, Tensor]:
    """What the graph holds of its own forward: outputs, leaves, and what nodes have saved.

    What hooks have packed (in a checkpoint, say) stays unknown. The result of an operation whose
    operands were saved is computed anew; where it is finite, a 0 stands for it.
    """
    values: dict[Port, Tensor] = {}
    for port, output in zip(graph.roots, outputs, strict=True):
        values.setdefault(port, output.detach())
    for node, leaf in graph.leaves():
        values.setdefault(Port(node, 0), leaf.detach())
    for node, ports in graph.children_of.items():
        _add_saved(node, ports, values)
    for node in graph.nodes:
        if Port(node, 0) not in values and _torch.node_name(node) in OPERATIONS:
            again = recomputed(node)
            if again is not None and _fits(Port(node, 0), again):
                finite = bool(again.isfinite().all())
                values[Port(node, 0)] = again.new_zeros(()).expand(again.shape) if finite else again
    return values


def _add_saved(node: Node, ports: Sequence[Port | None], values: dict[Port, Tensor]) -> None:
    saved = _torch.plainly_saved(node)
    name = _torch.node_name(node)
    for key, tensor in saved.items():
        port: Port | None = None
        if key in _RESULTS:
            port = Port(node, 0)
        elif key in _PLACES:
            place = 0 if name == "PowBackward2" else _PLACES[key]
            port = ports[place] if place < len(ports) else None
        if port is not None and port not in values and _fits(port, tensor):
            values[port] = tensor


def _fits(port: Port, tensor: Tensor) -> bool:
    slots = _torch.slots(port.node)
    if port.slot >= len(slots):
        return False
    return slots[port.slot].shape == tuple(tensor.shape) and slots[port.slot].dtype == tensor.dtype


def forward_origin(graph: Graph, values: Mapping[Port, Tensor], kind: str) -> Origin | None:
    """The earliest known value with entries of ``kind``; nodes are numbered as they are made."""
    nodes = sorted(graph.nodes, key=_order)
    seen: dict[Node, list[tuple[int, Tensor]]] = {}
    for port, value in values.items():
        seen.setdefault(port.node, []).append((port.slot, value))
    for node in nodes:
        for slot, value in sorted(seen.get(node, ()), key=lambda pair: pair[0]):
            bad = first_bad(value, kind)
            if bad is not None:
                return _origin(graph, values, Port(node, slot), value, bad)
    return None


def _order(node: Node) -> int:
    """Leaves were there before anything was computed."""
    return -1 if _torch.leaf_of(node) is not None else _torch.sequence_number(node)


def _origin(
    graph: Graph, values: Mapping[Port, Tensor], port: Port, value: Tensor, bad: Bad
) -> Origin:
    node = port.node
    operands = {
        name: tensor
        for name, tensor in _torch.plainly_saved(node).items()
        if name not in _RESULTS and (tensor.is_floating_point() or tensor.is_complex())
    }
    strange = next((n for n, t in operands.items() if first_bad(t, bad.kind) is not None), "")
    inputs = [p for p in graph.children_of[node] if p is not None]
    unseen = sum(p not in values for p in inputs)
    odd = len(strange_inputs(graph, values, node))
    return Origin(node, port.slot, value, bad, operands, strange, unseen, odd)


def lies_behind(graph: Graph, earlier: Node, later: Node) -> bool:
    """Whether ``later`` was computed from what ``earlier`` made."""
    stack, seen = [later], {later}
    while stack:
        for port in graph.children_of[stack.pop()]:
            if port is not None and port.node not in seen:
                seen.add(port.node)
                stack.append(port.node)
    return earlier in seen


def strange_inputs(graph: Graph, values: Mapping[Port, Tensor], node: Node) -> list[Node]:
    """The inputs of ``node`` whose known value holds an inf or a nan."""
    return [
        port.node
        for port in graph.children_of[node]
        if port is not None and port in values and not bool(torch.isfinite(values[port]).all())
    ]
