"""Errors about inputs that outputs do not reach: asked for, of DDP, of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ... import _torch
from ..cuts import path_of_cuts, reads_of
from ..enginecalls import latest_calls
from ..events import UserCall
from ..graph import port_of, walk
from ..origins import AnyOrigin, Cut, call_of, origin_of, origin_of_tensor
from ..verdict import Verdict
from . import source
from .nograph import why
from .scene import Scene
from .words import TO_CHANGE, TRACE, at, fix, listing, quoted, spelled

UNUSED = "unused_input"
NO_FLAG = "input_without_grad"
UNREDUCED = "unreduced_parameters"
CHECKPOINT = "checkpoint_inputs"
REENTRANT = "reentrant_checkpoint"
RECOMPUTED = "checkpoint_differs"


def unused(scene: Scene) -> Verdict:
    """The verdict on an input of ``autograd.grad`` that the outputs do not depend on."""
    position = int(m[1]) if (m := re.search(r"at index (\d+)", scene.text)) else _first(scene)
    given = () if scene.engine is None else scene.engine.inputs
    tensor = given[position] if position < len(given) else None
    name = scene.name(tensor, f"input {position}") if isinstance(tensor, Tensor) else ""
    name = name or f"input {position}"
    facts = [("index", str(position)), ("asked at", quoted(scene.engine_place))]
    text = f"{name} (index {position}) was asked for, but {scene.output_name()} "
    text += "does not depend on it through any graph"
    if not isinstance(tensor, Tensor):
        return Verdict(UNUSED, f"{text}.", tuple(facts), _allow(scene))
    cuts = _cuts_to(scene, tensor)
    if cuts:
        where = cuts[-1]  # the nearest to the input
        text += (
            f": at {at(where.call)} `{spelled(where.call)}` its descendants left the path, because "
        )
        text += f"{why(where)}."
        facts += [("cut", f"{quoted(c.call)} ({c.reason})") for c in cuts]
        facts.append((TO_CHANGE, quoted(where.call)))
        return Verdict(UNUSED, text, tuple(facts), _keep(where))
    parent = _made_from(scene, tensor)
    if parent is not None:
        made = None if tensor.grad_fn is None else call_of(tensor.grad_fn)
        made = made or _assignment(scene, tensor)
        where_made = f" at {at(made)}" if made else ""
        text += (
            f". {name} was itself computed from {scene.name(parent)}{where_made}, and so was "
            f"{scene.output_name()}, but not from {name}: a view, a copy or a converted tensor is "
            f"another one."
        )
        facts.append((TO_CHANGE, quoted(made or scene.engine_place)))
        return Verdict(UNUSED, text, tuple(facts), _ask_for(scene, tensor, parent))
    text += _not_seen(scene, tensor)
    facts.append((TO_CHANGE, quoted(scene.engine_place)))
    return Verdict(UNUSED, text, tuple(facts), _allow(scene))


def _first(scene: Scene) -> int:
    """The first input that no graph leads to, where the error does not say."""
    graph = scene.graph
    given = () if scene.engine is None else scene.engine.inputs
    if graph is not None:
        for k, tensor in enumerate(given):
            if isinstance(tensor, Tensor) and port_of(tensor).node not in graph.children_of:
                return k
    return 0


def _cuts_to(scene: Scene, tensor: Tensor) -> list[Cut]:
    """The cuts between the outputs and an input, that nearest to the input last."""
    roots = [] if scene.graph is None else [origin_of(p.node) for p in scene.graph.roots]
    return _path(roots, tensor)


def _path(roots: list[AnyOrigin], tensor: Tensor) -> list[Cut]:
    if not tensor.requires_grad or _torch.is_transform_tensor(tensor):
        return []
    return path_of_cuts(roots, (), origin_of_tensor(tensor)) or []


def _made_from(scene: Scene, tensor: Tensor) -> Tensor | None:
    """A tensor behind both the input and the outputs."""
    if scene.graph is None or tensor.grad_fn is None:
        return None
    ours = {id(leaf) for _, leaf in scene.graph.leaves()}
    return next((leaf for _, leaf in walk([tensor]).leaves() if id(leaf) in ours), None)


def _assignment(scene: Scene, tensor: Tensor) -> UserCall | None:
    name, place = scene.names.of(tensor), scene.engine_place
    return source.latest_assignment(name, place) if name and place is not None else None


def _ask_for(scene: Scene, tensor: Tensor, parent: Tensor) -> str:
    """The call of the engine with the tensor that the outputs were computed from."""
    name, wanted, line = scene.names.of(tensor), scene.names.of(parent), ""
    if name and wanted and scene.engine_place is not None:
        call = scene.engine_place.code
        line = source.line_of(scene.engine_place).replace(call, _with_argument(call, name, wanted))
    lead = "Ask for the tensor that the output was computed from, or compute the output from this"
    return fix(f"{lead} one:" if line else f"{lead} one.", [line])


def _with_argument(code: str, name: str, wanted: str) -> str:
    return re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.(\[])", wanted, code)


def _not_seen(scene: Scene, tensor: Tensor) -> str:
    reads = [] if not tensor.requires_grad else reads_of(origin_of_tensor(tensor))
    if reads:
        told = listing([f"`{spelled(r.call)}` ({at(r.call)})" for r in reads])
        return f". Values of it were read out as plain numbers at {told}; what they went into has "\
            "no graph."  # fmt: skip
    if scene.traced:
        return ". Nothing that trace saw led from it to the output."
    return f". If it should, {TRACE} the place where its descendants left the path."


def _keep(cut: Cut) -> str:
    line, kept = source.line_of(cut.call), source.without_cut(cut.call)
    if cut.reason in ("detach", "data") and kept:
        return fix(f"Leave the graph on at {at(cut.call)}:", [kept])
    if cut.reason in ("no_grad", "inference_mode"):
        return fix(f"Move {at(cut.call)} out of the {cut.reason} block:", [line])
    return fix(f"Put something with a derivative in the place of {at(cut.call)}.")


def _allow(scene: Scene) -> str:
    return fix(
        "Compute the output from it; leave it out; or, where None stands for a zero gradient, say "
        "so with allow_unused=True."
    )


def no_flag(scene: Scene) -> Verdict:
    """The verdict on an input that does not require a gradient at all."""
    given = () if scene.engine is None else scene.engine.inputs
    wrong = [(k, t) for k, t in enumerate(given) if isinstance(t, Tensor) and not t.requires_grad]
    position, tensor = wrong[0] if wrong else (0, None)
    name = "An input" if tensor is None else scene.name(tensor, f"input {position}")
    known = "" if tensor is None else scene.names.of(tensor) or ""
    text = (
        f"{name} (index {position}) does not require a gradient, so no graph was recorded for it "
        f"while {scene.output_name()} was computed."
    )
    made = _assignment(scene, tensor) if tensor is not None else None
    facts = (("index", str(position)), (TO_CHANGE, quoted(made or scene.engine_place)))
    named = known or "x"
    return Verdict(
        NO_FLAG,
        text,
        facts,
        fix("Before the output is computed from it:", [f"{named}.requires_grad_()"]),
    )


def unreduced(scene: Scene) -> Verdict:
    """The verdict of DistributedDataParallel on parameters that got no gradient."""
    parallel = scene.local_of(DistributedDataParallel, "self")
    named = [] if parallel is None else _trained(parallel.module)
    missing = [named[k] for k in _indices(scene.text) if k < len(named)]
    names = [name for name, _ in missing]
    who = listing([f"`{n}`" for n in names]) if names else "Some parameters"
    text = (
        f"{who} received no gradient in the last iteration, so the processes never finished adding "
        f"it up: the loss does not depend on {'it' if len(names) == 1 else 'them'}."
    )
    facts = [("without a gradient", n) for n in names[:12]]
    cut = next((c for _, p in missing for c in _last_cuts(p)), None)
    if cut is not None:
        text += (
            f" {at(cut.call)} `{spelled(cut.call)}` cut {'it' if len(names) == 1 else 'one'} off: "
        )
        text += f"{why(cut)}."
        facts.append(("cut", f"{quoted(cut.call)} ({cut.reason})"))
    elif not scene.traced:
        text += f" {TRACE.capitalize()} the cut, if there was one."
    facts.append((TO_CHANGE, quoted(cut.call if cut is not None else scene.place)))
    return Verdict(
        UNREDUCED,
        text,
        tuple(facts),
        fix(
            "Use every parameter in the loss, or freeze those that are not meant to be trained "
            "(before the module is wrapped). Where it differs from one iteration to the next:",
            ["DistributedDataParallel(module, find_unused_parameters=True)"],
        ),
    )


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def _indices(text: str) -> list[int]:
    """The places of the parameters, as DistributedDataParallel counts them."""
    found = re.search(r"did not receive grad for rank \d+:((?: \d+)+)", text)
    return [] if found is None else [int(k) for k in found[1].split()]


def _last_cuts(parameter: Tensor) -> Iterator[Cut]:
    """Between the latest backward and a parameter."""
    calls = latest_calls()
    roots = [r.origin for r in calls[-1].roots if r.origin is not None] if calls else []
    yield from _path(roots, parameter)


def checkpoint_inputs(scene: Scene) -> Verdict:
    """The verdict on a reentrant checkpoint whose inputs require no gradient."""
    module = scene.local_of(nn.Module, "function")
    inside = [] if module is None else _trained(module)
    names = [scene.names.of(parameter) or name for name, parameter in inside]
    text = (
        "None of the tensors given to a reentrant checkpoint requires a gradient, so its output "
        "does not either, and what is inside it gets none"
    )
    text += f": .grad of {listing([f'`{n}`' for n in names])} stays None." if names else "."
    facts = [("gets no gradient", n) for n in names[:12]]
    facts.append((TO_CHANGE, quoted(scene.place)))
    line = _with_keyword(scene.place)
    return Verdict(
        CHECKPOINT,
        text,
        tuple(facts),
        fix("Use the other kind, which does not need its inputs to require a gradient:", [line]),
    )


def _with_keyword(place: UserCall | None) -> str:
    line = "" if place is None else source.line_of(place)
    if "use_reentrant=True" in line:
        return line.replace("use_reentrant=True", "use_reentrant=False")
    return "checkpoint(function, *args, use_reentrant=False)"


def reentrant(scene: Scene) -> Verdict:
    """A reentrant checkpoint met by ``autograd.grad``, or by ``inputs=``."""
    text = (
        f"The graph behind {scene.output_name()} holds a reentrant checkpoint. Its backward calls "
        f"backward again, which adds to .grad: it cannot hand gradients back, as "
        f"{at(scene.engine_place)} asks."
    )
    place = scene.engine_place
    calls = source.calls_of("checkpoint", place.file) if place else []
    reentrant_ones = [call for call in calls if "use_reentrant=False" not in call.code]
    made = reentrant_ones[0] if len(reentrant_ones) == 1 else None
    facts = (("asked at", quoted(place)), (TO_CHANGE, quoted(made or place)))
    return Verdict(REENTRANT, text, facts, fix("Use the other kind:", [_with_keyword(made)]))


def recomputed(scene: Scene) -> Verdict:
    """A checkpoint that computed something else the second time."""
    text = (
        f"A checkpoint in the graph behind {scene.output_name()} did not compute the same the "
        f"second time: {scene.text.splitlines()[0].partition('checkpoint: ')[2]} What it reads "
        f"(a flag, a counter, a cache, a mode) has changed since the forward."
    )
    return Verdict(
        RECOMPUTED,
        text,
        ((TO_CHANGE, quoted(scene.engine_place)),),
        fix(
            "Pass what changes as an argument of the checkpointed function, and change nothing "
            "else in it. This shows the two runs side by side:",
            ["checkpoint(function, *args, use_reentrant=False, debug=True)"],
        ),
    )
