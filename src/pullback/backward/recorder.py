"""``pb.record``: run exactly one backward and write down what it did."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _checks, _torch
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from .graph import Graph, Port, walk
from .live import Live
from .looks import collector_paused, look
from .offers import refuse_missing
from .outcome import Job, TensorHooks, finished, hooks_on_nodes
from .passlog import Keeper
from .record import BackwardRecord
from .targets import Target, find_targets
from .watch import Watcher

_CALLER = "pb.record"


def record(
    outputs: Tree,
    cotangents: Tree = None,
    *,
    inputs: Tree = None,
    accumulate: bool = False,
    keep: str = "stats",
    retain_graph: bool | None = None,
) -> BackwardRecord:
    """Run one backward pass from ``outputs`` and record every cotangent that passed.

    The pass computes the vector-Jacobian products ``v . J`` of the outputs with respect to the
    leaves, as ``torch.autograd.backward(outputs, cotangents)`` does. By default it only looks:
    no ``.grad`` changes (nor that of tensors that retain theirs), the graph is kept, no hook stays
    behind, the random state is as before. The user's own tensor hooks do run, since they change
    the values; hooks that wait for ``.grad`` to be written do not.

    Args:
        outputs: a tensor with a graph, or a pytree of them.
        cotangents: the same structure as ``outputs``, each with the shape, dtype and device of its
            output. None stands for 1 where an output has one element.
        inputs: what to differentiate with respect to: a tensor, a sequence, a mapping of names to
            tensors, or a module (its parameters, by name). None: every leaf of the graph.
        accumulate: also add to ``.grad``, leaving it bitwise as ``torch.autograd.backward`` would.
        keep: ``"stats"`` keeps numbers about every cotangent, and the values of small ones;
            ``"tensors"`` keeps all values.
        retain_graph: None keeps the graph in a look, and frees it (torch's default) with
            ``accumulate=True``.

    Returns:
        A `BackwardRecord`. Its deposits have the shapes of the leaves.

    Raises:
        CotangentError: a cotangent is missing, or has another shape, dtype, device or structure.
        GraphError: an output has no graph, or its graph was freed.
        UnsupportedError: inside a torch.func transform; or a look at a reentrant checkpoint.
        ArgumentError, TreeError: other arguments that cannot be used.

    Example:
        >>> import torch, pullback as pb
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> seen = pb.record((w * w).sum(), inputs={"w": w})
        >>> seen.deposits["w"], w.grad, seen.conserved
        (tensor([2., 4.]), None, True)

    Source: the hooks of ``torch.autograd.graph.Node``; PyTorch documentation, "Autograd mechanics".
    """
    _checks.one_of(_CALLER, "keep", keep, ("stats", "tensors"))
    _checks.flag(_CALLER, "accumulate", accumulate)
    if retain_graph is not None:
        _checks.flag(_CALLER, "retain_graph", retain_graph)
    job = job_of(_CALLER, outputs, cotangents, inputs, CallerNames(_CALLER))
    retain = (not accumulate) if retain_graph is None else retain_graph
    return run_pass(job._replace(accumulate=accumulate, retain=retain, keep=keep))


def job_of(caller: str, outputs: Tree, cotangents: Tree, inputs: Tree, names: CallerNames) -> Job:
    """The pass that the public function ``caller`` was asked for, checked: a look."""
    out, values = weighed_outputs(caller, outputs, cotangents, names)
    graph = walk(out.tensors)
    return Job(caller, graph, out, values, find_targets(caller, graph, inputs, names))


def weighed_outputs(
    caller: str, outputs: Tree, cotangents: Tree, names: CallerNames
) -> tuple[Leaves, tuple[Tensor, ...]]:
    """The differentiated outputs and a cotangent for each, checked."""
    out = output_leaves(caller, outputs, names)
    missing = _checks.missing_cotangents(out, cotangents)
    if missing:
        refuse_missing(caller, out, missing[0], names)
    return out, _checks.cotangents_for(caller, out, cotangents)


def run_pass(job: Job) -> BackwardRecord:
    """Run the one backward of ``job`` under watch."""
    watcher = Watcher(job.graph, Keeper(job.keep))
    with torch.no_grad(), collector_paused():
        seeds = watcher.seed(job.values)
        try:
            hooks = _run(job, watcher)
        except RuntimeError as error:
            explain_failure(job.caller, error, job.out, job.graph)
            raise
        finally:
            watcher.unwatch()
        record = finished(job, watcher, seeds, hooks)
    Live(job).stand_behind(record)
    return record


def output_leaves(caller: str, outputs: Tree, names: CallerNames) -> Leaves:
    """The differentiated outputs, named and checked."""
    name = None
    if isinstance(outputs, Tensor):
        name = names.of(outputs) or names.first_argument()
    out = _checks.leaves_of(caller, "outputs", outputs, name=name)
    _checks.outside_transforms(caller, out.tensors)
    _checks.has_graph(caller, out)
    _checks.has_values(caller, out)
    return out


def _run(job: Job, watcher: Watcher) -> TensorHooks:
    if job.accumulate:
        _accumulate(job, watcher)
        return {}
    with _torch.untouched(job.graph.children_of) as watched:
        look(job, watcher)
    return hooks_on_nodes(watched.hooked)


def _accumulate(job: Job, watcher: Watcher) -> None:
    watcher.watch(leaves=True)
    marker = watcher.marker
    inner = [t for t in job.targets.items if t.port is not None and not t.tensor.is_leaf]
    passed: dict[tuple[int, Port], Tensor] = {}
    handles = [_read_on_the_way(target, passed) for target in inner]
    asked = [marker.leaf, *(t.tensor for t in job.targets.items)] if job.targets.asked else None
    try:
        torch.autograd.backward(
            [marker.output, *job.out.tensors],
            [marker.weight, *job.values],
            retain_graph=job.retain,
            inputs=asked,
        )
    finally:
        for handle in handles:
            handle.remove()
    for (task, port), value in passed.items():
        if task == watcher.task:
            watcher.own.capture(port, value)


def _read_on_the_way(target: Target, passed: dict[tuple[int, Port], Tensor]) -> Any:
    """A pass that accumulates hands back nothing for an input that is not a leaf."""
    port = target.port
    assert port is not None

    def read(grad: Tensor) -> None:
        passed[_torch.graph_task(), port] = grad.detach().clone()

    return target.tensor.register_hook(read)


def explain_failure(caller: str, error: RuntimeError, out: Leaves, graph: Graph) -> None:
    """Say more than torch where the reason is known; return where it is not."""
    text = str(error)
    if "backward through the graph a second time" in text or "already been freed" in text:
        freed = [node for node in graph.nodes if _torch.freed_tensor(node)]
        first = max(freed, key=_torch.sequence_number, default=None)  # the engine's own order
        _checks.graph_is_freed(
            caller, out.names, None if first is None else _torch.node_name(first)
        )
    if "use_reentrant=True" in text:
        _checks.reentrant_checkpoint(caller)
