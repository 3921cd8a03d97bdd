"""``pb.record``: run exactly one backward and write down what it did."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from .. import _checks, _torch
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from .events import Cotangent, Deposits, Edge, Key, Output
from .graph import Graph, Port, walk
from .offers import refuse_missing
from .record import BackwardRecord
from .targets import Target, Targets, find_targets
from .watch import Keeper, Watcher, number

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
    names = CallerNames()
    out = output_leaves(_CALLER, outputs, names)
    missing = _checks.missing_cotangents(out, cotangents)
    if missing:
        refuse_missing(_CALLER, out, missing[0], names)
    values = _checks.cotangents_for(_CALLER, out, cotangents)
    retain = (not accumulate) if retain_graph is None else retain_graph
    graph = walk(out.tensors)
    targets = find_targets(_CALLER, graph, inputs, names)
    return run_pass(Job(_CALLER, graph, out, values, targets, accumulate, retain, keep))


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


def run_pass(job: Job) -> BackwardRecord:
    """Run the one backward of ``job`` under watch."""
    watcher = Watcher(job.graph, Keeper(job.keep))
    with torch.no_grad(), _collector_paused():
        seeds = watcher.seed(job.values)
        try:
            hooks = _run(job, watcher)
        except RuntimeError as error:
            explain_failure(job.caller, error, job.out, job.graph)
            raise
        finally:
            watcher.unwatch()
        return _finish(job, watcher, seeds, hooks)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A record makes many small objects that stay: each full collection would walk them all."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def output_leaves(caller: str, outputs: Tree, names: CallerNames) -> Leaves:
    """The differentiated outputs, named and checked."""
    name = None
    if isinstance(outputs, Tensor):
        name = names.of(outputs) or names.first_argument()
    out = _checks.leaves_of(caller, "outputs", outputs, name=name)
    _checks.outside_transforms(caller, out.tensors)
    _checks.has_graph(caller, out)
    return out


TensorHooks = dict[Port, tuple[str, ...]]


def _run(job: Job, watcher: Watcher) -> TensorHooks:
    if job.accumulate:
        _accumulate(job, watcher)
        return _hooks_of_targets(job.targets)
    with _torch.untouched() as watched:
        _look(job, watcher)
    return {**_hooks_on_nodes(watched.hooked, job.graph), **_hooks_of_targets(job.targets)}


def _look(job: Job, watcher: Watcher) -> None:
    ports = job.targets.ports()
    watcher.watch(leaves=False)
    if not ports:
        return
    grads = torch.autograd.grad(
        job.out.tensors,
        [GradientEdge(port.node, port.slot) for port in ports],
        job.values,
        retain_graph=job.retain,
        allow_unused=True,
    )
    taken = {v.untyped_storage().data_ptr() for v in job.values if v.layout is torch.strided}
    hooked = {t.port for t in job.targets.items if t.tensor._backward_hooks}
    for port, grad in zip(ports, grads, strict=True):
        ours = grad is not None and port not in hooked and _alone(grad, taken)
        watcher.capture(port, grad, ours=ours)


def _alone(grad: Tensor, taken: set[int]) -> bool:
    """Whether ``grad`` has memory of its own, all of it its entries; marks it as taken.

    Two leaves may be handed the same memory (both sides of an addition), or that of a cotangent.
    """
    if grad.layout is not torch.strided or grad.is_mkldnn:
        return False
    storage = grad.untyped_storage()
    shared = storage.data_ptr() in taken
    taken.add(storage.data_ptr())
    return not shared and storage.nbytes() == grad.numel() * grad.element_size()


def _accumulate(job: Job, watcher: Watcher) -> None:
    watcher.watch(leaves=True)
    inner = [t for t in job.targets.items if t.port is not None and not t.tensor.is_leaf]
    passed: dict[Port, Tensor] = {}
    handles = [_read_on_the_way(target, passed) for target in inner]
    try:
        torch.autograd.backward(
            job.out.tensors,
            job.values,
            retain_graph=job.retain,
            inputs=[t.tensor for t in job.targets.items] if job.targets.asked else None,
        )
    finally:
        for handle in handles:
            handle.remove()
    for target in inner:
        assert target.port is not None
        watcher.capture(target.port, passed.get(target.port))


def _read_on_the_way(target: Target, passed: dict[Port, Tensor]) -> Any:
    """A pass that accumulates hands back nothing for an input that is not a leaf."""

    def read(grad: Tensor) -> None:
        assert target.port is not None
        passed[target.port] = grad.detach().clone()

    return target.tensor.register_hook(read)


def _hooks_on_nodes(hooked: Sequence[Tensor], graph: Graph) -> TensorHooks:
    found: TensorHooks = {}
    for tensor in hooked:
        if tensor.grad_fn is not None and tensor.grad_fn in graph.children_of:
            port = Port(tensor.grad_fn, tensor.output_nr)
            found[port] = found.get(port, ()) + _torch.tensor_hook_names(tensor)
    return found


def _hooks_of_targets(targets: Targets) -> TensorHooks:
    return {
        target.port: _torch.tensor_hook_names(target.tensor)
        for target in targets.items
        if target.port is not None and target.tensor._backward_hooks
    }


def explain_failure(caller: str, error: RuntimeError, out: Leaves, graph: Graph) -> None:
    """Say more than torch where the reason is known; return where it is not."""
    text = str(error)
    if "backward through the graph a second time" in text or "already been freed" in text:
        freed = next((node for node in graph.nodes if _torch.freed_tensor(node)), None)
        _checks.graph_is_freed(
            caller, out.names, None if freed is None else _torch.node_name(freed)
        )
    if "use_reentrant=True" in text:
        _checks.reentrant_checkpoint(caller)


def _finish(
    job: Job, watcher: Watcher, seeds: Sequence[Cotangent], hooks: TensorHooks
) -> BackwardRecord:
    if job.accumulate and any(event.error for event in watcher.fired):
        hooks = {**_hooks_on_nodes(_torch.watched_tensors().hooked, job.graph), **hooks}
    keys: dict[Node, Key] = {}
    for target in job.targets.items:
        if target.port is not None:
            keys.setdefault(target.port.node, target.key)
    nodes, index = number(watcher, hooks, keys)
    roots = list(zip(job.graph.roots, seeds, strict=True))
    keeper = Keeper(job.keep)
    return BackwardRecord(
        outputs=tuple(
            Output(
                name,
                tuple(tensor.shape),
                _checks.dtype_text(tensor.dtype),
                index.get(port.node),
                port.slot,
                seed,
                keeper(tensor),
            )
            for name, tensor, (port, seed) in zip(
                job.out.names, job.out.tensors, roots, strict=True
            )
        ),
        seeds=tuple(
            Edge(None, k, index[port.node], port.slot, seed)
            for k, (port, seed) in enumerate(roots)
            if port.node in index
        ),
        nodes=nodes,
        leaves=tuple(t.leaf(index, hooks) for t in job.targets.items),
        deposits=Deposits(
            {
                t.key: watcher.deposits[t.port]
                for t in job.targets.items
                if t.port in watcher.deposits
            }
        ),
        accumulate=job.accumulate,
        retain_graph=job.retain,
        keep=job.keep,
        torch_version=str(torch.__version__),
        notes=tuple(_notes(job, watcher)),
        tolerance=_tolerance(job),
    )


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
        label = target.key if isinstance(target.key, str) else f"leaf {target.key}"
        if target.port is None:
            yield f"{label} is not reached from the outputs: no deposit, its .grad stays as it is."
        elif target.port not in watcher.deposits:
            yield f"{label} is reached, but no gradient is defined there: no deposit (not a zero)."
    for node in job.graph.nodes:
        reason = _OPAQUE.get(_torch.node_name(node))
        if reason:
            yield f"{_torch.node_name(node)} is {reason}."
        if not job.accumulate and node in watcher.sleeping_hooks:
            hooks = ", ".join(watcher.sleeping_hooks[node])
            yield (
                f"A look does not write .grad, so the hooks on the node that writes it did not "
                f"run: {hooks}."
            )
