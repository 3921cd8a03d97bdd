"""Why no gradient reaches a leaf from the outputs, or nothing is defined where it arrives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _checks, _torch
from .booktext import times
from .cuts import cuts_of
from .cuttext import REASONS, at, cut_evidence, first_cut, fix_of_cut
from .graph import Graph
from .question import Question, plainly
from .verdict import Evidence, Verdict
from .whyheld import of_zero_deposit

_TORCHS = ("CompiledFunctionBackward", "CheckpointFunctionBackward", "BackwardHookFunctionBackward")
_OPAQUE = {
    "CompiledFunctionBackward": "compiled by torch.compile",
    "CheckpointFunctionBackward": "a reentrant checkpoint",
}
_EAGERLY = "Run that part eagerly (without torch.compile; with use_reentrant=False), and ask again."


def of_unreached(question: Question) -> Verdict | None:
    name, graph = question.name, question.graph()
    if graph is not None:
        if _in_graph(question, graph):
            return None
    elif question.out is None:
        path = question.cuts_on_the_way()
        if path == [] or not question.calls:
            return None
    path = question.cuts_on_the_way() or []
    opaque = _opaque_part(graph)
    inside = opaque == "CheckpointFunctionBackward"  # it runs its forward under no_grad
    if path and not (inside and path[-1].reason == "no_grad"):
        nearest = path[-1]
        return Verdict(
            "cut",
            f"No gradient reaches {name}: the way from the output to it is cut in "
            f"{at(nearest.call)}: {REASONS[nearest.reason]}."
            + (f" {times(len(path) - 1, 'more cut')} lie between." if len(path) > 1 else ""),
            tuple(pair for cut in path for pair in cut_evidence(cut)),
            fix_of_cut(nearest),
        )
    twin = None if graph is None else _twin(question, graph)
    if twin is not None:
        return twin
    hidden = None if graph is None else _opaque(question, graph.nodes)
    if hidden is not None:
        return hidden
    reads = question.reads()
    if reads:
        last = reads[-1]
        return Verdict(
            "cut",
            f"No gradient reaches {name}. Values computed from it were read out as plain numbers "
            f"in {at(last.call)}; what is computed from those has no graph.",
            tuple(pair for cut in reads[-4:] for pair in cut_evidence(cut)),
            fix_of_cut(last),
        )
    if graph is None and question.out is not None:
        return _of_outputs_without_graph(question)
    return Verdict(
        "not_reached",
        f"No gradient reaches {name}: the output was not computed from it"
        + (
            "."
            if graph is None
            else f" (its {times(len(list(graph.nodes)), 'node')} lead elsewhere)."
        ),
        _leaf_evidence(graph),
        f"Compute the output from {name} itself. If you think it was: run the forward inside `with "
        f"pb.trace():` and ask again, and the line that cut it off is named.",
    )


def _opaque_part(graph: Graph | None) -> str | None:
    """The name of a node that stands for many operations."""
    names = [] if graph is None else map(_torch.node_name, graph.nodes)
    return next((name for name in names if name in _OPAQUE), None)


def _in_graph(question: Question, graph: Graph) -> bool:
    tensor = question.tensor
    if tensor.grad_fn is not None:
        return tensor.grad_fn in graph.children_of
    return any(leaf is tensor for _, leaf in graph.leaves())


def _twin(question: Question, graph: Graph) -> Verdict | None:
    """Another leaf of the graph with the same memory or the same name."""
    name, tensor = question.name, question.tensor
    memory = _torch.storage_number(tensor)
    telling = _tells_apart(tensor)
    for _, leaf in graph.leaves():
        same = leaf.shape == tensor.shape and leaf.dtype == tensor.dtype
        shares = memory is not None and _torch.storage_number(leaf) == memory
        if shares or (
            same
            and leaf.layout is tensor.layout
            and telling
            and torch.equal(leaf.detach(), tensor.detach())
        ):
            how = "shares its memory" if shares else "holds equal values, as a copy would"
            return Verdict(
                "different_object",
                f"The output was not computed from {name} itself, but from a leaf that {how}: the "
                f"gradient goes there.",
                (
                    ("the other's .grad", "None" if leaf.grad is None else plainly(leaf.grad)),
                    ("the other's shape", _checks.shape_text(tuple(leaf.shape))),
                ),
                "Read .grad of the tensor that went into the forward, or put this one there: it "
                "was copied or replaced (a new nn.Parameter, copy.deepcopy, an optimizer or a "
                "model built earlier).",
            )
    return None


def _tells_apart(tensor: Tensor) -> bool:
    """Whether equal entries elsewhere are no accident: every new LayerNorm has ones for weights."""
    if tensor.layout is not torch.strided:
        return False
    entries = tensor.detach().reshape(-1)
    return entries.numel() > 1 and bool((entries != entries[0]).any())


def of_undefined(question: Question) -> Verdict | None:
    """Reached, and what arrives is nothing at all."""
    name = question.name
    seen = question.look()
    if seen is not None and name in seen.deposits:
        return None
    graph = question.graph()
    above = () if graph is None else _above(question, graph)
    names = _functions_above(question, above)
    hidden = _opaque(question, above)
    if hidden is not None and not names:
        return hidden
    if question.freed and not names and not hidden:
        ran = [call for call in question.calls_known_to_reach() if call.asked_for(question.tensor)]
        if ran:
            return Verdict(
                "zeroed_after",
                f"{at(ran[-1].call)} ran through {name} and wrote its .grad; it is None now, so "
                f"something has set it to None since.",
                (("backward", at(ran[-1].call)),),
                f"Read {name}.grad right after that line. A ledger names who emptied it:\n"
                f"    with pb.ledger({{{name!r}: {name}}}) as book:",
            )
    if question.freed and not names:
        return Verdict(
            "freed_graph",
            f"A way leads to {name}, but its graph has been freed: {question.freed}",
            (("error", question.freed),),
            "Run the forward again, or give the earlier call retain_graph=True:\n"
            "    backward(retain_graph=True)",
        )
    if seen is None and not question.freed and question.cuts_on_the_way() != []:
        return None
    if not names and seen is None:
        return None
    if names:
        which = _either(names)
        return Verdict(
            "function_returned_none",
            f"{name} is behind the output, but no gradient is defined there: the backward of "
            f"{which} returned None where {name}'s gradient belongs.",
            (("custom Functions on the way", ", ".join(names)),),
            f"Return a tensor in that place of {names[-1]}.backward, one for every input of "
            f"forward that requires a gradient.",
        )
    return Verdict(
        "undefined",
        f"{name} is behind the output, but no gradient is defined there: an operation on the way "
        f"has no derivative with respect to it. None is not a zero.",
        (),
        "Differentiate another output of that operation.",
    )


def _above(question: Question, graph: Graph) -> list[Node]:
    """The nodes of ``graph`` from which a way leads to the tensor."""
    parents: dict[Node, list[Node]] = {}
    for node, ports in graph.children_of.items():
        for port in ports:
            if port is not None:
                parents.setdefault(port.node, []).append(node)
    tensor = question.tensor
    starts = [tensor.grad_fn] if tensor.grad_fn is not None else []
    starts += [node for node, leaf in graph.leaves() if leaf is tensor]
    found: dict[Node, None] = {}
    stack = [parent for start in starts for parent in parents.get(start, [])]
    while stack:
        node = stack.pop()
        if node not in found:
            found[node] = None
            stack.extend(parents.get(node, []))
    return list(found)


def _functions_above(question: Question, above: Sequence[Node]) -> list[str]:
    """The user's own Functions on the way to the tensor."""
    names = [
        _torch.node_name(node)
        for node in above
        if (function := _torch.custom_function(node)) is not None
        and not function.__module__.startswith("torch.")
    ]
    if not above:  # no graph to walk: what was noted of it
        names = [origin.name for origin in question.python_nodes() if origin.name not in _TORCHS]
    return list(dict.fromkeys(name.removesuffix("Backward") for name in names))


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _opaque(question: Question, nodes: Iterable[Node]) -> Verdict | None:
    found = next((n for n in map(_torch.node_name, nodes) if n in _OPAQUE), None)
    if found is None:
        return None
    return Verdict(
        "opaque",
        f"No gradient is seen to reach {question.name}; but part of the graph is {_OPAQUE[found]}: "
        f"what happens inside it is not seen, and is known only once backward() has run.",
        (("node", found),),
        _EAGERLY,
    )


def of_not_run(question: Question) -> Verdict:
    name = question.name
    if question.out is not None and question.differentiable is not None:
        zero = of_zero_deposit(question)
        recovered = question.recovered()
        if zero is not None:
            return zero
        ran = [call for call in question.calls if call.writes]
        since = "" if not ran else f" The last backward seen was {at(ran[-1].call)}."
        return Verdict(
            "no_backward",
            f"A gradient can reach {name} from the outputs, but no backward has put it there."
            f"{since}",
            () if recovered is None else (("its gradient (cotangents of ones)", recovered),),
            "Run it:\n    out.sum().backward()",
        )
    if question.watched and not question.calls:
        return Verdict(
            "no_backward",
            f"{name}.grad is None because no backward ran inside the ledger's block.",
            (("engine calls", "0"),),
            "Call backward() on an output that is computed from it.",
        )
    return Verdict(
        "unknown",
        f"{name} is a leaf that requires a gradient, and its .grad is None: no backward has "
        f"reached it, or something emptied it since. More cannot be said from the tensor alone.",
        (("is_leaf", "True"), ("requires_grad", "True")),
        "Ask with the output, before its backward or with retain_graph=True:\n"
        f"    print(pb.why({name}, outputs=out))\n"
        f"or run the program inside `with pb.ledger({name}):` and ask afterwards.",
    )


def _of_outputs_without_graph(question: Question) -> Verdict:
    """No output has a graph at all."""
    assert question.out is not None
    out, output = question.out.names[0], question.out.tensors[0]
    cut = first_cut(cuts_of(output))
    if cut is not None:
        return Verdict(
            "cut",
            f"{out} has no graph, so no gradient can flow from it: it was lost in "
            f"{at(cut.call)}: {REASONS[cut.reason]}.",
            cut_evidence(cut),
            fix_of_cut(cut),
        )
    return Verdict(
        "not_reached",
        f"{out} has no graph (requires_grad is False): it was not computed from {question.name}, "
        f"or its graph was cut off on the way.",
        (("requires_grad of the output", "False"),),
        "Look for torch.no_grad(), .detach(), .data, .item() or integers on the way; inside `with "
        "pb.trace():` the line is found for you.",
    )


def _leaf_evidence(graph: Graph | None) -> Evidence:
    if graph is None:
        return ()
    shapes = [_checks.shape_text(tuple(leaf.shape)) for _, leaf in graph.leaves()[:6]]
    return (("leaves behind the output", ", ".join(shapes) or "none"),)
