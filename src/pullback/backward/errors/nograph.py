"""``does not require grad``: the first place where the graph was lost, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from ... import _checks
from ..cuts import cuts_of
from ..origins import Cut
from ..verdict import Verdict
from . import source
from .scene import Scene
from .words import TO_CHANGE, TRACE, at, fix, listing, quoted, spelled

CODE = "no_graph"

_WHY = {
    "no_grad": "it ran where gradients are off (torch.no_grad(), or set_grad_enabled(False))",
    "inference_mode": "it ran under torch.inference_mode()",
    "detach": "detach() hands on the values without their graph",
    "copied": "torch.tensor() makes a new tensor of the values, without their graph",
    "data": ".data hands on the values without their graph",
}


def no_graph(scene: Scene) -> Verdict:
    """The verdict on an output that nothing can flow back from."""
    position = int(m[1]) if (m := re.search(r"element (\d+) of tensors", scene.text)) else 0
    output = scene.outputs[position] if position < len(scene.outputs) else None
    name = scene.output_name(position)
    name = name[0].upper() + name[1:]
    if not isinstance(output, Tensor):
        text = f"{name} has no graph. Pass the outputs to learn more: pb.diagnose(error, outputs)."
        return Verdict(CODE, text, (("raised at", quoted(scene.engine_place)),), _keep_graph())
    places = {cut.place: cut for cut in reversed(cuts_of(output))}  # of several leaves each
    if places:
        return _cut_off(scene, name, list(places.values())[::-1])
    return _never_had_one(scene, name, output)


def _cut_off(scene: Scene, name: str, cuts: Sequence[Cut]) -> Verdict:
    first = cuts[0]
    call = first.call
    text = (
        f"{name} has no graph: it was lost at {at(call)} in `{spelled(call)}`, "
        f"because {why(first)}."
    )
    if len(cuts) > 1:
        places = listing([f"`{spelled(cut.call)}` ({at(cut.call)})" for cut in cuts[1:]])
        text += f" The same happened at {places}."
    facts = [("reason", first.reason)]
    facts += [("cut", f"{quoted(cut.call)} ({cut.reason})") for cut in cuts]
    facts += [("asked at", quoted(scene.engine_place)), (TO_CHANGE, quoted(call))]
    return Verdict(CODE, text, tuple(facts), _mend(first))


def why(cut: Cut) -> str:
    """Half a sentence on a cut."""
    if cut.reason == "not_differentiable":
        return f"{cut.call.function} is not differentiable"
    return _WHY.get(cut.reason, cut.reason)


def _mend(cut: Cut) -> str:
    call, line = cut.call, source.line_of(cut.call)
    not_this = "Setting requires_grad on the output instead would make it a leaf of its own: its " \
        "backward would run and reach no parameter."  # fmt: skip
    if cut.reason in ("detach", "data"):
        kept = source.without_cut(call)
        return fix(f"Leave the graph on at {at(call)}{':' if kept else '.'}", [kept], not_this)
    if cut.reason == "copied":
        return fix(f"Use the tensor itself, or its .clone(), in place of {at(call)}:", [], not_this)
    if cut.reason in ("no_grad", "inference_mode"):
        out = "no_grad" if cut.reason == "no_grad" else "inference_mode"
        return fix(f"Move {at(call)} out of the {out} block:", [line], not_this)
    return fix(
        f"At {at(call)} use something with a derivative: the values before they are rounded, "
        f"compared or turned into indices (softmax for argmax, a sigmoid for a comparison).",
        not_this,
    )


def _never_had_one(scene: Scene, name: str, output: Tensor) -> Verdict:
    facts = [
        ("dtype", _checks.dtype_text(output.dtype)),
        (TO_CHANGE, quoted(scene.engine_place)),
    ]
    if not _checks.can_carry_gradients(output.dtype):
        text = (
            f"{name} has dtype {_checks.dtype_text(output.dtype)}: whole numbers and truths have "
            f"no derivative."
        )
        advice = "Differentiate the values before they were rounded, compared or made indices."
        return Verdict(CODE, text, tuple(facts), fix(advice))
    frozen = _frozen(scene)
    if frozen:
        text = (
            f"{name} has no graph: nothing that it was computed from requires a gradient. "
            f"{listing([f'`{n}`' for n in frozen])} "
            f"{'is' if len(frozen) == 1 else 'are'} frozen (requires_grad is False)."
        )
        facts += [("frozen", n) for n in frozen[:8]]
        module = frozen[0].partition(".")[0]
        advice = fix("Let what is to be trained require a gradient before the forward:",
                     [f"{module}.requires_grad_(True)"])  # fmt: skip
        return Verdict(CODE, text, tuple(facts), advice)
    text = f"{name} has no graph: nothing that it was computed from requires a gradient"
    if not scene.traced:
        text += f", or the graph was cut off on the way; {TRACE} the line"
    if output.is_inference():
        text += ". It was made under torch.inference_mode()"
    return Verdict(CODE, f"{text}.", tuple(facts), _keep_graph())


def _frozen(scene: Scene) -> list[str]:
    """Parameters in sight, if none of them requires a gradient."""
    parameters = [
        (f"{name}.{inner}", parameter)
        for name, module in scene.names.modules.items()
        for inner, parameter in module.named_parameters()
    ]
    if any(parameter.requires_grad for _, parameter in parameters):
        return []
    return [name for name, _ in parameters]


def _keep_graph() -> str:
    return fix(
        "Make an input require a gradient before the output is computed, and compute it outside "
        "of torch.no_grad(), without .detach(), .data or .item() on the way:",
        ["x.requires_grad_()"],
        "Setting requires_grad on the output itself would only make it a leaf of its own.",
    )
