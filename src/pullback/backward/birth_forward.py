"""Births in the forward pass: the first value that is not finite, and what made it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .birth import Birth, Shown, place_of, value_text
from .birth_fix import Fix, fix_of, in_words
from .finite import Index
from .formulas import formulas_of
from .forward_values import Origin, forward_origin, known_values, lies_behind, strange_inputs
from .graph import Graph, Port
from .local import Rerun, operands_at, rerun_of
from .operations import OPERATIONS
from .origins import call_of
from .outcome import Job
from .verdict import Evidence

_WRITES = ("MaskedFill", "Where", "ConstantPad", "Copy", "Fill", "IndexPut", "IndexFill", "Add",
           "MaskedScatter", "AccumulateGrad")  # fmt: skip


def forward_birth(job: Job, kind: str, met: str, also: tuple[str, ...] = ()) -> Birth | None:
    """The certificate of the first value of ``kind`` in the forward pass behind ``job``; ``met`` is
    a sentence on where it was noticed. None where nothing that the graph keeps holds one."""
    values = known_values(job.graph, job.out.tensors)
    first = forward_origin(job.graph, values, kind)
    if first is None:
        return None
    cause = _infinity_behind(job.graph, values, first) if kind == "nan" else None
    origin = cause or first
    steps = () if cause is None else (_step(first),)
    return _certificate(job, values, origin, (*steps, met), also)


def _infinity_behind(graph: Graph, values: Mapping[Port, Tensor], first: Origin) -> Origin | None:
    """The operation that made an inf out of finite numbers, if the nan was made of that inf.

    An inf that was written down, as in a mask of -inf, is meant: it is no cause.
    """
    if not (first.unseen or strange_inputs(graph, values, first.node)):
        return None
    found = forward_origin(graph, values, "inf")
    if found is None or _torch.node_name(found.node) not in OPERATIONS or found.bad_operand:
        return None
    earlier = found.node is not first.node and lies_behind(graph, found.node, first.node)
    inputs = (p for p in graph.children_of[found.node] if p is not None and p in values)
    clean = all(bool(values[p].isfinite().all()) for p in inputs)
    return found if earlier and clean else None


def _step(later: Origin) -> str:
    call = place_of(call_of(later.node))
    at = f" ({call})" if call else ""
    name = _torch.node_name(later.node)
    if later.unseen:
        return f"{name}{at} is the first behind it that is known to hold nan."
    return f"{name}{at} then made a nan of it."


def is_written(birth: Birth) -> bool:
    """Whether the program put the inf there as a constant."""
    return birth.kind == "inf" and birth.node.startswith(_WRITES)


def _certificate(
    job: Job,
    values: Mapping[Port, Tensor],
    origin: Origin,
    after: tuple[str, ...],
    also: tuple[str, ...],
) -> Birth:
    node, name = origin.node, _torch.node_name(origin.node)
    call, element = call_of(node), origin.bad.element
    rerun = _rerun(origin)
    operands = {} if rerun is None else _shown(rerun, origin, element)
    leaf = _leaf_label(job, node)
    fix = _fix(rerun, origin, name)
    text = " ".join((_sentence(origin, name, leaf), *after))
    lines = formulas_of(name)
    evidence: list[tuple[str, str]] = [("node", name if not leaf else f"leaf {leaf}")]
    if call is not None:
        evidence.append(("from", place_of(call)))
    evidence.append(("not finite", f"{origin.bad.count} of {origin.value.numel()} entries"))
    evidence += [(f"{key} there", value_text(value)) for key, value in operands.items()]
    evidence += _unseen(origin, leaf)
    return Birth(
        "born_in_forward",
        name,
        origin.bad.kind,
        origin.slot,
        element,
        origin.bad.count,
        text,
        call=call,
        operands=operands,
        formula=lines[0] if lines else "",
        evidence=tuple(evidence),
        fix=fix.text,
        proof=fix.proof,
        rewrite=fix.lines,
        also=also,
    )


def _rerun(origin: Origin) -> Rerun | None:
    slots = _torch.slots(origin.node)
    if len(slots) != 1 or _torch.node_name(origin.node) not in OPERATIONS:
        return None
    rerun = rerun_of(origin.node, _ones(origin))
    if rerun is None:
        return None
    again = rerun.value(rerun.operation.call)
    same = again.shape == origin.value.shape and bool(
        torch.equal(again.isfinite(), origin.value.isfinite())
    )
    return rerun if same else None


def _ones(origin: Origin) -> Tensor:
    return torch.ones_like(origin.value)


def _shown(rerun: Rerun, origin: Origin, element: Index) -> dict[str, Shown]:
    """Operands at an entry of the result; of a reduction, at the first entry of its slice."""
    dims, shape = rerun.dims, rerun.operands["a"].shape
    if dims is not None and origin.value.ndim != len(shape):
        rest = iter(element)
        element = tuple(0 if k in dims else next(rest) for k in range(len(shape)))
    return dict(operands_at(rerun, element))


def _fix(rerun: Rerun | None, origin: Origin, name: str) -> Fix:
    call = call_of(origin.node)
    found = fix_of(rerun, _ones(origin), 0, call, "ones") if rerun is not None else Fix()
    return found if found.text else found._replace(text=in_words(name))


def _leaf_label(job: Job, node: Node) -> str:
    if _torch.leaf_of(node) is None:
        return ""
    known = (t.label for t in job.targets.items if t.port is not None and t.port.node is node)
    return next(known, "a leaf")


def _sentence(origin: Origin, name: str, leaf: str) -> str:
    place = f" at {list(origin.bad.element)}" if origin.bad.element else ""
    value = value_text(origin.bad.value)
    if leaf:
        return f"{leaf} itself holds {value}{place}, before anything was computed."
    inputs = _shapes_of_inputs(origin.node)
    empty = bool(inputs) and all(0 in shape for shape in inputs)
    what = f"{name} made {value}{place} of its result in the forward pass"
    if empty:
        return f"{what}, of an input without entries."
    if origin.bad_operand:
        return f"{what}; its operand `{origin.bad_operand}` holds {value_text(origin.bad.value)}."
    if name in ("SoftmaxBackward0", "LogSoftmaxBackward0") and origin.bad.kind == "nan":
        return f"{what}: so ends a slice of -inf alone, or one that holds inf or nan."
    if origin.unseen:
        return f"{what}: the first of the values that this graph keeps."
    if origin.strange:
        return f"{what}; what it had received holds inf already."
    return f"{what}; its inputs with a graph are finite."


def _shapes_of_inputs(node: Node) -> list[Index]:
    return [
        _torch.slots(child)[slot].shape
        for child, slot in node.next_functions
        if child is not None and slot < len(_torch.slots(child))
    ]


def _unseen(origin: Origin, leaf: str) -> Evidence:
    if leaf:
        return ()
    told = f"{origin.unseen} of its inputs were not kept" if origin.unseen else "all kept"
    return (("inputs with a graph", told),)
