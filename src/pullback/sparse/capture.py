"""From a function and its arguments to its pullback graph, tried out before it is trusted.

What cannot be captured raises ``NotCaptured`` with the reason in words; the caller then runs the
function itself at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from .. import _checks
from .._engines import gradients
from .._errors import PullbackError
from .._linear import flat_outputs
from .._trees import Structure, flatten
from .arguments import Arguments, as_real
from .graph import Input, Meta, PullbackGraph, drop_detaches, is_draw, is_needed, split
from .state import State
from .tape import VARYING, Taint, Tape


class NotCaptured(Exception):  # noqa: N818 - it is no error: another engine takes over
    """Why no graph stands for the function.

    ``graph`` is what was recorded at the sample, where it could be: not to be replayed, but its
    pattern may hold elsewhere.
    """

    def __init__(self, reason: str, graph: PullbackGraph | None = None) -> None:
        super().__init__(reason)
        self.graph = graph


@dataclass
class Captured:
    """A pullback graph of one function, and what a later call must find unchanged.

    ``guards`` are the names of owned tensors and arguments whose content was baked in or relied
    on; ``out`` and ``aux`` rebuild what the function returned.
    """

    graph: PullbackGraph
    forward: fx.GraphModule
    linear: fx.GraphModule
    handed: list[fx.Node]
    out: Structure
    returned: list[Meta]
    outputs: list[Meta]
    aux: Structure | None
    aux_leaves: list[Any]
    guards: set[str]
    owned: list[str]

    def run_forward(self, tensors: Sequence[Tensor]) -> tuple[list[Any], list[Tensor]]:
        """What the linear part needs, and the outputs (with the tensors of aux after them)."""
        results = self.forward(*tensors)
        cut = len(self.handed)
        return list(results[:cut]), list(results[cut:])


@dataclass
class Recorded:
    """One run under the tape: the raw graph, and the tensors at its ends."""

    tape: Tape
    module: fx.GraphModule
    outputs: list[Tensor]
    cotangents: list[Tensor]
    gradients: tuple[Tensor | None, ...]
    out: Structure
    returned: list[Meta]
    aux_leaves: list[Any]
    aux: Structure | None


def capture(
    caller: str,
    func: Callable[..., Any],
    arguments: Arguments,
    state: State,
    *,
    has_aux: bool = False,
    frozen: frozenset[str] = frozenset(),
) -> Captured:
    """The pullback graph of ``func`` at ``arguments``. Leaves no trace in what ``func`` owns."""
    with _untouched_gradients(state):
        tape = Tape()
        try:
            recorded = _record(caller, func, arguments, has_aux, tape)
        except PullbackError:
            raise
        except Exception as error:
            # The user's own error comes again from the function alone; else the tape caused it.
            _run_alone(func, arguments, tape)
            raise NotCaptured(f"it cannot be recorded: {_checks.first_line(error)}") from None
        finally:
            tape.restore()
        try:
            guards, refusal = _what_a_replay_would_miss(recorded, state, arguments)
            owner = _Owners(recorded.tape, state, arguments, lenient=bool(refusal))
            graph, owned, tensors = _functional(recorded, arguments, owner, frozen, guards)
            with torch.random.fork_rng(devices=_devices(tensors)):
                graph.survey([_fresh(t) for t in tensors])
            if refusal:
                raise NotCaptured(refusal, graph)
            captured = Captured(
                graph,
                *split(graph),
                recorded.out,
                recorded.returned,
                [Meta.of(t) for t in recorded.outputs],
                recorded.aux,
                recorded.aux_leaves,
                guards,
                owned,
            )
            _try_out(captured, func, arguments, recorded.tape, tensors)
        finally:
            recorded.tape.restore()
    return captured


def _run_alone(func: Callable[..., Any], arguments: Arguments, tape: Tape) -> None:
    tape.restore()
    devices = _devices([*arguments.primals, *arguments.others])
    primals = [_fresh(t).requires_grad_() for t in arguments.primals]
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        arguments.call(func, primals, [_fresh(t) for t in arguments.others])


def _record(
    caller: str, func: Callable[..., Any], arguments: Arguments, has_aux: bool, tape: Tape
) -> Recorded:
    primals = [_fresh(t).requires_grad_() for t in arguments.primals]
    others = [_fresh(t) for t in arguments.others]
    for tensor, name in zip(primals, arguments.primal_names, strict=True):
        tape.input(tensor, _identifier(name))
    for tensor, name in zip(others, arguments.other_names, strict=True):
        smooth = _checks.can_carry_gradients(tensor.dtype)
        taint = VARYING if smooth else Taint(sources=frozenset({name}))
        tape.input(tensor, _identifier(name), taint)
    with tape.recording():
        with torch.enable_grad():
            returned = arguments.call(func, primals, others)
        aux_leaves: list[Any] = []
        aux = None
        if has_aux:
            returned, extra = _checks.output_and_aux(caller, returned)
            aux_leaves, aux = flatten(extra)
        plain = flat_outputs(caller, returned)
        outputs = [as_real(t) for t in plain]
        _, out = flatten(returned)
        _checks.differentiable_outputs(caller, _checks.leaves_of(caller, "output", returned))
        cotangents = [torch.randn_like(t.detach()) for t in outputs]
        for k, cotangent in enumerate(cotangents):
            tape.input(cotangent, f"cotangent_{k}")
        live = [(t, v) for t, v in zip(outputs, cotangents, strict=True) if t.requires_grad]
        found: tuple[Tensor | None, ...] = (None,) * len(primals)
        if live:
            found = gradients(
                [t for t, _ in live], primals, [v for _, v in live], retain_graph=False
            )
    tensors = [leaf for leaf in aux_leaves if isinstance(leaf, Tensor)]
    module = tape.module(
        [None if g is None else tape.node_of(g) for g in found]
        + [tape.node_of(t) for t in [*outputs, *tensors]]
    )
    module.graph.eliminate_dead_code(is_impure_node=is_needed)
    return Recorded(
        tape, module, outputs, cotangents, found, out, [Meta.of(t) for t in plain], aux_leaves, aux
    )


def _fresh(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return tensor.detach().clone()


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).strip("_") or "x"


def _what_a_replay_would_miss(
    recorded: Recorded, state: State, arguments: Arguments
) -> tuple[set[str], str]:
    """The names of the tensors whose content must be guarded, and what no guard would catch."""
    tape = recorded.tape
    for reason in (*state.unseen, *tape.draws.problems):
        return set(), reason
    owner = _Owners(tape, state, arguments)
    guards: set[str] = set()
    for read in tape.reads + tape.shapes_from_data:
        if read.taint.varies:
            at = f" at {read.where}" if read.where else ""
            how = "its shapes follow" if read in tape.shapes_from_data else "it reads values"
            return set(), f"{how} from data that vary ({read.what}{at})"
        try:
            guards |= {owner.of(name) for name in read.taint.sources}
        except NotCaptured as refusal:
            return set(), str(refusal)
    return guards, ""


@dataclass
class _Owners:
    """Where a tensor of the tape can be read again: an argument's name or a path of the state.

    ``lenient``: the graph is for one look only, and tensors that nobody finds again keep the name
    that the tape gave them.
    """

    tape: Tape
    state: State
    arguments: Arguments
    lenient: bool = False

    def of(self, name: str) -> str:
        if name in self.arguments.other_names:
            return name
        tensor = self.tape.constants[name]
        path = self.state.path_of(tensor)
        if path is None:
            if self.lenient:
                return name
            shape = _checks.shape_text(tensor.shape)
            raise NotCaptured(f"it uses a tensor of shape {shape} that nobody can find again")
        return path

    def is_known(self, path: str) -> bool:
        return path not in self.tape.constants


def _functional(
    recorded: Recorded,
    arguments: Arguments,
    owners: _Owners,
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
    with raw.graph.inserting_before(next(iter(raw.graph.nodes))):
        for k, (_, nodes) in enumerate(owned.values()):
            placeholder = raw.graph.placeholder(f"owned_{k}")
            for node in nodes:
                node.replace_all_uses_with(placeholder)
                raw.graph.erase_node(node)
    before = [tape.written.get(_name_of(tape, t), t) for t, _ in owned.values()]
    tensors = [_fresh(t) for t in (*before, *arguments.primals, *arguments.others)]
    tensors += recorded.cotangents

    def run(*inputs: Tensor) -> Any:
        return fx.Interpreter(raw).run(*inputs)

    try:
        with traceback.preserve_node_meta(), torch.random.fork_rng(devices=_devices(tensors)):
            pure = make_fx(torch.func.functionalize(run, remove="mutations"))(*map(_fresh, tensors))
    except Exception as error:  # torch fails here in many ways, INTERNAL ASSERT among them
        raise NotCaptured(f"torch cannot free it of writes: {_checks.first_line(error)}") from None
    drop_detaches(pure)
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


def _try_out(
    captured: Captured,
    func: Callable[..., Any],
    arguments: Arguments,
    tape: Tape,
    tensors: Sequence[Tensor],
) -> None:
    """Trust the graph only if it agrees with the function at another point, and is linear there."""
    cut = len(captured.owned)
    primals = [perturbed(t) for t in arguments.primals]
    inputs = [_fresh(t) for t in tensors[:cut]] + primals + [_fresh(t) for t in arguments.others]
    weights = [torch.randn_like(t) for t in tensors[len(inputs) :]]
    devices = _devices(tensors)
    with torch.random.fork_rng(devices=devices):
        leaves = [t.clone().requires_grad_() for t in primals]
        with torch.enable_grad():
            returned = arguments.call(func, leaves, [_fresh(t) for t in arguments.others])
        returned = returned[0] if captured.aux is not None else returned
        outputs = [as_real(t) for t in pytree.tree_leaves(returned)]
        truth = gradients(outputs, leaves, weights, retain_graph=False)
    tape.restore()
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        handed, values = captured.run_forward(inputs)
        found = captured.linear(*handed, *weights)
        pairs = [*zip(found, truth, strict=True), *zip(values, outputs, strict=False)]
        loose = captured.graph.rounding
        if not all(same(a, b, loose) for a, b in pairs):
            raise NotCaptured("its replay at another point differs from the function itself")
        others = [torch.randn_like(w) for w in weights]
        mixed = captured.linear(
            *handed, *(2 * w - 3 * o for w, o in zip(weights, others, strict=True))
        )
        second = captured.linear(*handed, *others)
        for a, b, c in zip(mixed, found, second, strict=True):
            if a is not None and not same(a, 2 * b - 3 * c, loose):
                raise NotCaptured("its backward is not linear in its cotangent")


def perturbed(tensor: Tensor) -> Tensor:
    """A point near by: every entry a few percent away, so that signs and domains stay."""
    with torch.no_grad():
        moved = tensor.detach() * (1 + 0.02 * torch.rand_like(tensor.detach()))
        return moved.clone()


def same(left: Tensor | None, right: Tensor | None, loose: float) -> bool:
    """Equal up to ``loose``, relative to the largest entry; None counts as zeros."""
    if left is None or right is None:
        other = right if left is None else left
        return other is None or not bool(other.any())
    left, right = left.detach(), right.detach()
    if left.shape != right.shape:
        return False
    finite = right[right.isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 0.0
    return torch.allclose(
        left.to(right.dtype), right, rtol=loose, atol=loose * max(scale, 1e-30), equal_nan=True
    )


def _name_of(tape: Tape, tensor: Tensor) -> str:
    return next(name for name, t in tape.constants.items() if t is tensor)


def _devices(tensors: Sequence[Tensor]) -> list[int]:
    return sorted({t.device.index or 0 for t in tensors if t.is_cuda})


def _refuse_shared_writes(tape: Tape, owned: Sequence[Tensor]) -> None:
    places = [_storage_of(t) for t in owned]
    for name in tape.written:
        if places.count(_storage_of(tape.constants[name])) > 1:
            raise NotCaptured("it writes to memory that several of its tensors share")


def _storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


@contextmanager
def _untouched_gradients(state: State) -> Iterator[None]:
    leaves = [(o.tensor, o.tensor.grad) for o in state.leaves if o.tensor.is_leaf]
    try:
        yield
    finally:
        for tensor, grad in leaves:
            if tensor.grad is not grad:
                tensor.grad = grad
