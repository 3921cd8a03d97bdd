"""Errors about views: written in place where autograd cannot follow the write."""

from __future__ import annotations

import re

from torch import Tensor

from ... import _torch
from ..events import UserCall
from ..verdict import Verdict
from . import source
from .leaves import subject
from .scene import Scene
from .words import TO_CHANGE, at, fix, quoted

CODE = "view_in_place"
SHARED = "overlapping_memory"
DETACH = "detach_of_a_view"


def of_many(scene: Scene) -> Verdict:
    """One of several views that one call made was about to be written to in place."""
    found = re.match(r"Output (\d+) of (\w+) is a view", scene.text)
    position, maker = (found[1], found[2]) if found else ("0", "the call")
    name, tensor = subject(scene)
    base = _base_name(scene, tensor)
    text = (
        f"{f'`{name}`' if name else 'The tensor'} is output {position} of {maker}, which gave "
        f"several views of {base} at once, and {at(scene.place)} writes to it in place. The write "
        f"would change {base} too, and the node of {maker} cannot be rewritten for one of its "
        f"outputs alone."
    )
    facts = (("view made by", maker), ("output", position), (TO_CHANGE, quoted(scene.place)))
    return Verdict(CODE, text, facts, _mend(scene, name))


def made_without_gradients(scene: Scene) -> Verdict:
    """A view that was made where gradients are off was about to be written where they are on."""
    mode = "inference_mode" if "inference mode" in scene.text else "no_grad"
    name, tensor = subject(scene)
    who = f"`{name}`" if name else "The tensor"
    text = (
        f"{who} is a view of {_base_name(scene, tensor)} that was made under torch.{mode}(), so "
        f"autograd does not know of it, and {at(scene.place)} writes to it where gradients are on: "
        f"it cannot be told whether the write is to be differentiated."
    )
    made = _line_of_view(scene, name)
    line = source.line_of(scene.place) if scene.place else ""
    lines = [*([source.line_of(made)] if made else []), line]
    facts = (
        *((("view made at", quoted(made)),) if made else ()),
        (TO_CHANGE, quoted(scene.place)),
    )
    advice = fix(f"To have it differentiated, make the view outside of the {mode} block too:",
                 lines, "If it is not to be differentiated, do both inside:",
                 [f"with torch.{mode}():", f"    {line}"])  # fmt: skip
    return Verdict(CODE, text, facts, advice)


def _line_of_view(scene: Scene, name: str) -> UserCall | None:
    if not name.isidentifier() or scene.place is None:
        return None
    return source.latest_assignment(name, scene.place)


def by_function(scene: Scene) -> Verdict:
    """Views that a custom Function, or a call under a mode of its own, handed out."""
    name, _ = subject(scene)
    text = (
        f"{f'`{name}`' if name else 'The tensor'} at {at(scene.place)} is a view that autograd "
        f"cannot follow a write through: {scene.text.partition('.')[0]}."
    )
    return Verdict(CODE, text, ((TO_CHANGE, quoted(scene.place)),), _mend(scene, name))


def _mend(scene: Scene, name: str) -> str:
    if scene.place is None:
        return "Write to a new tensor."
    rewritten = source.out_of_place(scene.place)
    if rewritten and name.isidentifier():
        return fix("Make a new tensor of it:", [rewritten])
    line = source.line_of(scene.place)
    if name.isidentifier():
        return fix("Write to a copy:", [f"{name} = {name}.clone()", line])
    return fix(f"Write to a clone, or out of place, at {at(scene.place)}.")


def _base_name(scene: Scene, tensor: Tensor | None) -> str:
    base = None if tensor is None else tensor._base
    return "its base" if base is None else scene.name(base, "its base")


def overlapping(scene: Scene) -> Verdict:
    """Memory that several entries share, such as that of ``expand``."""
    name, tensor = subject(scene)
    text = (
        f"Several entries of {f'`{name}`' if name else 'the tensor'} stand at one place in memory, "
        f"as expand() leaves them, and {at(scene.place)} writes to it in place: one place would "
        f"get several values."
    )
    facts = [(TO_CHANGE, quoted(scene.place))]
    if tensor is not None and not _torch.is_transform_tensor(tensor):
        facts.insert(0, ("strides", str(tuple(tensor.stride()))))
    line = source.line_of(scene.place) if scene.place else ""
    named = name or "x"
    return Verdict(
        SHARED,
        text,
        tuple(facts),
        fix("Give every entry its own place first:", [f"{named} = {named}.clone()", line]),
    )


def detached(scene: Scene) -> Verdict:
    """``detach_`` on a view."""
    name, _ = subject(scene)
    text = (
        f"{f'`{name}`' if name else 'The tensor'} at {at(scene.place)} is a view, and a view "
        f"cannot be cut off from its base in place."
    )
    named = name or "v"
    advice = fix("Go on with a new tensor:", [f"{named} = {named}.detach()"])
    return Verdict(DETACH, text, ((TO_CHANGE, quoted(scene.place)),), advice)
