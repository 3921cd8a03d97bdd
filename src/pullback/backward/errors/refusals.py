"""What torch refuses while the forward runs: inference tensors, arrays of values, out=."""

from __future__ import annotations

from ..verdict import Verdict
from . import source
from .leaves import subject
from .scene import Scene
from .words import TO_CHANGE, at, fix, quoted

INFERENCE = "inference_tensor"
NUMPY = "numpy_of_a_graph"
OUT = "out_with_gradients"
UNWATCHED = "no_gradient_to_watch"


def inference(scene: Scene) -> Verdict:
    """A tensor of ``torch.inference_mode`` in a computation with gradients."""
    plain = [t for t in scene.arguments if t.is_inference()]
    name = (scene.names.of(plain[0]) if plain else None) or _inference_name(scene)
    who = f"`{name}`" if name else "A tensor"
    what = {
        "Inference tensors cannot be saved": "is saved for a backward",
        "Inplace update to inference": "is written to in place",
        "Setting requires_grad=True on inf": "is asked to require a gradient",
    }
    does = next((words for start, words in what.items() if scene.text.startswith(start)), "is used")
    text = (
        f"{who} was made under torch.inference_mode() and {does} at {at(scene.place)}, outside of "
        f"it. Such tensors count no versions and can be part of no graph."
    )
    line = source.line_of(scene.place) if scene.place else ""
    named = name if name and name.isidentifier() else ""
    return Verdict(
        INFERENCE,
        text,
        (("tensor", name or "unnamed"), (TO_CHANGE, quoted(scene.place))),
        fix(
            "Use a copy that is made outside of inference mode, or make it under torch.no_grad() "
            "instead:",
            [f"{named} = {named}.clone()", line] if named else [],
        ),
    )


def _inference_name(scene: Scene) -> str:
    """A name in the failing line that stands for an inference tensor."""
    if scene.place is None:
        return ""
    for name in sorted(source.names_read(scene.place) | {subject(scene)[0]}):
        value = scene.variable(name) if name else None
        if getattr(value, "is_inference", lambda: False)():
            return name
    return ""


def numpy(scene: Scene) -> Verdict:
    """Values of a tensor with a graph were to be read as an array."""
    name, _ = subject(scene)
    named = name or "x"
    text = (
        f"{f'`{name}`' if name else 'The tensor'} at {at(scene.place)} requires a gradient, and "
        f"NumPy works on its values without a graph: gradients would be lost there unnoticed."
    )
    line = source.line_of(scene.place).replace(named, f"{named}.detach()", 1) if scene.place else ""
    return Verdict(
        NUMPY,
        text,
        ((TO_CHANGE, quoted(scene.place)),),
        fix(
            "To look at the values:",
            [_detached(line, named)],
            "Where gradients are to flow through, use the torch function of the same name.",
        ),
    )


def _detached(line: str, name: str) -> str:
    """``y = x.detach().numpy()``: the name on the left of an assignment is left alone."""
    target, equals, value = line.replace(f"{name}.detach()", name).partition(" = ")
    if not equals:
        return target.replace(name, f"{name}.detach()", 1)
    return f"{target} = {value.replace(name, f'{name}.detach()', 1)}"


def out(scene: Scene) -> Verdict:
    """``out=`` where one of the tensors requires a gradient."""
    line = source.out_of_place(scene.place) if scene.place else ""
    text = (
        f"The call at {at(scene.place)} writes its result into a tensor given as out=, which "
        f"autograd does not record, and one of the tensors there requires a gradient."
    )
    return Verdict(
        OUT,
        text,
        ((TO_CHANGE, quoted(scene.place)),),
        fix("Take the result as it is returned:", [line]),
    )


def unwatched(scene: Scene) -> Verdict:
    """A hook, or ``retain_grad``, on a tensor without a gradient."""
    name, _ = subject(scene)
    text = (
        f"{f'`{name}`' if name else 'The tensor'} at {at(scene.place)} requires no gradient, so no "
        f"backward passes it and there is nothing to watch."
    )
    return Verdict(
        UNWATCHED,
        text,
        ((TO_CHANGE, quoted(scene.place)),),
        fix("Before it is used:", [f"{name or 'x'}.requires_grad_()"]),
    )
