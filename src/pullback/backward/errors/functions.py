"""Errors about a backward: that of a custom Function, or one that torch does not have."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

from torch.autograd.graph import Node

from ... import _torch
from ...draw.numbers import shape
from ..events import UserCall
from ..origins import call_of
from ..verdict import Evidence, Verdict
from .scene import Scene
from .words import TO_CHANGE, at, fix, quoted

SHAPE = "function_gradient_shape"
NUMBER = "function_gradient_count"
NO_DERIVATIVE = "no_derivative"
ONCE = "differentiable_once"


def gradient_shape(scene: Scene) -> Verdict:
    """A backward returned a gradient whose shape is not that of its input."""
    found = re.search(
        r"Function (\w+?)(?:Backward)? returned an invalid gradient at index (\d+) - got "
        r"\[([\d, ]*)\] but expected shape compatible with \[([\d, ]*)\]",
        scene.text,
    )
    if found is None:
        return _other_gradient(scene)
    name, position = found[1], int(found[2])
    got, expected = _shape(found[3]), _shape(found[4])
    node, function = _function(scene, name)
    argument = _forward_argument(function, position)
    where = _place_of_return(function)
    text = (
        f"{name}.backward returned, for {argument}, a gradient of shape {shape(got)}; that input "
        f"has shape {shape(expected)}, and a gradient has the shape of its input."
    )
    facts = [
        ("index", str(position)),
        ("returned", shape(got)),
        ("expected", shape(expected)),
        *_applied(node),
        (TO_CHANGE, quoted(where or scene.engine_place)),
    ]
    advice = fix(
        f"Return what has the shape of {argument}: sum over what the forward broadcast, and shape "
        f"it as the input. torch does it for broadcast axes:",
        [f"gradient.sum_to_size({', '.join(map(str, expected))})"],
    )
    return Verdict(SHAPE, text, tuple(facts), advice)


def _other_gradient(scene: Scene) -> Verdict:
    """Another device, layout or dtype."""
    text = f"{scene.text.rstrip('.')}: a gradient is of the kind of its input."
    found = ((TO_CHANGE, quoted(scene.engine_place)),)
    return Verdict(SHAPE, text, found, "Return a gradient of the device and layout of the input.")


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def gradient_count(scene: Scene) -> Verdict:
    """A backward returned more or fewer gradients than the forward has inputs."""
    found = re.search(r"function (\w+?)Backward .*expected (\d+), got (\d+)", scene.text)
    name, expected, got = found.groups() if found else ("The Function", "?", "?")
    node, function = _function(scene, name)
    arguments = _arguments(function)
    gradients = f"{got} gradient{'' if got == '1' else 's'}"
    taken = f"{expected} argument{'' if expected == '1' else 's'}"
    taken += f" ({', '.join(arguments)})" if arguments else ""
    text = (
        f"{name}.backward returned {gradients}, but {name}.forward takes {taken}: backward returns "
        f"one for each, in their order, and None for those without one."
    )
    where = _place_of_return(function)
    facts = [
        ("expected", expected),
        ("returned", got),
        *_applied(node),
        (TO_CHANGE, quoted(where or scene.engine_place)),
    ]
    slots = ", ".join(f"grad_{a}" for a in arguments) or "grad_input, None"
    advice = fix("Return one gradient for each argument, None where there is none:",
                 [f"return {slots}"])  # fmt: skip
    return Verdict(NUMBER, text, tuple(facts), advice)


def _function(scene: Scene, name: str) -> tuple[Node | None, type[Any] | None]:
    """The node of a custom Function, and its class."""
    for node in () if scene.graph is None else scene.graph.nodes:
        if _torch.node_name(node).removesuffix("Backward") == name:
            return node, _torch.custom_function(node)
    return None, None


def _arguments(function: type[Any] | None) -> list[str]:
    """What the forward of a Function takes, after the context."""
    if function is None:
        return []
    separate = "setup_context" in vars(function)
    names = list(inspect.signature(function.forward).parameters)
    return names if separate else names[1:]


def _forward_argument(function: type[Any] | None, position: int) -> str:
    names = _arguments(function)
    return f"input `{names[position]}`" if position < len(names) else f"input {position}"


def _place_of_return(function: type[Any] | None) -> UserCall | None:
    """The last return of a Function's backward."""
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(function.backward))  # type: ignore[union-attr]
        file = inspect.getsourcefile(function.backward) or ""  # type: ignore[union-attr]
        margin = len(lines[0]) - len(lines[0].lstrip())
        tree = ast.parse("".join(line[margin:] for line in lines))
    except (OSError, TypeError, AttributeError, SyntaxError):
        return None
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return)]
    if not returns:
        return None
    last = max(returns, key=lambda node: node.lineno)
    return UserCall("backward", file, first + last.lineno - 1, ast.unparse(last))


def _applied(node: Node | None) -> Evidence:
    call = None if node is None else call_of(node)
    return () if call is None else (("applied at", quoted(call)),)


def no_derivative(scene: Scene) -> Verdict:
    """torch has no formula for the backward of an operation, or for its second one."""
    found = re.search(r"derivative for '?([\w:]+)'? is not implemented", scene.text)
    name = found[1] if found else "an operation"
    second = "backward" in name
    node = _not_implemented(scene, name)
    first = _not_implemented(scene, name.removesuffix("_backward")) if second else None
    # The operation comes before the gradient of it: its line is the one to change.
    found_calls = [call_of(each) for each in (first, node) if each is not None]
    call = next((each for each in found_calls if each is not None), None)
    where = call or (scene.place if scene.engine is None else scene.engine_place)
    text = f"There is no derivative for {name} in torch"
    text += f" ({_torch.node_name(node)})" if node is not None else ""
    text += f", which {quoted(call)} made" if call else ""
    text += f"; it is asked for at {at(scene.engine_place)}."
    if second:
        operation = name.removeprefix("aten::").strip("_").removesuffix("_backward")
        text += f" That is the second derivative of {operation}: its first one exists."
        advice = fix(f"Write {operation} with operations that can be differentiated twice, or do "
                     f"without create_graph=True.")  # fmt: skip
    else:
        advice = fix(
            "Write it with operations that have a derivative, cut it off where its gradient is not "
            "wanted (.detach()), or give it one in a torch.autograd.Function."
        )
    return Verdict(NO_DERIVATIVE, text, (("operation", name), (TO_CHANGE, quoted(where))), advice)


def _not_implemented(scene: Scene, name: str) -> Node | None:
    wanted = name.rpartition("::")[2].replace("_", "").lower()
    for node in () if scene.graph is None else scene.graph.nodes:
        shown = _torch.node_name(node)
        if shown == "NotImplemented" or shown.rstrip("0123456789").lower() == f"{wanted}backward":
            return node
    return None


def once(scene: Scene) -> Verdict:
    """A Function whose backward was marked as not differentiable."""
    node = next(
        (n for n in (() if scene.graph is None else scene.graph.nodes) if _is_once(n)), None
    )
    text = (
        f"The backward of a custom Function is marked with @once_differentiable, and "
        f"{at(scene.engine_place)} differentiates it again."
    )
    return Verdict(
        ONCE,
        text,
        (*_applied(node), (TO_CHANGE, quoted(scene.engine_place))),
        fix(
            "Take the mark away, if the backward is made of torch operations on the tensors that "
            "it saved; else do without create_graph=True."
        ),
    )


def _is_once(node: Node) -> bool:
    function = _torch.custom_function(node)
    return function is not None and hasattr(function.backward, "__wrapped__")
