"""What a pass differentiates with respect to: which tensors, their names, their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import Node

from .. import _checks
from .._names import Names
from .._trees import Tree
from .events import Key, Leaf
from .graph import Graph, Port, port_of
from .provenance import parameter_name


@dataclass(frozen=True)
class Target:
    """A tensor whose gradient the pass computes, and where in the graph it is (if it is)."""

    key: Key
    tensor: Tensor
    port: Port | None
    had_grad: bool

    @property
    def label(self) -> str:
        return self.key if isinstance(self.key, str) else f"leaf {self.key}"

    def leaf(self, index: Mapping[Node, int], hooks: Mapping[Port, tuple[str, ...]]) -> Leaf:
        shape, dtype = tuple(self.tensor.shape), _checks.dtype_text(self.tensor.dtype)
        if self.port is None:
            return Leaf(self.key, shape, dtype, None, (), self.had_grad)
        node = index.get(self.port.node)
        return Leaf(self.key, shape, dtype, node, hooks.get(self.port, ()), self.had_grad)


@dataclass(frozen=True)
class Targets:
    """``asked`` says whether the user named the inputs; if not, they are all leaves."""

    items: tuple[Target, ...]
    asked: bool

    def ports(self) -> list[Port]:
        return [item.port for item in self.items if item.port is not None]


def find_targets(caller: str, graph: Graph, inputs: Tree, names: Names) -> Targets:
    if inputs is None:
        leaves = graph.leaves()
        keys = _keys([tensor for _, tensor in leaves], names)
        return Targets(
            tuple(
                Target(key, tensor, Port(node, 0), _has_grad(tensor))
                for key, (node, tensor) in zip(keys, leaves, strict=True)
            ),
            asked=False,
        )
    return targets_of(named_inputs(caller, inputs, names), graph, asked=True)


def targets_of(named: Mapping[Key, Tensor], graph: Graph, *, asked: bool) -> Targets:
    """These tensors, each with its place in ``graph``, if it has one."""
    nodes = {id(tensor): node for node, tensor in graph.leaves()}
    return Targets(
        tuple(
            Target(key, tensor, _port(tensor, graph, nodes.get(id(tensor))), _has_grad(tensor))
            for key, tensor in named.items()
        ),
        asked,
    )


def _port(tensor: Tensor, graph: Graph, leaf_node: Node | None) -> Port | None:
    if leaf_node is not None:
        return Port(leaf_node, 0)
    if tensor.is_leaf:
        return None
    port = port_of(tensor)
    return port if port.node in graph.children_of else None


def _has_grad(tensor: Tensor) -> bool:
    """Reading ``.grad`` of a tensor that cannot have one would warn."""
    return (tensor.is_leaf or tensor.retains_grad) and tensor.grad is not None


def named_inputs(caller: str, inputs: Tree, names: Names) -> dict[Key, Tensor]:
    """``inputs`` as the user may write them, checked: name, or position, to tensor."""
    if isinstance(inputs, nn.Module):
        inputs = {name: p for name, p in inputs.named_parameters() if p.requires_grad}
    leaves = _checks.leaves_of(caller, "inputs", inputs)
    _checks.outside_transforms(caller, leaves.tensors)
    _checks.differentiable_inputs(caller, "inputs", leaves)
    named = isinstance(inputs, Mapping)
    keys = _distinct(leaves.names) if named else _keys(leaves.tensors, names)
    return dict(zip(keys, leaves.tensors, strict=True))


def _keys(tensors: Sequence[Tensor], names: Names) -> list[Key]:
    return _distinct([names.of(tensor) or parameter_name(tensor) for tensor in tensors])


def _distinct(names: Sequence[str | None]) -> list[Key]:
    """Each name, or the position where the name is unknown or taken."""
    keys: list[Key] = []
    for position, name in enumerate(names):
        keys.append(position if name is None or name in keys else name)
    return keys
