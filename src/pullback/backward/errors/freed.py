"""``backward through the graph a second time``: what is shared, who freed it, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch.autograd.graph import Node

from ... import _torch
from ..enginecalls import EngineCall, latest_calls
from ..events import UserCall
from ..graph import Graph
from ..origins import AnyOrigin, Origin, call_of, noted_origin
from ..verdict import Verdict
from . import source
from .scene import Scene
from .words import TO_CHANGE, TRACE, at, fix, quoted

CODE = "freed_graph"


@dataclass(frozen=True)
class Shared:
    """What an earlier call freed and this one needs: the nodes, youngest first."""

    earlier: EngineCall
    nodes: tuple[Node, ...]
    same_root: bool

    @property
    def missing(self) -> tuple[Node, str] | None:
        """The first node, in the order of the engine, whose saved tensor is gone."""
        for node in self.nodes:
            name = _torch.freed_tensor(node)
            if name is not None:
                return node, name
        return None


def freed(scene: Scene) -> Verdict:
    graph = scene.graph
    if graph is None or scene.engine is None:
        return _read_after_free(scene)
    shared = shared_part(graph)
    if shared is None:
        return _untraced(scene, graph)
    if shared.same_root:
        return _same_root(scene, shared)
    carried = _carried(graph, shared)
    if carried is None:
        return _two_losses(scene, shared)
    return _carried_state(scene, shared, *carried)


def shared_part(graph: Graph) -> Shared | None:
    """The latest earlier call that reached nodes of this graph and freed them."""
    origins = {id(o): node for node in graph.nodes if (o := noted_origin(node)) is not None}
    roots = {id(noted_origin(root.node)) for root in graph.roots}
    for call in reversed(latest_calls()):
        if call.error or call.retain_graph:
            continue
        reached = _reached([r.origin for r in call.roots if r.origin is not None])
        nodes = [node for key, node in origins.items() if key in reached]
        inner = [node for node in nodes if _torch.leaf_of(node) is None]
        inner.sort(key=_torch.sequence_number, reverse=True)
        if any(_torch.freed_tensor(node) for node in inner):
            same = any(id(r.origin) in roots for r in call.roots if r.origin is not None)
            return Shared(call, tuple(inner), same)
    return None


def _reached(starts: list[AnyOrigin]) -> set[int]:
    seen: set[int] = set()
    stack = list(starts)
    while stack:
        origin = stack.pop()
        if id(origin) not in seen:
            seen.add(id(origin))
            if isinstance(origin, Origin):
                stack.extend(origin.parents)
    return seen


def _carried(graph: Graph, shared: Shared) -> tuple[Node, Node] | None:
    """A node made since the earlier call, and the older one that it took a value from.

    None where nothing that leads to the shared part was computed since: the two passes are of one
    forward.
    """
    began, leading = shared.earlier.began, _leading_to(graph, shared.nodes)
    found: list[tuple[Node, Node]] = []
    for node, ports in graph.children_of.items():
        if _torch.leaf_of(node) is None and _torch.sequence_number(node) >= began:
            older = [p.node for p in ports if p and _torch.sequence_number(p.node) < began]
            found += [(node, child) for child in older if child in leading]
    return max(found, key=lambda pair: _torch.sequence_number(pair[1]), default=None)


def _leading_to(graph: Graph, targets: Iterable[Node]) -> set[Node]:
    """The nodes from which some of ``targets`` can be reached, those included."""
    users: dict[Node, list[Node]] = {}
    for node, ports in graph.children_of.items():
        for port in ports:
            if port is not None:
                users.setdefault(port.node, []).append(node)
    found, stack = set(targets), list(targets)
    while stack:
        for user in users.get(stack.pop(), ()):
            if user not in found:
                found.add(user)
                stack.append(user)
    return found


def _head(scene: Scene, shared: Shared) -> str:
    earlier = shared.earlier
    text = (
        f"The {earlier.function} at {at(earlier.call)} went through "
        f"{_nodes(len(shared.nodes))} of the graph behind {scene.output_name()} and freed what was "
        f"saved there"
    )
    if shared.missing is None:
        return text + "."
    node, name = shared.missing
    where = f", made at {at(call_of(node))}," if call_of(node) else ""
    return f"{text}; {_torch.node_name(node)}{where} is asked again and misses `{name}`."


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _evidence(scene: Scene, shared: Shared, change: UserCall | None) -> tuple[tuple[str, str], ...]:
    facts = [
        ("freed by", quoted(shared.earlier.call)),
        ("asked again at", quoted(scene.engine_place)),
        ("shared nodes", str(len(shared.nodes))),
    ]
    if shared.missing is not None:
        node, name = shared.missing
        facts.append(("first node that misses something", f"{_torch.node_name(node)}: {name}"))
        if call_of(node) is not None:
            facts.append(("made at", quoted(call_of(node))))
    facts.append((TO_CHANGE, quoted(change)))
    return tuple(facts)


def _same_root(scene: Scene, shared: Shared) -> Verdict:
    earlier, here = shared.earlier.call, scene.engine_place
    again = here is not None and (earlier.file, earlier.line) == (here.file, here.line)
    text = f"{_head(scene, shared)} Both calls differentiate the same tensor"
    text += ", from a line that runs more than once." if again else "."
    first = _with_retain(source.line_of(earlier))
    if again:
        made = shared.earlier.roots[0].call
        advice = fix(
            "Compute the output anew before every backward: move the forward into the loop"
            + (f" ({quoted(made)})." if made else "."),
            "Or, where its gradients are meant to add up, keep the graph:",
            [first],
        )
    else:
        advice = fix(
            f"Leave out one of the two, or keep the graph for the second at {at(earlier)}:", [first]
        )
    return Verdict(CODE, text, _evidence(scene, shared, earlier), advice)


def _with_retain(line: str) -> str:
    """The call of the engine, told to keep the graph."""
    head, paren, tail = line.rpartition(")")
    if not paren:
        return ""
    return f"{head}{'' if head.endswith('(') else ', '}retain_graph=True){tail}"


def _two_losses(scene: Scene, shared: Shared) -> Verdict:
    earlier, here = shared.earlier.call, scene.engine_place
    text = (
        f"{_head(scene, shared)} The two outputs are of one forward and share that part of it, so "
        f"one backward of their sum gives the same gradients at the cost of one."
    )
    first, second = _subject(earlier), _subject(here)
    if first and second and first != second:
        code = [f"({first} + {second}).backward()"]
        advice = fix(f"In place of the calls at {at(earlier)} and {at(here)}, one:", code)
    else:
        advice = fix("Add the outputs up, and call backward once on their sum.")
    keep = _with_retain(source.line_of(earlier))
    advice += "\n" + fix("Or, where two passes are needed, keep the graph in the first:", [keep])
    return Verdict(CODE, text, _evidence(scene, shared, earlier), advice)


def _subject(call: UserCall | None) -> str:
    """``loss`` of ``loss.backward()``."""
    code = "" if call is None else call.code
    head, dot, tail = code.rpartition(".backward(")
    return head if dot and tail == ")" else ""


def _carried_state(scene: Scene, shared: Shared, user: Node, state: Node) -> Verdict:
    used, made = call_of(user), call_of(state)
    text = (
        f"{_head(scene, shared)} This forward is a new one, but it took a value from the old "
        f"graph: {_torch.node_name(user)} at {at(used)} uses what {_torch.node_name(state)} made "
        f"at {at(made)}."
    )
    name = _state_name(made, used)
    if made is not None and not _made_again(scene.graph, shared, made):
        line = source.line_of(made)
        advice = fix(
            f"It was computed once, at {at(made)}, and both passes go through it. Compute it again "
            f"for every pass, before {at(used)}:",
            [line],
            "Or detach it there, if nothing that it was computed from is to be trained.",
        )
        return Verdict(CODE, text, _evidence(scene, shared, made), advice)
    lead = f"Detach the state that is carried over, before {at(used)}"
    lead += " runs again" if at(used) == at(made) else f" or after {at(made)}"
    advice = fix(f"{lead}:" if name else f"{lead}.", [_detached(scene, name)] if name else [])
    return Verdict(CODE, text, _evidence(scene, shared, made), advice)


def _detached(scene: Scene, name: str) -> str:
    if isinstance(scene.variable(name), tuple):
        return f"{name} = tuple(part.detach() for part in {name})"
    return f"{name} = {name}.detach()"


def _state_name(made: UserCall | None, used: UserCall | None) -> str:
    """The name that the one line binds and the other reads; empty where it is not one."""
    if made is None or used is None:
        return ""
    read = source.names_read(used)
    both = [name for name in source.assigned_names(made) if name in read]
    return both[0] if len(both) == 1 else ""


def _made_again(graph: Graph | None, shared: Shared, made: UserCall) -> bool:
    """Whether the line that made the state ran again since the earlier call."""
    nodes = [] if graph is None else graph.nodes
    since = [n for n in nodes if _torch.sequence_number(n) >= shared.earlier.began]
    calls = [call for n in since if _torch.leaf_of(n) is None and (call := call_of(n))]
    return any((c.file, c.line) == (made.file, made.line) for c in calls)


def _untraced(scene: Scene, graph: Graph) -> Verdict:
    gone = [node for node in graph.nodes if _torch.freed_tensor(node) is not None]
    named = f" ({_torch.node_name(gone[0])} among them)" if gone else ""
    text = (
        f"An earlier backward went through the graph behind {scene.output_name()}: what "
        f"{_nodes(len(gone))} of it{named} had saved is gone. Which call that was is not known"
    )
    if scene.traced:
        text += ": it ran outside of pb.trace(), or is none of the latest calls, which trace keeps."
    else:
        text += f"; {TRACE} it, and the part that the two share."
    return Verdict(
        CODE,
        text,
        (("asked again at", quoted(scene.engine_place)), ("nodes freed", str(len(gone)))),
        _three_ways(),
    )


def _three_ways() -> str:
    return fix(
        "One of these fits: compute the forward again before this backward; call backward once on "
        "the sum of the losses; detach a state that an earlier iteration left behind. Only where "
        "one graph is really asked twice, keep it in the first call:",
        ["loss.backward(retain_graph=True)"],
    )


def _read_after_free(scene: Scene) -> Verdict:
    text = (
        f"At {at(scene.place)} a saved tensor, or a graph, is read that an earlier backward has "
        f"freed."
    )
    found = ((TO_CHANGE, quoted(scene.place)),)
    return Verdict(CODE, text, found, _three_ways())
