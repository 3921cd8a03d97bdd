"""A record as blocks of a page: outline, diagram, heatmaps, tables. Needs nothing but the data."""

from __future__ import annotations

from pathlib import PurePath

from torch import Tensor

from ..draw import (
    Arrow,
    Box,
    Code,
    Diagram,
    Grid,
    Heading,
    Heatmap,
    Outline,
    OutlineRow,
    Page,
    Sentence,
    Table,
)
from ..draw.numbers import count, number, percent, shape
from .events import Cotangent, PassData, PassNode, UserCall
from .formulas import formulas_of
from .order import Visit, reading_order
from .stats import Stats

_COLUMNS = ("node", "cotangent", "norm", "from")
_DRAWN_ENTRIES = 250_000
_DRAWN_NODES = 150
_DRAWN_PANELS = 24


def tree_page(data: PassData, formulas: bool, limit: int) -> Page:
    """What ``print(record)`` shows."""
    names = ", ".join(f"{o.name} {shape(o.shape)}" for o in data.outputs)
    sentences = tuple(Sentence(text) for text in summary(data))
    quoted = _formula_blocks(data) if formulas else ()
    return Page(f"backward of {names}", (outline(data, limit), *sentences, *quoted))


def full_page(data: PassData) -> Page:
    """Everything a record can show, for ``to_html``."""
    names = ", ".join(f"{o.name} {shape(o.shape)}" for o in data.outputs)
    return Page(
        f"Backward of {names}",
        (
            *map(Sentence, summary(data)),
            Heading("The pass, from the outputs to the leaves"),
            diagram(data),
            outline(data, limit=500),
            Heading("Cotangents, outputs and deposits"),
            Grid(tuple(heatmaps(data)), shared=False),
            Heading("Every node, in the order in which it ran"),
            node_table(data),
            *_formula_blocks(data),
        ),
    )


def summary(data: PassData) -> list[str]:
    """What the pass did as a whole, a sentence each."""
    kind = "added to .grad" if data.accumulate else "a look: no .grad was touched"
    exact = "to the last bit" if data.conservation_error == 0 else f"within {data.tolerance:.1g}"
    nodes = f"{count(len(data.nodes))} node{'s' * (len(data.nodes) != 1)}"
    deposits = f"{count(len(data.deposits))} deposit{'s' * (len(data.deposits) != 1)}"
    lines = [f"{nodes} ran, {deposits} ({kind})."]
    if data.conserved:
        lines.append(f"Conserved: contributions sum to the upstream of every node, {exact}.")
    else:
        lines.append(_not_conserved(data))
    for node in data.nodes:
        where = _label(data, node)
        if node.hooks:
            did = "changed" if node.changed_by_hooks else "did not change"
            lines.append(f"Hooks on {where} {did} its cotangent: {', '.join(node.hooks)}.")
        if node.sending_hooks:
            hooks = ", ".join(node.sending_hooks)
            lines.append(
                f"Hooks on {where} ran after it and may have changed what it sent: {hooks}."
            )
    return lines + list(data.notes)


def _not_conserved(data: PassData) -> str:
    open_nodes = [node for node in data.nodes if not node.changed_by_hooks]
    worst = max(open_nodes, key=lambda node: node.conservation_error)
    return (
        f"NOT conserved: what {_label(data, worst)} (#{worst.index}) received is not the sum of "
        f"its contributions, off by {number(worst.conservation_error)} of its largest entry. Only "
        f"hooks run in between; one on a tensor that is gone, or registered before an in-place "
        f"operation, cannot be named."
    )


def outline(data: PassData, limit: int) -> Outline:
    visits = reading_order(data)
    rows = [_output_row(data, k) for k in range(len(data.outputs))]
    shown = visits
    if len(visits) > limit:
        head, tail = limit // 2, limit - limit // 2
        shown = visits[:head] + visits[len(visits) - tail :]
    for position, visit in enumerate(shown):
        if len(visits) > limit and position == limit // 2:
            left_out = count(len(visits) - limit)
            rows.append(OutlineRow(shown[position - 1].depth, (f"... {left_out} more", "", "", "")))
        rows.append(_visit_row(data, visit))
    return Outline(_COLUMNS, tuple(rows))


def _output_row(data: PassData, k: int) -> OutlineRow:
    output = data.outputs[k]
    v = output.cotangent
    return OutlineRow(0, (f"{output.name} <- v", shape(v.shape), number(v.stats.norm), ""))


def _visit_row(data: PassData, visit: Visit) -> OutlineRow:
    node = data.nodes[visit.node]
    label = f"{_label(data, node)} #{node.index}"
    if not visit.first:
        passed = visit.edge.contribution if visit.edge else None
        cells = (f"-> {label}", _shape_of(passed), _norm_of(passed), "")
        return OutlineRow(visit.depth, cells)
    received = [c for c in node.upstream if c is not None]
    sent = [edge.contribution for edge in node.edges if edge.contribution is not None]
    cells = (label, _flow_shapes(received, sent), _flow_norms(received, sent), _place(node.call))
    return OutlineRow(visit.depth, cells)


def _label(data: PassData, node: PassNode) -> str:
    if node.leaf is None:
        return node.name
    return f"{data.leaf(node.leaf).label} (leaf)" if not node.edges else f"{node.name}"


def _shape_of(cotangent: Cotangent | None) -> str:
    return "nothing" if cotangent is None else shape(cotangent.shape)


def _norm_of(cotangent: Cotangent | None) -> str:
    return "" if cotangent is None else number(cotangent.stats.norm)


def _flow_shapes(received: list[Cotangent], sent: list[Cotangent]) -> str:
    if not received:
        return "nothing"
    before = ", ".join(shape(c.shape) for c in received)
    after = list(dict.fromkeys(shape(c.shape) for c in sent))
    if len(sent) != 1 or after == [before]:
        return before
    return f"{before} -> {after[0]}"


def _flow_norms(received: list[Cotangent], sent: list[Cotangent]) -> str:
    if not received:
        return ""
    before = number(sum(c.stats.norm**2 for c in received) ** 0.5)
    if len(sent) != 1:
        return before
    after = number(sent[0].stats.norm)
    return before if after == before else f"{before} -> {after}"


def _place(call: UserCall | None) -> str:
    if call is None:
        return ""
    text = call.code if len(call.code) <= 50 else call.code[:47] + "..."
    return f"{PurePath(call.file).name}:{call.line}  {text or call.function}"


def diagram(data: PassData) -> Diagram:
    """Boxes for outputs, nodes and leaves; arrows carry the norm of each contribution."""
    if len(data.nodes) > _DRAWN_NODES:
        text = f"{count(len(data.nodes))} nodes are too many to draw; the tables below list them."
        return Diagram("Backward graph", (Box("note", (text,), "note"),), ())
    boxes = [
        Box(
            f"o{k}", (o.name, shape(o.shape), f"v: norm {number(o.cotangent.stats.norm)}"), "output"
        )
        for k, o in enumerate(data.outputs)
    ]
    boxes.extend(_box(data, node) for node in data.nodes)
    arrows = [Arrow(f"o{e.position}", f"n{e.target}", _norm_of(e.contribution)) for e in data.seeds]
    for node in data.nodes:
        arrows.extend(
            Arrow(f"n{node.index}", f"n{e.target}", _norm_of(e.contribution) or "nothing")
            for e in node.edges
        )
    return Diagram("Backward graph", tuple(boxes), tuple(arrows))


def _box(data: PassData, node: PassNode) -> Box:
    received = [c for c in node.upstream if c is not None]
    if node.leaf is not None and not node.edges:
        leaf = data.leaf(node.leaf)
        return Box(f"n{node.index}", (leaf.label, shape(leaf.shape), "deposit"), "leaf")
    code = (_place(node.call).partition("  ")[2],) if node.call else ()
    sizes = ", ".join(shape(c.shape) for c in received) or "nothing"
    return Box(f"n{node.index}", (node.name, sizes, *code), "node")


def heatmaps(data: PassData) -> list[Heatmap]:
    """Per output: its values and its cotangent, where kept; per leaf: its deposit. At most 24."""
    found = []
    for output in data.outputs:
        if output.values is not None and _drawable(output.values):
            found.append(heatmap(f"{output.name}", output.values))
        values = output.cotangent.values
        if values is not None and _drawable(values):
            found.append(heatmap(f"v for {output.name}", values))
    for key, deposit in data.deposits.items():
        label = key if isinstance(key, str) else f"leaf {key}"
        if _drawable(deposit):
            verb = "deposit on" if data.accumulate else "deposit for"
            found.append(heatmap(f"{verb} {label}", deposit))
    return found[:_DRAWN_PANELS]


def _drawable(tensor: Tensor) -> bool:
    return tensor.numel() <= _DRAWN_ENTRIES


def heatmap(title: str, tensor: Tensor) -> Heatmap:
    """A tensor of up to two axes with the axes of its subscript; more are laid out by the page."""
    values = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    plain = values.cpu().resolve_conj().resolve_neg()
    array = plain.numpy() if plain.is_complex() else plain.double().numpy()
    return Heatmap(f"{title} {shape(tuple(tensor.shape))}", array)


def node_table(data: PassData) -> Table:
    rows = []
    for node in data.nodes:
        for slot, upstream in enumerate(node.upstream):
            numbers = ("",) * 5 if upstream is None else _numbers(upstream.stats)
            name = _label(data, node) if len(node.upstream) == 1 else f"{node.name}[{slot}]"
            rows.append((str(node.index), name, _shape_of(upstream), *numbers, _place(node.call)))
    columns = ("#", "node", "received", "norm", "min", "max", "zeros", "non-finite", "from")
    return Table("", columns, tuple(rows))


def _numbers(s: Stats) -> tuple[str, ...]:
    return number(s.norm), number(s.min), number(s.max), percent(s.zeros), count(s.nonfinite)


def _formula_blocks(data: PassData) -> tuple[Heading | Code, ...]:
    names = dict.fromkeys(node.name for node in data.nodes if formulas_of(node.name))
    lines = ["\n    ".join((name, *formulas_of(name))) for name in names]
    if not lines:
        return ()
    title = "The derivative formulas of these nodes, from torch's derivatives.yaml"
    return (Heading(title), Code("\n".join(lines)))
