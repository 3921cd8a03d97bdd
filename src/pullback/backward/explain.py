"""``pb.explain``: sentences about one backward pass, each with the numbers that prove it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks, _torch, draw
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from ..draw.numbers import count, number, shape
from .events import Leaf
from .graph import Graph, walk
from .meanings import meaning_of
from .offers import refuse_missing
from .reach import Reach, reach_of_rows
from .record import BackwardRecord
from .recorder import Job, output_leaves, run_pass
from .regions import moving_region, region_text
from .targets import Target, find_targets

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
        What ``pb.record`` raises.

    Example:
        >>> import torch, pullback as pb
        >>> inp = torch.eye(4, 5, requires_grad=True)
        >>> out = (inp + 1).pow(2).t()
        >>> told = pb.explain(out, torch.ones_like(out), inputs={"inp": inp})
        >>> print(told.about("rows")[0].text)
        Row i of out depends on inp[:, i] and on nothing else of inp, for each of its 5 rows.
    """
    names = CallerNames()
    out = output_leaves(_CALLER, outputs, names)
    missing = _checks.missing_cotangents(out, cotangents)
    if missing:
        refuse_missing(_CALLER, out, missing[0], names)
    values = _checks.cotangents_for(_CALLER, out, cotangents)
    graph = walk(out.tensors)
    targets = find_targets(_CALLER, graph, inputs, names)
    seen = run_pass(Job(_CALLER, graph, out, values, targets))
    reached = [t for t in targets.items if t.key in seen.deposits]
    statements = [
        *_why_a_cotangent(out),
        *_what_it_means(out, values),
        *_deposits(seen, reached),
        *_where_gradients_land(out, targets.items),
        *_second_call(seen, reached),
        *_retained(graph),
        *_rows(out, reached),
        *(Statement("notes", note) for note in seen.notes),
    ]
    return Explanation(tuple(statements), seen)


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
        label, deposit = _leaf(seen, target).label, seen.deposits[target.key]
        dense = deposit.to_dense() if deposit.is_sparse else deposit
        magnitude = dense.abs()
        if dense.numel() == 0:
            yield Statement("deposits", f"{label} is empty and receives an empty gradient.")
            continue
        top = int(magnitude.reshape(-1).argmax())
        where = [int(i) for i in torch.unravel_index(torch.tensor(top), dense.shape)]
        value = dense.reshape(-1)[top].item()
        total = dense.sum().item()
        place = f" at [{', '.join(map(str, where))}]" if where else ""
        yield Statement(
            "deposits",
            f"{label} {'would receive' if not seen.accumulate else 'received'} a gradient of its "
            f"own shape {shape(dense.shape)}; the largest entry is {_scalar(value)}{place}.",
            (
                ("norm", number(float(magnitude.double().norm()))),
                ("sum", _scalar(total)),
                ("entries that are not 0", f"{int((dense != 0).sum())} of {dense.numel()}"),
            ),
        )
    if len(reached) > _TOLD_LEAVES:
        rest = len(reached) - _TOLD_LEAVES
        yield Statement(
            "deposits", f"{count(rest)} more leaves receive a gradient; see the record."
        )


def _scalar(value: complex | float) -> str:
    if isinstance(value, complex):
        return f"{number(value.real)}{'+' if value.imag >= 0 else '-'}{number(abs(value.imag))}j"
    return number(value)


def _leaf(seen: BackwardRecord, target: Target) -> Leaf:
    return seen.leaf(target.key)


def _where_gradients_land(out: Leaves, targets: Sequence[Target]) -> Iterator[Statement]:
    for name, output in zip(out.names, out.tensors, strict=True):
        if output.is_leaf:
            yield Statement("grad", f"{name} is itself a leaf: its own .grad receives v.")
            continue
        leaves = [t.key if isinstance(t.key, str) else f"leaf {t.key}" for t in targets]
        shown = ", ".join(leaves[:_TOLD_LEAVES]) + (", ..." if len(leaves) > _TOLD_LEAVES else "")
        if output.retains_grad:
            text = (
                f"{name} was computed, but retains its gradient: backward writes v to {name}.grad."
            )
        else:
            text = (
                f"{name}.grad stays None: {name} was computed, and backward writes only to the "
                f"leaves it came from ({shown}). {name}.retain_grad(), called beforehand, would "
                f"make it keep v."
            )
        evidence = (("is_leaf", str(output.is_leaf)), ("retains_grad", str(output.retains_grad)))
        yield Statement("grad", text, evidence)


def _second_call(seen: BackwardRecord, reached: Sequence[Target]) -> Iterator[Statement]:
    """What ``.grad`` holds now, and what one more backward would make of it."""
    told: dict[str, list[str]] = {}
    for target in reached:
        told.setdefault(_state_of_grad(target, seen.deposits[target.key]), []).append(
            _leaf(seen, target).label
        )
    for state, labels in told.items():
        shown = ", ".join(labels[:_TOLD_LEAVES])
        shown += f" and {len(labels) - _TOLD_LEAVES} more" if len(labels) > _TOLD_LEAVES else ""
        yield Statement("accumulation", state.replace("LEAF", shown))


def _state_of_grad(target: Target, deposit: Tensor) -> str:
    grad = target.tensor.grad if target.had_grad else None
    if grad is None:
        return (
            "LEAF: .grad is None now. The next backward puts this deposit there, and a second one "
            "adds it again, giving exactly twice as much, unless .grad is zeroed (zero_(), or "
            "set to None) in between."
        )
    times = _multiple(grad, deposit)
    if times == 0:
        return "LEAF: .grad holds zeros, so the next backward leaves exactly this deposit there."
    if times is not None:
        return (
            f"LEAF: .grad already holds {times} times this deposit, as {times} "
            f"backward{'s' * (times != 1)} without zeroing leave it; one more makes it {times + 1} "
            f"times. Zero it before a backward that should stand alone."
        )
    return (
        "LEAF: .grad already holds something else (from other losses, batches or cotangents); the "
        "next backward adds this deposit to it. Zero it before a backward that should stand alone."
    )


def _multiple(grad: Tensor, deposit: Tensor) -> int | None:
    """The whole number of deposits that ``grad`` equals to rounding, if there is one."""
    grad, deposit = (t.to_dense() if t.is_sparse else t for t in (grad.detach(), deposit))
    if bool((grad == 0).all()):
        return 0
    scale = deposit.abs().max() if deposit.numel() else grad.new_zeros(())
    if scale == 0:
        return None
    top = int(deposit.abs().reshape(-1).argmax())
    ratio = grad.reshape(-1)[top] / deposit.reshape(-1)[top]
    ratio = ratio.real if ratio.is_complex() else ratio
    if not bool(ratio.isfinite()) or not 0.5 < ratio < 1e6:
        return None
    times = round(float(ratio))
    close = torch.allclose(grad, deposit * times, rtol=1e-4, atol=1e-4 * float(scale))
    return times if close else None


def _retained(graph: Graph) -> Iterator[Statement]:
    saving = [(node, saved) for node in graph.nodes if (saved := _torch.saved_tensors(node))]
    if not saving:
        text = (
            "No node of this graph saved a tensor, so backward can run again on it even without "
            "retain_graph=True."
        )
        yield Statement("retain_graph", text, (("nodes that saved tensors", "0"),))
        return
    node, saved = saving[0]
    name = _torch.node_name(node)
    yield Statement(
        "retain_graph",
        f"{len(saving)} node{'s' * (len(saving) != 1)} saved tensors that backward frees when it "
        f"is done; a second backward then fails at {name}, which needs {', '.join(saved)}. "
        f"retain_graph=True keeps them. It has nothing to do with the need for v.",
        (("nodes that saved tensors", str(len(saving))),),
    )


def _rows(out: Leaves, reached: Sequence[Target]) -> Iterator[Statement]:
    ports = [target.port for target in reached if target.port is not None]
    told = reached[:_TOLD_LEAVES]
    for name, output in zip(out.names, out.tensors, strict=True):
        if output.ndim == 0 or output.shape[0] < 2 or not told:
            continue
        leaves = [target.tensor for target in told]
        reaches, engine = reach_of_rows(output, leaves, ports[: len(told)])
        for target, reach in zip(told, reaches, strict=True):
            label = target.key if isinstance(target.key, str) else f"leaf {target.key}"
            yield Statement(
                "rows",
                _row_text(name, label, reach),
                (
                    ("rows tried", f"{len(reach.rows)} of {output.shape[0]}"),
                    ("products of row masks by", engine),
                ),
            )


def _row_text(name: str, label: str, reach: Reach) -> str:
    some = f"{len(reach.rows)} of the" if not reach.all_rows else "each of its"
    if all(region.touched == 0 for region in reach.regions):
        return f"At this point no row of {name} depends on {label}: every derivative is 0."
    if all(region == reach.regions[0] for region in reach.regions):
        return f"Every row of {name} depends on {region_text(reach.regions[0], label)}."
    moving = moving_region(reach.regions, label) if reach.all_rows else None
    if moving:
        return (
            f"Row i of {name} depends on {moving} and on nothing else of {label}, for "
            f"{some} {len(reach.rows)} rows."
        )
    parts = [
        f"row {row} on {region_text(region, label)}"
        for row, region in list(zip(reach.rows, reach.regions, strict=True))[:_TOLD_ROWS]
    ]
    more = "" if len(reach.rows) <= _TOLD_ROWS else "; and so on"
    return f"At this point, in {name}: {'; '.join(parts)}{more}."
