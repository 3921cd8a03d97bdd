"""Changes of a graph that make its compiled form right, or fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ... import _inductor

aten = torch.ops.aten

# Operators that write into a copy of their first argument.
_INTO_A_BASE = {
    getattr(aten, name)
    for name in (
        "index_add index_copy index_fill index_put index_reduce masked_scatter put scatter "
        "scatter_add scatter_reduce select_scatter slice_scatter _unsafe_index_put"
    ).split()
}


def lift_constants(module: fx.GraphModule) -> list[Tensor]:
    """Make closed-over tensors the last inputs, and those of one value calls of ``full``.

    A compiled graph that holds tensors of its own is kept by the disk cache under their content.
    """
    graph = module.graph
    places = graph.find_nodes(op="placeholder")
    last = places[-1] if places else None
    constants: list[Tensor] = []
    inputs: dict[int, fx.Node] = {}
    for node in graph.find_nodes(op="get_attr"):
        tensor = getattr(module, str(node.target))
        if _one_value(tensor):
            _replace(node, _full(graph, node, tensor))
            continue
        if id(tensor) not in inputs:
            with graph.inserting_after(last) if last else graph.inserting_before(None):
                last = inputs[id(tensor)] = graph.placeholder(f"constant_{len(constants)}")
            constants.append(tensor)
        _replace(node, inputs[id(tensor)])
    for node in graph.find_nodes(op="call_function", target=aten.arange.default):
        if node.meta["val"].numel() == 1:  # the number of the only color
            _replace(node, _full(graph, node, torch.zeros(1)))
    module.recompile()
    return constants


def _one_value(tensor: Tensor) -> bool:
    """NaN is none: it does not equal itself."""
    if not tensor.numel() or not tensor.is_contiguous() or tensor.dtype.is_complex:
        return False
    return bool((tensor == tensor.reshape(-1)[0]).all())


def _full(graph: fx.Graph, node: fx.Node, tensor: Tensor) -> fx.Node:
    like = node.meta.get("val", tensor)
    with graph.inserting_before(node):
        return graph.call_function(
            aten.full.default,
            (list(like.shape), tensor.reshape(-1)[0].item()),
            {"dtype": like.dtype, "device": like.device},
        )


def _replace(node: fx.Node, by: fx.Node) -> None:
    by.meta.setdefault("val", node.meta.get("val"))
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def rolls_as_slices(module: fx.GraphModule) -> None:
    """Read the shifts of one tensor along one dim from one copy of it with its ends repeated.

    As an operator of its own each roll is a pass over memory, and Inductor's form of it reads
    element by element. A copy and its slices are one pass for all of them. Only seeds, which follow
    from no input, keep Inductor's form: they are made where they are read, and in no memory.
    """
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=aten.roll.default):
        _one_dim_at_a_time(graph, node)
    while rolls := _rolls_of_inputs(graph):
        source, _, (dim,) = rolls[0].args  # the first: no other roll comes before it
        same = [n for n in rolls if n.args[0] is source and n.args[2] == [dim]]
        _read_from_a_copy(graph, source, dim, [(n, n.args[1][0]) for n in same])
    module.recompile()


def _rolls_of_inputs(graph: fx.Graph) -> list[Any]:
    """The rolls of what follows from an input, in the order of the graph."""
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
    found = graph.find_nodes(op="call_function", target=aten.roll.default)
    return [n for n in found if n.args[0] in varying]


def _one_dim_at_a_time(graph: fx.Graph, node: fx.Node) -> None:
    """Put a roll as rolls of one dim and one shift each, the dim counted from 0."""
    source: Any = node.args[0]
    shifts: Any = node.args[1]
    dims: Any = node.args[2] if len(node.args) > 2 else ()
    like = node.meta["val"]
    if not dims and like.dim() == 1:
        dims = (0,)
    with graph.inserting_before(node):
        result = source
        if not dims:
            flat = graph.call_function(aten.reshape.default, (source, [-1]))
            flat.meta["val"] = like.reshape(-1)
            rolled = _rolled(graph, flat, shifts[0], 0)
            result = graph.call_function(aten.reshape.default, (rolled, list(like.shape)))
        for shift, dim in zip(shifts, dims, strict=False):
            result = _rolled(graph, result, shift, dim % max(like.dim(), 1))
    _replace(node, result)


def _rolled(graph: fx.Graph, source: fx.Node, shift: int, dim: int) -> fx.Node:
    """The roll, or its source where nothing moves."""
    like = source.meta["val"]
    size = like.shape[dim] if like.dim() else 1
    shift = shift % size if size else 0
    if not shift:
        return source
    node = graph.call_function(aten.roll.default, (source, [shift], [dim]))
    node.meta["val"] = like
    return node


def _read_from_a_copy(
    graph: fx.Graph, source: fx.Node, dim: int, rolls: Sequence[tuple[fx.Node, int]]
) -> None:
    size = source.meta["val"].shape[dim]
    signed = [shift if shift <= size // 2 else shift - size for _, shift in rolls]
    before, after = max(0, *signed), max(0, *(-s for s in signed))
    if before + after > size // 2 and len(rolls) > 1:
        for one in rolls:
            _read_from_a_copy(graph, source, dim, [one])
        return

    def cut(of: fx.Node, start: int, stop: int) -> fx.Node:
        return graph.call_function(aten.slice.Tensor, (of, dim, start, stop))

    with graph.inserting_before(rolls[0][0]):
        parts = [cut(source, size - before, size)] if before else []
        parts += [source, *([cut(source, 0, after)] if after else [])]
        copy = graph.call_function(aten.cat.default, (parts, dim))
    for (node, _), shift in zip(rolls, signed, strict=True):
        with graph.inserting_before(node):
            _replace(node, cut(copy, before - shift, before - shift + size))


def first_into(module: fx.GraphModule) -> tuple[torch.Size, torch.dtype, torch.device] | None:
    """The form of the first output, if a loop that writes it can as well write it elsewhere.

    What is joined from pieces is written piece by piece, and would have to be copied; so would what
    is no more than a view of an input.
    """
    ends: Any = module.graph.output_node().args[0]
    node: Any = ends[0] if ends else None
    while getattr(node, "op", "") == "call_function" and getattr(node.target, "is_view", False):
        node = node.args[0]
    tags = getattr(getattr(node, "target", None), "tags", ())
    if torch.Tag.pointwise not in tags and getattr(node, "target", None) is not aten.clone.default:
        return None
    like = ends[0].meta["val"]
    return like.shape, like.dtype, like.device


def write_first_into(module: fx.GraphModule) -> None:
    """Make the place of the first output the last input."""
    graph = module.graph
    end = graph.output_node()
    ends: Any = end.args[0]
    first, *others = ends
    with graph.inserting_after(graph.find_nodes(op="placeholder")[-1]):
        place = graph.placeholder("into")
    like = first.meta["val"]
    with like.fake_mode:
        place.meta["val"] = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    with graph.inserting_before(end):
        written = graph.call_function(aten.copy_.default, (place, first))
    written.meta["val"] = place.meta["val"]
    end.args = (tuple(others),)
    module.recompile()


def own_outputs(module: fx.GraphModule) -> None:
    """Copy what would be returned in another layout than C order, or in the memory of an input or
    of another output."""
    graph = module.graph
    taken = {_memory(n) for n in graph.find_nodes(op="placeholder")}
    end = graph.output_node()
    results: list[Any] = list(end.args[0])  # type: ignore[arg-type]
    for k, node in enumerate(results):
        if _memory(node) in taken or not node.meta["val"].is_contiguous():
            with graph.inserting_before(end):
                results[k] = _contiguous(graph, node)
        taken.add(_memory(results[k]))
    end.args = (tuple(results),)
    module.recompile()


def _contiguous(graph: fx.Graph, node: fx.Node) -> fx.Node:
    form = torch.contiguous_format
    copy = graph.call_function(aten.clone.default, (node,), {"memory_format": form})
    like = node.meta["val"]
    with like.fake_mode:
        copy.meta["val"] = like.clone(memory_format=form)
    return copy


def _memory(node: fx.Node) -> int:
    return _inductor.memory_of(node.meta["val"])


def clone_expanded_bases(module: fx.GraphModule) -> None:
    """Give every write a base whose elements each have a place of their own.

    Inductor's sums into an expanded base are wrong on CPU (pytorch issue 183986).
    """
    graph = module.graph
    for node in graph.nodes:
        if getattr(node.target, "overloadpacket", None) not in _INTO_A_BASE:
            continue
        base = node.args[0]
        like = base.meta["val"]
        if not any(s == 0 and n > 1 for s, n in zip(like.stride(), like.shape, strict=True)):
            continue
        with graph.inserting_before(node):
            node.replace_input_with(base, _contiguous(graph, base))
    module.recompile()
