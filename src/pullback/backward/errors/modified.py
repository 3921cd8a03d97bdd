"""``modified by an inplace operation``: who saved, who wrote, and the one copy that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from ... import _torch
from ..events import UserCall
from ..formulas import formulas_of
from ..mutations import Mutation, mutations_of
from ..origins import call_of
from ..verdict import Evidence, Verdict
from . import source
from .scene import Scene
from .words import TO_CHANGE, TRACE, at, fix, listing, quoted, spelled, times

CODE = "modified_in_place"
_MENDED = 3
_RESULTS = {"result", "result0", "result1", "result2", "output"}


@dataclass(frozen=True)
class Damage:
    """One tensor that a node saved and that was written to since; ``writes`` as far as seen."""

    node: Node
    saved: _torch.Overwritten
    writes: tuple[Mutation, ...]
    unheard: tuple[Mutation, ...]
    name: str
    aliases: tuple[str, ...]

    @property
    def is_result(self) -> bool:
        return self.saved.name in _RESULTS

    @property
    def call(self) -> UserCall | None:
        """The call that saved it."""
        return call_of(self.node)

    @property
    def operation(self) -> str:
        return _torch.node_name(self.node)

    def saved_as(self) -> str:
        """``its result `b```, ``its operand `a` (self)``."""
        name = f" `{self.name}`" if self.name else ""
        if self.is_result:
            return f"its result{name}"
        if self.saved.name == "saved_tensors":
            return f"the tensor{name} for its backward"
        return f"its operand{name} ({self.saved.name})"


def modified(scene: Scene) -> Verdict:
    """The verdict on the engine's complaint about a version."""
    found = damages(scene)
    if not found:
        return _without_graph(scene)
    first = next((d for d in found if _same(d.saved.message, scene.text)), found[0])
    others = [d for d in found if d is not first]
    parts = (_story(first, scene.traced), _why(first), _rest(others))
    facts = _evidence(first, others, _suspects(scene, first))
    fixes = dict.fromkeys(_fix(scene, damage) for damage in (first, *_elsewhere(first, others)))
    return Verdict(CODE, " ".join(part for part in parts if part), facts, "\n".join(fixes))


def _elsewhere(first: Damage, others: list[Damage]) -> list[Damage]:
    """What other writes have damaged: that of the same write is mended with the first."""
    return [d for d in others if _culprit(d) is None or _culprit(d) != _culprit(first)][:_MENDED]


def damages(scene: Scene) -> list[Damage]:
    """Everything in the graph that cannot be used any more, in the order of the engine."""
    nodes = [] if scene.graph is None else list(scene.graph.nodes)
    inner = [node for node in nodes if _torch.leaf_of(node) is None]
    inner.sort(key=_torch.sequence_number, reverse=True)
    return [_damage(scene, node, saved) for node in inner for saved in _torch.overwritten(node)]


def _damage(scene: Scene, node: Node, saved: _torch.Overwritten) -> Damage:
    if saved.tensor is None:
        return Damage(node, saved, (), (), "", ())
    seen = mutations_of(saved.tensor)
    writes = _chain(seen, saved.found, saved.expected)
    names = tuple(scene.names.of_memory(saved.tensor))
    name = scene.names.of(saved.tensor) or _name(node, saved, writes, names)
    every = _chain(seen, saved.found, 0)
    complete = bool(every) and every[0].before == 0
    unheard = tuple(w for w in seen if w.behind or (complete and w not in every))
    return Damage(node, saved, writes, unheard, name, names)


def _chain(seen: tuple[Mutation, ...], newest: int, oldest: int) -> tuple[Mutation, ...]:
    """The writes that led from one version to another, as far back as they were seen.

    Versions of `x.data` count apart and may look alike; those of one counter join up.
    """
    chain: list[Mutation] = []
    for write in reversed(seen):
        if write.behind or write.after != newest:
            continue
        chain.append(write)
        newest = write.before
        if newest <= oldest:
            break
    return tuple(reversed(chain))


def _name(
    node: Node, saved: _torch.Overwritten, writes: tuple[Mutation, ...], known: tuple[str, ...]
) -> str:
    """What the writes, or else the statement that saved, call it."""
    written = [name for w in writes if not w.view and (name := source.written_name(w.call))]
    if written:
        return written[-1]
    call = call_of(node)
    if call is not None and saved.name in _RESULTS:
        bound = source.assigned_names(call)
        if len(bound) == 1 and source.line_of(call).endswith(f"= {call.code}"):
            return bound[0]
    return known[0] if known else ""


def _same(message: str, raised: str) -> bool:
    return message.partition("Hint")[0] == raised.partition("Hint")[0]


def _story(damage: Damage, traced: bool) -> str:
    saved, count = damage.saved, damage.saved.found - damage.saved.expected
    who = (
        damage.operation if damage.call is None else f"`{spelled(damage.call)}` ({at(damage.call)})"
    )
    text = (
        f"{who} saved {damage.saved_as()} at version {saved.expected}, and the same memory was "
        f"written to in place {times(count)} before the backward: it is at version {saved.found}"
    )
    if damage.writes:
        return f"{text}, by {listing([_by(write) for write in damage.writes])}."
    if traced:
        return (
            f"{text}. No call that trace saw wrote it: look for other threads, and for functions "
            f"that run during a backward."
        )
    return f"{text}. Who wrote was not seen; {TRACE} each write and its line."


def _by(write: Mutation) -> str:
    through = ", through a view" if write.view else ""
    return f"`{spelled(write.call)}` ({at(write.call)}{through})"


def _why(damage: Damage) -> str:
    name = damage.saved.name
    value = re.compile(rf"\b{re.escape(name)}\b(?!\.(?!conj))")  # not its shape or dtype alone
    using = [f for f in formulas_of(damage.operation) if value.search(f.partition(": ")[2])]
    if not using:
        return f"{damage.operation} computes its gradient from the value as it was."
    return f"{damage.operation} needs the value as it was; its formula is `{using[0]}`."


def _rest(others: list[Damage]) -> str:
    if not others:
        return ""
    each = dict.fromkeys(f"{d.operation} ({at(d.call)}: {d.saved_as()})" for d in others)
    told = listing(list(each))
    verb = "has" if len(each) == 1 else "have"
    return f"The engine stops at the first; {told} {verb} the same trouble."


def _evidence(first: Damage, others: list[Damage], suspects: list[UserCall]) -> Evidence:
    saved = first.saved
    facts = [
        ("node", first.operation),
        ("saved as", first.saved_as()),
        ("saved at", quoted(first.call) if first.call else "not traced"),
        ("version expected", str(saved.expected)),
        ("version found", str(saved.found)),
    ]
    facts += [
        (f"write {w.before} -> {w.after}", quoted(w.call) + (" (a view)" if w.view else ""))
        for w in first.writes
    ]
    facts += [("write behind autograd's back", quoted(w.call)) for w in first.unheard]
    facts += [("formula", line) for line in formulas_of(first.operation)]
    more = dict.fromkeys(f"{d.operation}: {d.saved_as()}" for d in others)
    facts += [("also modified", told) for told in more]
    culprit = _culprit(first)
    if culprit is None:
        facts += [("may have written", quoted(call)) for call in suspects]
    change = culprit or (suspects[0] if len(suspects) == 1 else None)
    return (*facts, (TO_CHANGE, quoted(change))) if change else tuple(facts)


def _culprit(damage: Damage) -> UserCall | None:
    """The first write after the value was saved."""
    return damage.writes[0].call if damage.writes else None


def _suspects(scene: Scene, damage: Damage) -> list[UserCall]:
    """Lines of the program that write to the name of the tensor, where no write was seen."""
    place = scene.engine_place
    if damage.writes or place is None:
        return []
    return [call for name in damage.aliases for call in source.writes_to(name, place)]


def _fix(scene: Scene, damage: Damage) -> str:
    culprit = _culprit(damage)
    if culprit is not None and culprit.function.endswith(".step"):
        return _before_the_step(scene, culprit)
    if culprit is None:
        return _unseen(scene, damage)
    if culprit.module and not culprit.function.endswith("_"):
        return _module_in_place(culprit)
    if _free_to_rebind(scene, damage):
        rewritten = source.out_of_place(culprit)
        if rewritten:
            return fix(
                f"At {at(culprit)} make a new tensor, so that the saved one stays as it was:",
                [rewritten],
            )
        name = source.written_name(culprit)
        if name and "." not in name and not damage.writes[0].view and not _at_once(damage):
            before = f"Before {at(culprit)} give `{name}` memory of its own:"
            return fix(before, [f"{name} = {name}.clone()", source.line_of(culprit)])
    return _clone_where_saved(damage)


def _free_to_rebind(scene: Scene, damage: Damage) -> bool:
    """Whether nobody else reaches the memory, so that the written name may become a new tensor."""
    write = damage.writes[0]
    name = source.written_name(write.call)
    own = {name, *source.assigned_names(write.call)}
    others = [n for n in damage.aliases if n.partition("[")[0] not in own]
    return bool(name) and not write.view and not others and not scene.names.is_state(name)


def _at_once(damage: Damage) -> bool:
    """Whether one statement reads what is saved and writes over it: no copy made before it helps.

    ``out[t + 1] = out[t] * w``, say, where every row is read from the memory that is written to.
    """
    call, write = damage.call, damage.writes[0].call
    return call is not None and (call.file, call.line) == (write.file, write.line)


def _clone_where_saved(damage: Damage) -> str:
    call = damage.call
    if call is None:
        return fix(
            f"Give {damage.operation} a copy: clone the tensor that it saves, or write to a clone "
            f"of it."
        )
    if source.written_name(call):
        line = source.through_a_copy(call, damage.saved.name)
    elif damage.is_result:
        line = source.with_cloned_result(call)
    else:
        line = source.with_cloned_operand(call, damage.saved.name)
    if not line:
        return fix(f"Write to a clone of the tensor that {at(call)} saves, not to itself.")
    return fix(
        f"The memory that is written to is shared, so keep the write and let {at(call)} work on "
        f"a copy:",
        [line],
    )


def _before_the_step(scene: Scene, step: UserCall) -> str:
    backward = scene.engine_place
    code = "" if backward is None else source.line_of(backward)
    return fix(
        f"{step.function} moved the parameters between the forward and this backward. Run every "
        f"backward before the step:",
        [code, source.line_of(step)],
        "Or compute the forward again after the step, where the new parameters are meant.",
    )


def _module_in_place(write: UserCall) -> str:
    """For a module that was made to write over what it is given."""
    kind = write.module
    made = source.modules_in_place(write.file)
    line = made[0].code.replace("inplace=True", "inplace=False") if len(made) == 1 else ""
    where = f" at {at(made[0])}" if len(made) == 1 else ""
    lead = f"The module `{kind}`, called at {at(write)}, writes over its input. Make it{where} with"
    return fix(f"{lead} inplace=False{':' if line else '.'}", [line])


def _unseen(scene: Scene, damage: Damage) -> str:
    tensor = damage.saved.tensor
    if tensor is not None and any(scene.names.is_state(n) for n in damage.aliases):
        return fix(
            f"`{damage.name}` belongs to a module. If an optimizer's step() stands between the "
            f"forward and this backward, run every backward before the step, or compute the "
            f"forward again after it."
        )
    name = damage.name
    how = f" ({name} = {name} + ..., not {name} += ...)" if name else ""
    return fix(f"Write to a new tensor{how}, or let {damage.operation} save a clone.")


def proof(rerun: Callable[[], Any]) -> Evidence:
    """What the failing work gives when every saved tensor is kept as it was."""
    with _torch.saved_tensors_kept():
        try:
            result = rerun()
        except Exception as error:  # the user's function may raise anything
            told = f"fails with {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        else:
            told = f"passes{_gradients(result)}"
    return (("run again with copies of the saved tensors", told),)


def _gradients(result: object) -> str:
    values = result if isinstance(result, (tuple, list)) else (result,)
    shown = [str(value.tolist()) for value in values if isinstance(value, Tensor)]
    return f", gradient = {', '.join(shown)}" if shown else ""


def _without_graph(scene: Scene) -> Verdict:
    """What can be said where the graph is not at hand: the engine's own words, read."""
    where = quoted(scene.engine_place)
    text = (
        f"A tensor that the backward at {at(scene.engine_place)} needs was written to in place "
        f"after the forward had saved it. Its graph is not at hand any more, so the node and the "
        f"writes are not known; pass the outputs: pb.diagnose(error, outputs)."
    )
    found = (("raised at", where),)
    advice = "Write to new tensors between the forward and the backward."
    return Verdict(CODE, text, found, fix(advice))
