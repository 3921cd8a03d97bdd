"""From a function and its arguments to its pullback graph, tried out before it is trusted.

What cannot be captured raises ``NotCaptured`` with the reason in words; the caller then runs the
function itself at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .._adjoint import python_written
from .._engines import gradients
from .._errors import PullbackError
from .._linear import flat_outputs
from .._trees import flatten
from .arguments import Arguments, as_real, devices_of, fresh, fresh_others
from .captured import Captured, NotCaptured, Recorded, without_autocast
from .functional import functional
from .graph import Meta, PullbackGraph, is_needed, split
from .masks import in_where_form, masks_of
from .owners import Owners, masked_reads, what_a_replay_would_miss
from .reads import COTANGENT, VARYING, Taint
from .state import State
from .tape import Tape, first_cut, reads_of_cotangents
from .trial import weights
from .trivial import without_trivial_calls
from .tryout import try_out


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
        except (PullbackError, NotCaptured):
            raise
        except Exception as error:
            # The user's own error comes again from the function alone; else the tape caused it.
            _run_alone(func, arguments, tape)
            raise NotCaptured(f"it cannot be recorded: {_checks.first_line(error)}") from None
        finally:
            tape.restore()
        try:
            if reason := reads_of_cotangents(tape):
                raise NotCaptured(reason)
            guards, refusal = what_a_replay_would_miss(recorded, state, arguments)
            owner = Owners(recorded.tape, state, arguments, lenient=bool(refusal))
            graph, owned, tensors = functional(recorded, arguments, owner, frozen, guards)
            _survey(graph, tensors)
            if without_trivial_calls(graph):
                _survey(graph, tensors)
            masks = masks_of(graph) if masked_reads(tape) else []
            if not refusal and masks and not _put_in_where_form(graph, tensors):
                refusal = masked_reads(tape)
            if refusal or (masked_reads(tape) and not masks):
                raise NotCaptured(refusal or masked_reads(tape), graph)
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
            captured.in_where_form = bool(masks)
            captured.cuts = first_cut(recorded.tape) or _python_backward(recorded.outputs)
            try_out(caller, captured, func, arguments, recorded.tape, tensors, masks)
        finally:
            recorded.tape.restore()
    return captured


def _python_backward(outputs: Sequence[Tensor]) -> str:
    written = python_written(outputs)
    return f"the backward of {written[0].name()} is written in Python" if written else ""


def _put_in_where_form(graph: PullbackGraph, tensors: Sequence[Tensor]) -> bool:
    try:
        if not in_where_form(graph):
            return False
    except (KeyError, RecursionError):
        raise NotCaptured("its masks are made of what other masks picked") from None
    _survey(graph, tensors)
    return True


def _survey(graph: PullbackGraph, tensors: Sequence[Tensor]) -> None:
    with without_autocast(), torch.random.fork_rng(devices=devices_of(tensors)):
        graph.survey([fresh(t) for t in tensors])


def _run_alone(func: Callable[..., Any], arguments: Arguments, tape: Tape) -> None:
    tape.restore()
    devices = devices_of([*arguments.primals, *arguments.others])
    primals = [fresh(t).requires_grad_() for t in arguments.primals]
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        arguments.call(func, primals, fresh_others(arguments))


def _record(
    caller: str, func: Callable[..., Any], arguments: Arguments, has_aux: bool, tape: Tape
) -> Recorded:
    primals = [fresh(t).requires_grad_() for t in arguments.primals]
    others = fresh_others(arguments)
    for tensor, name in zip(primals, arguments.primal_names, strict=True):
        tape.input(tensor, _identifier(name))
    for tensor, name in zip(others, arguments.other_names, strict=True):
        smooth = _checks.can_carry_gradients(tensor.dtype)
        taint = VARYING if smooth else Taint(sources=frozenset({name}))
        tape.input(tensor, _identifier(name), taint)
    # Planned under no_grad, too: what is asked of the tensors here would be taken for a cut.
    with tape.recording(), torch.enable_grad():
        returned = arguments.call(func, primals, others)
        aux_leaves: list[Any] = []
        aux = None
        if has_aux:
            returned, extra = _checks.output_and_aux(caller, returned)
            aux_leaves, aux = flatten(extra)
        plain = flat_outputs(caller, returned)
        outputs = [as_real(t) for t in plain]  # a view that is made without grad has no graph
        _, out = flatten(returned)
        _checks.differentiable_outputs(caller, _checks.leaves_of(caller, "output", returned))
        with tape.paused():
            cotangents = weights(outputs)
        for k, cotangent in enumerate(cotangents):
            tape.input(cotangent, f"cotangent_{k}", COTANGENT)
        live = [(t, v) for t, v in zip(outputs, cotangents, strict=True) if t.requires_grad]
        found: tuple[Tensor | None, ...] = (None,) * len(primals)
        if live:
            found = gradients(
                [t for t, _ in live], primals, [v for _, v in live], retain_graph=False
            )
    if not tape.saw(found):
        raise NotCaptured("its gradients come from out of the tape's sight")
    tensors = [leaf for leaf in aux_leaves if isinstance(leaf, Tensor)]
    module = tape.module(
        [None if g is None else tape.node_of(g) for g in found]
        + [tape.node_of(t) for t in [*outputs, *tensors]]
    )
    module.graph.eliminate_dead_code(is_impure_node=is_needed)
    return Recorded(
        tape, module, outputs, cotangents, found, out, [Meta.of(t) for t in plain], aux_leaves, aux
    )


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).strip("_") or "x"


@contextmanager
def _untouched_gradients(state: State) -> Iterator[None]:
    leaves = [(o.tensor, o.tensor.grad) for o in state.leaves if o.tensor.is_leaf]
    try:
        yield
    finally:
        for tensor, grad in leaves:
            if tensor.grad is not grad:
                tensor.grad = grad
