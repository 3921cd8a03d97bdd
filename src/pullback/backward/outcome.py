"""A pass that was asked for, and the record made of it when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _checks, _torch
from .._checks import Leaves
from .events import Cotangent, Deposits, Edge, Key, Output
from .graph import Graph, Port
from .numbering import number
from .passlog import OF_OUTPUTS, Keeper
from .record import BackwardRecord
from .targets import Target, Targets
from .watch import Watcher

TensorHooks = dict[Port, tuple[str, ...]]


class Job(NamedTuple):
    """One pass to be run: all of it checked."""

    caller: str
    graph: Graph
    out: Leaves
    values: tuple[Tensor, ...]
    targets: Targets
    accumulate: bool = False
    retain: bool = True
    keep: str = "stats"


def hooks_on_nodes(hooked: Sequence[Tensor]) -> TensorHooks:
    """The names of the hooks on tensors, by where in the graph they act."""
    found: TensorHooks = {}
    for tensor in hooked:
        if tensor.grad_fn is not None:
            port = Port(tensor.grad_fn, tensor.output_nr)
            found[port] = found.get(port, ()) + _torch.tensor_hook_names(tensor)
    return found


def finished(
    job: Job, watcher: Watcher, seeds: Sequence[Cotangent], hooks: TensorHooks
) -> BackwardRecord:
    """The record of what ``watcher`` saw of ``job``."""
    if job.accumulate and any(event.error for event in watcher.own.fired):
        hooks = hooks_on_nodes(_torch.watched_tensors(job.graph.children_of).hooked)
    hooks = {**hooks, **_hooks_of_targets(job.targets)}
    keys: dict[Node, Key] = {}
    for target in job.targets.items:
        if target.port is not None:
            keys.setdefault(target.port.node, target.key)
    nodes, index = number(watcher, hooks, keys)
    deposits = watcher.own.deposits
    return BackwardRecord(
        outputs=tuple(_outputs(job, seeds, index)),
        seeds=tuple(
            Edge(None, k, index[port.node], port.slot, seed)
            for k, (port, seed) in enumerate(zip(job.graph.roots, seeds, strict=True))
            if port.node in index
        ),
        nodes=nodes,
        leaves=tuple(t.leaf(index, hooks) for t in job.targets.items),
        deposits=Deposits(
            {t.key: deposits[t.port] for t in job.targets.items if t.port in deposits}
        ),
        accumulate=job.accumulate,
        retain_graph=job.retain,
        keep=job.keep,
        torch_version=str(torch.__version__),
        notes=tuple(_notes(job, watcher)),
        tolerance=_tolerance(job),
    )


def _outputs(job: Job, seeds: Sequence[Cotangent], index: dict[Node, int]) -> Iterator[Output]:
    keeper = Keeper(job.keep, single=OF_OUTPUTS)
    for name, tensor, port, seed in zip(
        job.out.names, job.out.tensors, job.graph.roots, seeds, strict=True
    ):
        dtype = _checks.dtype_text(tensor.dtype)
        place = index.get(port.node)
        yield Output(name, tuple(tensor.shape), dtype, place, port.slot, seed, keeper(tensor))


def _hooks_of_targets(targets: Targets) -> TensorHooks:
    return {
        target.port: _torch.tensor_hook_names(target.tensor)
        for target in targets.items
        if target.port is not None and target.tensor._backward_hooks
    }


def _tolerance(job: Job) -> float:
    """Sums of the same terms in another order differ by a few units of the coarsest dtype."""
    tensors = [*job.out.tensors, *(t.tensor for t in job.targets.items)]
    return 8 * max(torch.finfo(tensor.dtype).eps for tensor in tensors)


_OPAQUE = {
    "CompiledFunctionBackward": "one torch.compile region; what happened inside it is not seen",
    "CheckpointFunctionBackward": (
        "a reentrant checkpoint: it ran a backward of its own, whose nodes are not seen and whose "
        "writes to .grad are not among the deposits"
    ),
}


def _notes(job: Job, watcher: Watcher) -> Iterator[str]:
    for target in job.targets.items:
        if target.port is None:
            yield (
                f"{target.label} is not reached from the outputs: no deposit, its .grad stays as "
                f"it is."
            )
        elif target.port not in watcher.own.deposits:
            yield (
                f"{target.label} is reached, but no gradient is defined there: no deposit (not a "
                f"zero)."
            )
    for node in job.graph.nodes:
        reason = _OPAQUE.get(_torch.node_name(node))
        if reason:
            yield f"{_torch.node_name(node)} is {reason}."
    if not job.accumulate:
        yield from _notes_on_a_look(job.targets.items, watcher)


def _notes_on_a_look(targets: Sequence[Target], watcher: Watcher) -> Iterator[str]:
    for names in watcher.sleeping_hooks.values():
        yield (
            f"A look does not write .grad, so the hooks on the node that writes it did not run: "
            f"{', '.join(names)}."
        )
    for target in targets:
        names = _torch.post_accumulate_hook_names(target.tensor)
        if names:
            yield (
                f"A look does not write .grad, so the hooks that run after {target.label} got its "
                f"own did not run: {', '.join(names)}."
            )
    if _torch.frozen_objects():
        yield (
            "gc.freeze() hides the tensors made before it: where one of them retains its gradient "
            "this look has added to it, and hooks on them are not named."
        )
