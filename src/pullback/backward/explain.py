"""``pb.explain``: sentences about one backward pass, each with the numbers that prove it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import _torch, draw
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from ..draw.numbers import count, number, shape
from .accumulation import state_of_grad
from .graph import Graph
from .meanings import meaning_of
from .reach import Reach, reach_of_rows
from .record import BackwardRecord
from .recorder import job_of, run_pass
from .regions import moving_region, region_text
from .targets import Target, Targets, find_targets

_CALLER = "pb.explain"
_TOLD_LEAVES = 8
_TOLD_ROWS = 4

Evidence = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Statement:
    """One sentence of an explanation: what it is about, what it says, what proves it."""

    topic: str
    text: str
    evidence: Evidence = ()


@dataclass(frozen=True)
class Explanation:
    """What ``pb.explain`` found: ``statements`` in reading order, and the record behind them."""

    statements: tuple[Statement, ...]
    record: BackwardRecord

    def __str__(self) -> str:
        return draw.to_text(self.page())

    def about(self, topic: str) -> list[Statement]:
        """The statements of one topic: ``cotangent``, ``meaning``, ``deposits``, ``rows``..."""
        return [statement for statement in self.statements if statement.topic == topic]

    def page(self) -> draw.Page:
        names = ", ".join(output.name for output in self.record.outputs)
        sentences = tuple(draw.Sentence(s.text, s.evidence) for s in self.statements)
        return draw.Page(f"What backward does from {names}", sentences)


def explain(outputs: Tree, cotangents: Tree = None, *, inputs: Tree = None) -> Explanation:
    """Say what ``backward`` with these cotangents computes, about the user's own tensors.

    Looks, and changes nothing: no ``.grad``, no graph. The user's tensor hooks run, also in the
    batched products that find out where rows land.

    Args:
        outputs: a tensor with a graph, or a pytree of them.
        cotangents: the same structure and shapes; None for outputs of one element.
        inputs: as in ``pb.record``; a mapping gives the tensors their names.

    Returns:
        An `Explanation`: ``print`` it, or read its ``statements``.

    Raises:
        ArgumentError, CotangentError, GraphError, TreeError, UnsupportedError: as in ``pb.record``.

    Example:
        >>> import torch, pullback as pb
        >>> inp = torch.eye(4, 5, requires_grad=True)
        >>> out = (inp + 1).pow(2).t()
        >>> told = pb.explain(out, torch.ones_like(out), inputs={"inp": inp})
        >>> print(told.about("rows")[0].text[:50])
        At this point, row i of out depends on inp[:, i] a
    """
    names = CallerNames(_CALLER)
    job = job_of(_CALLER, outputs, cotangents, inputs, names)
    graph, out, values, targets = job.graph, job.out, job.values, job.targets
    seen = run_pass(job)
    reached = [t for t in targets.items if t.key in seen.deposits]
    statements = [
        *_why_a_cotangent(out),
        *_what_it_means(out, values),
        *_deposits(seen, reached),
        *_where_gradients_land(out, seen, _leaves(graph, targets, names)),
        *_second_call(seen, reached),
        *_retained(graph),
        *_rows(out, reached, graph),
        *(Statement("notes", note) for note in seen.notes),
    ]
    return Explanation(tuple(statements), seen)


def _leaves(graph: Graph, targets: Targets, names: CallerNames) -> list[Target]:
    """Every leaf of the graph, by the name it was given in ``inputs`` where it is among them."""
    asked = {id(target.tensor): target for target in targets.items}
    every = find_targets(_CALLER, graph, None, names).items
    return [asked.get(id(target.tensor), target) for target in every]


def _why_a_cotangent(out: Leaves) -> Iterator[Statement]:
    for name, output in zip(out.names, out.tensors, strict=True):
        if output.numel() == 1:
            text = (
                f"{name} is a single number, so it has one gradient; its cotangent is 1 unless "
                f"another weight is wanted."
            )
        else:
            text = (
                f"{name} holds {count(output.numel())} numbers, and each has a gradient of its "
                f"own: together, the Jacobian. backward(v) needs a cotangent v of shape "
                f"{shape(output.shape)} to say with which weights to add them up, and computes "
                f"the vector-Jacobian product v . J without forming J."
            )
        yield Statement("cotangent", text, (("shape", shape(output.shape)),))


def _what_it_means(out: Leaves, values: Sequence[Tensor]) -> Iterator[Statement]:
    for name, output, v in zip(out.names, out.tensors, values, strict=True):
        meaning = meaning_of(v, name)
        weighed = (v.conj() * output.detach()).sum()
        scalar = weighed.real.item() if weighed.is_complex() else weighed.item()
        yield Statement(
            "meaning",
            f"Here v for {name} is {meaning.words}.",
            (
                ("kind", meaning.code),
                (f"v . {name}", number(scalar)),
                ("weights that are not 0", count(int((v != 0).sum()))),
            ),
        )


def _deposits(seen: BackwardRecord, reached: Sequence[Target]) -> Iterator[Statement]:
    for target in reached[:_TOLD_LEAVES]:
        deposit = seen.deposits[target.key]
        dense = deposit.to_dense() if deposit.layout is not torch.strided else deposit
        if dense.numel() == 0:
            text = f"{target.label} is empty and receives an empty gradient."
            yield Statement("deposits", text)
            continue
        yield _one_deposit(target.label, dense)
    if len(reached) > _TOLD_LEAVES:
        rest = len(reached) - _TOLD_LEAVES
        text = f"{count(rest)} more leaves receive a gradient; the record lists them."
        yield Statement("deposits", text)


def _one_deposit(label: str, dense: Tensor) -> Statement:
    wide = dense.to(torch.complex128 if dense.is_complex() else torch.float64)
    receives = f"{label} would receive a gradient of its own shape {shape(dense.shape)}"
    top = int(wide.abs().reshape(-1).argmax())
    place = ", ".join(str(int(i)) for i in np.unravel_index(top, tuple(dense.shape)))
    largest = _scalar(wide.reshape(-1)[top].item()) + (f" at [{place}]" if place else "")
    filled = int((wide != 0).sum())
    text = f"{receives}; the largest entry is {largest}." if filled else f"{receives}, all zeros."
    evidence = (
        ("norm", number(float(wide.abs().norm()))),
        ("sum", _scalar(wide.sum().item())),
        ("entries that are not 0", f"{filled} of {wide.numel()}"),
    )
    return Statement("deposits", text, evidence)


def _scalar(value: complex | float) -> str:
    if isinstance(value, complex):
        return f"{number(value.real)}{'+' if value.imag >= 0 else '-'}{number(abs(value.imag))}j"
    return number(value)


def _where_gradients_land(
    out: Leaves, seen: BackwardRecord, leaves: Sequence[Target]
) -> Iterator[Statement]:
    shown = ", ".join(target.label for target in leaves[:_TOLD_LEAVES])
    shown += ", ..." if len(leaves) > _TOLD_LEAVES else ""
    incoming = seen.incoming()
    for name, output, data in zip(out.names, out.tensors, seen.outputs, strict=True):
        edges = [] if data.node is None else incoming[data.node]
        alone = len([edge for edge in edges if edge.slot == data.slot]) <= 1
        what = "v" if alone else "v and what flows back from the other outputs"
        if output.is_leaf:
            text = f"{name} is itself a leaf: backward adds {what} to its own .grad."
        elif output.retains_grad:
            text = (
                f"{name} was computed, but retains its gradient: backward adds {what} to "
                f"{name}.grad."
            )
        else:
            text = (
                f"{name}.grad stays None: {name} was computed, and backward writes only to the "
                f"leaves it came from ({shown}). {name}.retain_grad(), called beforehand, would "
                f"make it keep {what}."
            )
        evidence = (("is_leaf", str(output.is_leaf)), ("retains_grad", str(output.retains_grad)))
        yield Statement("grad", text, evidence)


def _second_call(seen: BackwardRecord, reached: Sequence[Target]) -> Iterator[Statement]:
    """What ``.grad`` holds now, and what one more backward would make of it."""
    told: dict[str, list[str]] = {}
    for target in reached:
        state = state_of_grad(target.tensor, seen.deposits[target.key])
        told.setdefault(state, []).append(target.label)
    for state, labels in told.items():
        shown = ", ".join(labels[:_TOLD_LEAVES])
        shown += f" and {len(labels) - _TOLD_LEAVES} more" if len(labels) > _TOLD_LEAVES else ""
        yield Statement("accumulation", f"{shown}: {state}")


def _retained(graph: Graph) -> Iterator[Statement]:
    saving = [(node, saved) for node in graph.nodes if (saved := _torch.saved_tensors(node))]
    if not saving:
        text = (
            "No node of this graph saved a tensor, so backward can run again on it even without "
            "retain_graph=True."
        )
        yield Statement("retain_graph", text, (("nodes that saved tensors", "0"),))
        return
    node, saved = max(saving, key=lambda pair: _torch.sequence_number(pair[0]))
    name = _torch.node_name(node)
    yield Statement(
        "retain_graph",
        f"{len(saving)} node{'s' * (len(saving) != 1)} saved tensors that backward frees when it "
        f"is done; a second backward then fails at {name}, which needs {', '.join(saved)}. "
        f"retain_graph=True keeps them. It has nothing to do with the need for v.",
        (("nodes that saved tensors", str(len(saving))),),
    )


def _rows(out: Leaves, reached: Sequence[Target], graph: Graph) -> Iterator[Statement]:
    told = [target for target in reached if target.port is not None][:_TOLD_LEAVES]
    ports = [target.port for target in told if target.port is not None]
    for name, output in zip(out.names, out.tensors, strict=True):
        if output.ndim == 0 or output.shape[0] < 2 or not told:
            continue
        reaches, engine = reach_of_rows(output, [t.tensor for t in told], ports, graph)
        for target, reach in zip(told, reaches, strict=True):
            yield Statement(
                "rows",
                _row_text(name, target.label, reach),
                (
                    ("rows tried", f"{len(reach.rows)} of {output.shape[0]}"),
                    ("products of row masks by", engine),
                ),
            )


def _row_text(name: str, label: str, reach: Reach) -> str:
    tried = len(reach.rows)
    every = f"each of its {tried} rows" if reach.all_rows else f"each of the {tried} rows tried"
    if not reach.told:
        return f"Where rows of {name} land in {label} cannot be told: the products hold nan."
    if all(region.touched == 0 for region in reach.regions):
        return (
            f"At this point, {name} does not depend on {label} in {every}: the derivatives are 0."
        )
    if tried > 1 and all(region == reach.regions[0] for region in reach.regions):
        where = region_text(reach.regions[0], label)
        return f"At this point, {name} depends on {where} in {every}."
    moving = moving_region(reach.regions, label) if reach.all_rows else None
    if moving:
        return (
            f"At this point, row i of {name} depends on {moving} and on nothing else of {label}, "
            f"in {every}."
        )
    pairs = list(zip(reach.rows, reach.regions, strict=True))
    parts = [f"row {row} on {region_text(region, label)}" for row, region in pairs[:_TOLD_ROWS]]
    more = "; and so on" if tried > _TOLD_ROWS else ""
    return f"At this point, in {name}: {'; '.join(parts)}{more}."
