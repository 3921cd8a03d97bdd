"""A graph of ATen calls as the source of one Python function."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# The same calls by way of torch's bindings, which parse their arguments in half the time.
_BOUND: dict[Any, Any] = {
    getattr(getattr(aten, name), overload): getattr(torch, name)
    for name, overload in (
        entry.split(".")
        for entry in (
            "add.Tensor sub.Tensor mul.Tensor mul.Scalar div.Tensor neg.default abs.default "
            "exp.default log.default sin.default cos.default tanh.default sigmoid.default "
            "sqrt.default rsqrt.default reciprocal.default relu.default pow.Tensor_Scalar "
            "mm.default bmm.default t.default permute.default transpose.int unsqueeze.default "
            "squeeze.dim select.int cat.default stack.default where.self unbind.int "
            "index_select.default clone.default"
        ).split()
    )
}
# A tidy graph has lost the strides that views were made for.
_BOUND |= dict.fromkeys(
    (aten.view.default, aten._unsafe_view.default, aten.reshape.default), Tensor.reshape
)


def generated(graph: fx.Graph, values: dict[fx.Node, Tensor]) -> Callable[..., Any]:
    """``graph`` as a function of its placeholders but those in ``values``, which it holds.

    Every result is let go of after its last use, as in ``torch.fx``.
    """
    names: dict[fx.Node, str] = {}
    bound: dict[str, Any] = {}

    def bind(thing: Any) -> str:
        name = f"g{len(bound)}"
        bound[name] = thing
        return name

    def spelled(arg: Any) -> str:
        if isinstance(arg, fx.Node):
            return names[arg]
        if isinstance(arg, (list, tuple)):
            inside = ", ".join(map(spelled, arg))
            return f"[{inside}]" if isinstance(arg, list) else f"({inside}{',' * bool(arg)})"
        plain = arg is None or type(arg) in (bool, int, str)
        if plain or (type(arg) is float and math.isfinite(arg)):
            return repr(arg)
        return bind(arg)

    given: list[str] = []
    lines: list[str] = []
    gone = _last_uses(graph)
    for k, node in enumerate(graph.nodes):
        names[node] = f"v{k}"
        if node in values:
            names[node] = bind(values[node])
        elif node.op == "placeholder":
            given.append(names[node])
        elif node.op == "output":
            lines.append(f"return {spelled(tuple(node.args[0]))}")
        elif node.target is operator.getitem:
            lines.append(f"{names[node]} = {spelled(node.args[0])}[{spelled(node.args[1])}]")
        else:
            target = node.target
            call = bind(_BOUND.get(target) or getattr(target, "_op", target))
            words = [*map(spelled, node.args)]
            words += [f"{name}={spelled(value)}" for name, value in node.kwargs.items()]
            lines.append(f"{names[node]} = {call}({', '.join(words)})")
        if dead := [names[n] for n in gone.get(node, ()) if n not in values]:
            lines.append(f"del {', '.join(dead)}")
    source = "\n    ".join([f"def line({', '.join(given)}):", *lines])
    exec(source, bound)
    found: Callable[..., Any] = bound["line"]
    return found


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """The nodes that nobody reads after a call; what nobody reads at all goes at once."""
    last = {node: node for node in graph.nodes}
    for node in graph.nodes:
        for used in node.all_input_nodes:
            last[used] = node
    found: dict[fx.Node, list[fx.Node]] = {}
    for node, user in last.items():
        if user.op != "output" and node.op != "output":
            found.setdefault(user, []).append(node)
    return found


def own_memory(graph: fx.Graph, results: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    """Clone every result that lies in the memory of what is ``given`` or of another result, or is
    not in C order; whether there was any."""
    taken = {t.untyped_storage().data_ptr() for t in given if t.numel()}
    end = graph.output_node()
    nodes: list[Any] = list(end.args[0])  # type: ignore[arg-type]
    changed = False
    for k, (node, tensor) in enumerate(zip(nodes, results, strict=True)):
        place = tensor.untyped_storage().data_ptr()
        if tensor.numel() and (place in taken or not tensor.is_contiguous()):
            with graph.inserting_before(end):
                form: Any = {"memory_format": torch.contiguous_format}
                nodes[k] = graph.call_function(aten.clone.default, (node,), form)
            changed = True
        taken.add(place)
    end.args = (tuple(nodes),)
    return changed
