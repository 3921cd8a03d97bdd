"""The recorded graph traced once more without its writes, with owned tensors as inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from .. import _checks
from .arguments import Arguments, fresh
from .captured import NotCaptured, Recorded
from .graph import Input, Meta, PullbackGraph, is_draw, is_needed, merge_equal_calls
from .owners import Owners
from .tape import Tape
from .writes import without_writes


def functional(
    recorded: Recorded,
    arguments: Arguments,
    owners: Owners,
    frozen: frozenset[str],
    guards: set[str],
) -> tuple[PullbackGraph, list[str], list[Tensor]]:
    """The raw graph traced once more without its writes, with owned tensors as inputs."""
    tape, raw = recorded.tape, recorded.module
    owned: dict[str, tuple[Tensor, list[fx.Node]]] = {}
    for node in list(raw.graph.nodes):
        if node.op == "get_attr" and node.target not in tape.literals:
            path = owners.of(str(node.target))
            owned.setdefault(path, (tape.constants[str(node.target)], []))[1].append(node)
    _refuse_shared_writes(tape, [tensor for tensor, _ in owned.values()])
    for tensor, _ in owned.values():
        if tensor.layout is not torch.strided:
            raise NotCaptured(f"it uses a tensor of layout {tensor.layout}")
    with raw.graph.inserting_before(next(iter(raw.graph.nodes))):
        for k, (_, nodes) in enumerate(owned.values()):
            placeholder = raw.graph.placeholder(f"owned_{k}")
            for node in nodes:
                node.replace_all_uses_with(placeholder)
                raw.graph.erase_node(node)
    before = [tape.written.get(_name_of(tape, t), t) for t, _ in owned.values()]
    tensors = [fresh(t) for t in (*before, *arguments.primals, *arguments.others)]
    tensors += recorded.cotangents

    pure = without_writes(raw, tensors)
    merge_equal_calls(pure)
    kinds = (
        [("owned", path) for path in owned]
        + [("primal", name) for name in arguments.primal_names]
        + [("argument", name) for name in arguments.other_names]
        + [("cotangent", f"cotangent {k}") for k in range(len(recorded.cotangents))]
    )
    placeholders = [n for n in pure.graph.nodes if n.op == "placeholder"]
    inputs = [
        Input(kind, name, Meta.of(tensor), node)
        for (kind, name), tensor, node in zip(kinds, tensors, placeholders, strict=True)
    ]
    graph = PullbackGraph(
        pure, inputs, [Meta.of(t) for t in arguments.primals], len(recorded.outputs)
    )
    exact = [
        i.name
        for i in inputs
        if not _checks.can_carry_gradients(i.meta.dtype) and owners.is_known(i.name)
    ]
    graph.classify(frozenset([*exact, *guards]) | frozen, literals=not owners.lenient)
    for node in graph.late:
        if node.op == "call_function" and is_needed(node):
            what = "draws random numbers" if is_draw(node) else "writes to a tensor of others"
            raise NotCaptured(f"its backward {what}", None)
    return graph, list(owned), tensors


def _name_of(tape: Tape, tensor: Tensor) -> str:
    return next(name for name, t in tape.constants.items() if t is tensor)


def _refuse_shared_writes(tape: Tape, owned: Sequence[Tensor]) -> None:
    places = [_storage_of(t) for t in owned]
    for name in tape.written:
        if places.count(_storage_of(tape.constants[name])) > 1:
            raise NotCaptured("it writes to memory that several of its tensors share")


def _storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
