"""Whether fusing the operators of a graph can pay: a pure function of the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Operations and bytes per second that one core reaches in library kernels and in copies. Their
# ratio alone matters.
_FLOPS, _BYTES = 2e10, 1e10


def worth_compiling(graph: fx.Graph) -> str:
    """Why compiling ``graph`` would not pay, or nothing where it may.

    A compiler saves passes over memory and calls of small operators. Convolutions and matrix
    products stay the library calls that they are. ``graph`` holds ATen operators, and the tensors
    that they give as ``meta["val"]``, as ``make_fx`` leaves them.
    """
    library, passes, names = 0.0, 0.0, []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        given, found = _values(node.args), _values(node)
        packet = getattr(node.target, "overloadpacket", None)
        if packet in flop_registry:
            library += _flops(node, packet) / _FLOPS
            names.append(str(packet).removeprefix("aten."))
        elif not getattr(node.target, "is_view", False):
            passes += sum(t.numel() * t.element_size() for t in (*given, *found)) / _BYTES
    if library <= passes:
        return ""
    most = ", ".join(sorted(set(names)))
    share = library / (library + passes)
    return f"{most}: library kernels take about {share:.0%} of the time, and stay as they are"


def _values(node: Any) -> list[Tensor]:
    nodes = [n for n in tree_leaves(node) if isinstance(n, fx.Node)]
    return [t for n in nodes for t in tree_leaves(n.meta.get("val")) if isinstance(t, Tensor)]


def _flops(node: fx.Node, packet: Any) -> float:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    return float(flop_registry[packet](*args, **kwargs, out_val=node.meta["val"]))
