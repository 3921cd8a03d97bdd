"""The pullback graph of outputs that have an autograd graph already: the backward alone.

Every tensor that the backward reads is a constant of this one point. So are indices that follow
from the inputs: the pattern is that of the point, and holds elsewhere only for an equal graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from .. import _checks
from .._engines import Source, gradients
from .captured import NotCaptured, without_autocast
from .detect import detect, linear_by_rule
from .graph import Input, Meta, PullbackGraph, is_needed, packet_name
from .reads import COTANGENT
from .tape import Tape, reads_of_cotangents
from .trial import Trial, weights
from .writes import without_writes


@dataclass
class BackwardGraph:
    """``key`` is equal for two graphs of one structure whose indices have equal content; ``saved``
    are the tensors that the backward reads, in the order of the graph's inputs."""

    graph: PullbackGraph
    key: str
    saved: list[Tensor] = field(default_factory=list, repr=False)


def backward_graph(
    caller: str,
    outputs: Sequence[Tensor],
    inputs: Sequence[Source],
    like: Sequence[Tensor],
    known: Container[str] = (),
) -> BackwardGraph:
    """Record one backward pass from ``outputs`` to ``inputs``, shaped ``like``; keeps the graph.

    A graph whose key is ``known`` was found to be linear in its cotangents before.

    Raises ``NotCaptured`` where the pass cannot be recorded or depends on its cotangent's values.
    """
    tape = Tape()
    cotangents = weights(outputs)
    for k, cotangent in enumerate(cotangents):
        tape.input(cotangent, f"cotangent_{k}", COTANGENT)
    try:
        with tape.recording():
            found = gradients(outputs, inputs, cotangents)
    finally:
        tape.restore()
    if reason := reads_of_cotangents(tape):
        raise NotCaptured(reason)
    for reason in (*tape.problems, *tape.draws.problems):
        raise NotCaptured(reason)
    if not tape.saw(found):
        raise NotCaptured("its gradients come from out of the tape's sight")
    raw = tape.module([None if g is None else tape.node_of(g) for g in found])
    raw.graph.eliminate_dead_code(is_impure_node=is_needed)
    found_graph, saved = _pure(raw, tape, like, cotangents)
    if found_graph.key in known:
        return found_graph
    pull = fx.Interpreter(found_graph.graph.module)
    trial = Trial.of(lambda v: pull.run(*saved, *v), cotangents, found_graph.graph.rounding)
    if not trial.is_linear(linear_by_rule(found_graph.graph)):
        detect(caller, found_graph.graph)  # names the operator, where a rule knows it
        raise _checks.nonlinear_backward(caller)
    return found_graph


def _pure(
    raw: fx.GraphModule, tape: Tape, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[BackwardGraph, list[Tensor]]:
    constants: dict[str, Tensor] = {}
    if any(t.layout is not torch.strided for t in tape.constants.values()):
        raise NotCaptured("its backward holds a tensor that is not strided")
    first = next(iter(raw.graph.nodes))
    for node in [n for n in raw.graph.nodes if n.op == "get_attr"]:
        name = str(node.target)
        with raw.graph.inserting_before(first):
            node.replace_all_uses_with(raw.graph.placeholder(f"saved_{len(constants)}"))
        constants[name] = tape.constants[name]
        raw.graph.erase_node(node)
    tensors = [*(t.detach() for t in constants.values()), *cotangents]

    with torch.no_grad():
        pure = without_writes(raw, tensors)
    names = list(constants) + [f"cotangent {k}" for k in range(len(cotangents))]
    kinds = ["owned"] * len(constants) + ["cotangent"] * len(cotangents)
    placeholders = [n for n in pure.graph.nodes if n.op == "placeholder"]
    graph = PullbackGraph(
        pure,
        [
            Input(kind, name, Meta.of(t), node)
            for kind, name, t, node in zip(kinds, names, tensors, placeholders, strict=True)
        ],
        [Meta.of(t) for t in inputs],
        0,
    )
    exact = {i.name for i in graph.inputs if not _checks.can_carry_gradients(i.meta.dtype)}
    graph.classify(frozenset(exact))
    with without_autocast():
        graph.survey(tensors)
    saved = tensors[: len(constants)]
    return BackwardGraph(graph, structure_key(graph), saved), saved


def structure_key(graph: PullbackGraph) -> str:
    """A digest of the calls, their shapes and options, of the tensors that the program made of
    Python numbers, and of all fixed data that rules may use."""
    digest = hashlib.sha256()
    numbers: dict[fx.Node, int] = {}
    for node in graph.nodes:
        numbers[node] = len(numbers)
        call = fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{numbers[n]}")
        name = packet_name(node) if node.op == "call_function" else node.op
        digest.update(f"{name} {call} {graph.metas.get(node)}\n".encode())
        literal = getattr(graph.module, str(node.target)) if node.op == "get_attr" else None
        if isinstance(literal, Tensor):
            digest.update(content_digest(literal).encode())
    for node, data in graph.data.items():
        digest.update(f"{numbers[node]}".encode())
        digest.update(content_digest(data).encode())
    return digest.hexdigest()


def content_digest(tensor: Tensor) -> str:
    """A digest of a tensor's shape, dtype and content, bit by bit."""
    plain = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    head = f"{tuple(plain.shape)} {plain.dtype}".encode()
    flat = plain.reshape(-1).view(torch.uint8) if plain.numel() else plain.new_zeros(0)
    return hashlib.sha256(head + flat.numpy().tobytes()).hexdigest()
