"""Errors about leaves: written in place, not a leaf where one is needed, flags and dtypes."""

from __future__ import annotations

import ast

from torch import Tensor, nn

from ... import _checks, _torch
from ..events import UserCall
from ..origins import call_of
from ..verdict import Verdict
from . import source
from .scene import Scene
from .words import TO_CHANGE, at, fix, quoted

WRITTEN = "leaf_in_place"
NON_LEAF = "non_leaf_parameter"
FLAG = "requires_grad_of_a_non_leaf"
DTYPE = "dtype_without_gradient"
DEEPCOPY = "deepcopy_of_a_non_leaf"


def written(scene: Scene) -> Verdict:
    """The verdict on a leaf, or a view of one, that was about to be written to in place."""
    view = "a view of a leaf" in scene.text
    name, tensor = subject(scene)
    leaf = tensor if tensor is None or not view else _base(tensor)
    known = scene.names.of(leaf) if leaf is not None else None
    who = f"`{name}`" if name else "The tensor"
    if view and leaf is tensor and scene.place is not None:
        who = f"`{scene.place.code}`"  # an entry of the leaf, not the leaf
    kind = f"a view of the leaf `{known or name}`" if view else "a leaf"
    text = (
        f"{who} is {kind}, which requires a gradient, and {at(scene.place)} writes to it in place. "
        f"backward would have no place to put the gradient of the value that was overwritten: a "
        f"leaf's .grad belongs to the values that the forward began with."
    )
    facts = [("leaf", known or name or "unnamed"), ("kind", _kind(scene, leaf))]
    facts.append((TO_CHANGE, quoted(scene.place)))
    return Verdict(WRITTEN, text, tuple(facts), _mend_write(scene, name, tensor, leaf, view))


def _base(tensor: Tensor) -> Tensor:
    return tensor._base if tensor._base is not None else tensor


def _kind(scene: Scene, leaf: Tensor | None) -> str:
    return "a parameter" if _is_parameter(scene, leaf) else "a tensor made with requires_grad"


def _is_parameter(scene: Scene, leaf: Tensor | None) -> bool:
    """What is trained: a write to it is an update, which is not to be differentiated."""
    if leaf is None:
        return False
    state = scene.names.is_state(scene.names.of(leaf) or "")
    return isinstance(leaf, nn.Parameter) or state or leaf.grad is not None


def _mend_write(
    scene: Scene, name: str, tensor: Tensor | None, leaf: Tensor | None, view: bool
) -> str:
    line = source.line_of(scene.place) if scene.place else ""
    update = ["with torch.no_grad():", f"    {line}"]
    if _is_parameter(scene, leaf):
        return fix("An update of a parameter is no part of the forward. Keep it out of the graph:",
                   update)  # fmt: skip
    if (view and leaf is not tensor) or not name:
        advice = fix("Where the write is part of the forward, work on a copy of the leaf, which is "
                     "no leaf itself, and write to that.")  # fmt: skip
        if view and (copied := _cloned_view(scene, name)):
            advice = fix("Where the write is part of the forward, make the view of a copy of the "
                         "leaf, which is no leaf itself:", [copied, line])  # fmt: skip
    elif _rebinds(scene):
        rewritten = source.out_of_place(scene.place) if scene.place else ""
        lead = "Where the write is part of the forward, make a new tensor, under a name of its own "
        lead += f"if the gradient of `{name}` is asked for later:"
        advice = fix(lead, [rewritten])
    else:
        lead = (
            "Where the write is part of the forward, write to a copy, under a name of its own if "
        )
        lead += f"the gradient of `{name}` is asked for later:"
        advice = fix(lead, [f"{name} = {name}.clone()", line])
    return advice + "\n" + fix("Where it is an update, keep it out of the graph:", update)


def _rebinds(scene: Scene) -> bool:
    return scene.place is not None and bool(source.out_of_place(scene.place))


def _cloned_view(scene: Scene, name: str) -> str:
    """The line that made the view, on a copy."""
    made = source.latest_assignment(name, scene.place) if name and scene.place else None
    if made is None:
        return ""
    statement = source.statement_at(made)
    if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.expr)):
        return ""
    whole = ast.unparse(statement.value)
    call = UserCall("", made.file, made.line, whole)
    return source.with_cloned_operand(call, "self")


def subject(scene: Scene) -> tuple[str, Tensor | None]:
    """The tensor that the failing call was about to write to, or was called on, and its name."""
    if scene.place is None:
        return "", None
    name = source.written_name(scene.place) or source.receiver(scene.place.code)
    if scene.arguments:
        tensor = scene.arguments[0]
        return scene.names.of(tensor) or name, tensor
    value = scene.variable(name) if name else None
    return name, value if isinstance(value, Tensor) else None


def not_a_leaf(scene: Scene) -> Verdict:
    """The verdict where an optimizer was given a tensor that was computed."""
    refused = _torch.refused_parameters(scene.frames)
    if not refused:
        text = f"At {at(scene.place)} an optimizer was given a tensor that is no leaf."
        advice = fix("Make the leaf last:", ["w = (torch.randn(3) * 0.01).requires_grad_()"])
        return Verdict(NON_LEAF, text, ((TO_CHANGE, quoted(scene.place)),), advice)
    tensor = refused[0]
    name = scene.names.of(tensor) or ""
    made = _made(scene, name, tensor)
    operation = _torch.node_name(tensor.grad_fn) if tensor.grad_fn is not None else "an operation"
    text = (
        f"{scene.name(tensor, 'What the optimizer was given')} is no leaf: {operation} computed it"
        f"{f' at {at(made)}' if made else ''}, from a leaf that keeps no name of its own. The "
        f"gradient would go to that leaf, and a step would change a value that the next forward "
        f"does not read."
    )
    facts = (
        ("made by", operation),
        ("given to the optimizer at", quoted(scene.place)),
        (TO_CHANGE, quoted(made or scene.place)),
    )
    return Verdict(NON_LEAF, text, facts, _make_leaf_last(name, made))


def _made(scene: Scene, name: str, tensor: Tensor) -> UserCall | None:
    if name and scene.place is not None:
        found = source.latest_assignment(name, scene.place)
        if found is not None:
            return found
    return call_of(tensor.grad_fn) if tensor.grad_fn is not None else None


def _make_leaf_last(name: str, made: UserCall | None) -> str:
    line = ""
    if made is not None and name:
        _, equals, value = source.line_of(made).partition(" = ")
        rewritten = source.leaf_made_last(value) if equals else ""
        line = f"{name} = {rewritten}" if rewritten else ""
    if not line:
        line = f"{name or 'w'} = {name or 'w'}.detach().requires_grad_()"
    return fix("Make the leaf last, after its values are computed:", [line])


def flag_of_a_non_leaf(scene: Scene) -> Verdict:
    """The verdict where requires_grad of a computed tensor was to be changed."""
    name, _ = subject(scene)
    text = (
        f"{f'`{name}`' if name else 'The tensor'} at {at(scene.place)} was computed, so whether it "
        f"requires a gradient follows from what it was computed from; only a leaf can be told."
    )
    named = name or "h"
    return Verdict(
        FLAG,
        text,
        ((TO_CHANGE, quoted(scene.place)),),
        fix(
            "To stop gradients there, go on with its values alone:", [f"{named} = {named}.detach()"]
        ),
    )


def dtype(scene: Scene) -> Verdict:
    """The verdict where whole numbers were asked to require a gradient."""
    name, tensor = subject(scene)
    what = f" `{name}` has dtype {_checks.dtype_text(tensor.dtype)}." if tensor is not None else ""
    text = (
        f"At {at(scene.place)} a tensor that is neither of floating point nor complex is asked to "
        f"require a gradient, and its entries cannot move by a little.{what}"
    )
    line = source.in_floating_point(scene.place) if scene.place else ""
    return Verdict(
        DTYPE,
        text,
        ((TO_CHANGE, quoted(scene.place)),),
        fix("Make it of floating point first:", [line or "x = x.float().requires_grad_()"]),
    )


def deepcopy(scene: Scene) -> Verdict:
    """The verdict on a deep copy of something that holds a computed tensor."""
    tensor = scene.local_of(Tensor, "self")
    name = "" if tensor is None else scene.names.of(tensor) or ""
    what = f"`{name}`" if name else "a tensor of it"
    text = (
        f"What is copied at {at(scene.place)} holds {what}, which was computed and carries a "
        f"graph; a deep copy can only hold leaves."
    )
    if tensor is not None and tensor.grad_fn is not None:
        made = call_of(tensor.grad_fn)
        by = _torch.node_name(tensor.grad_fn)
        text += f" {by} made it{f' at {at(made)}' if made else ''}."
    plain = name.isidentifier()
    code = [f"{name} = {name}.detach().clone()"] if plain else []
    lead = "Copy its values without the graph" + (":" if code else " (detach().clone()).")
    return Verdict(
        DEEPCOPY,
        text,
        ((TO_CHANGE, quoted(scene.place)),),
        fix(
            lead,
            code,
            "Copy a module that caches a computed weight (weight_norm, say) before its forward.",
        ),
    )
