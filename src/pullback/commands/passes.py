"""The backward pass that a command is about: of a function of the user's, or the tutorial's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks
from .._checks import commands as checks
from .._trees import flatten, map_leaves
from ..backward.graph import walk
from ..backward.provenance import parameter_name, trace
from ..lessons.exercise import weighed
from ..sparse.arguments import arguments_for
from . import script


@dataclass(frozen=True)
class Pass:
    """Outputs and their cotangents by name, and what they are differentiated with respect to."""

    outputs: dict[str, Tensor]
    cotangents: dict[str, Tensor]
    inputs: dict[str, Tensor]


def tutorial() -> Pass:
    """The weighing exercise: what a stranger can play with at once."""
    inp = torch.eye(4, 5, requires_grad=True)
    with trace():
        out = weighed(inp)
    v = torch.zeros_like(out)
    v[0] = 1
    return Pass({"out": out}, {"out": v}, {"inp": inp})


def of_function(caller: str, target: str, at: Path | None) -> Pass:
    """The function of the file at its sample, or at the point in a file."""
    file, name = checks.target_text(caller, target)
    path = Path(file)
    checks.file_is_there(caller, "FILE.py", path)
    found = script.target_of(caller, script.import_file(path), path, name)
    point = (
        script.point_of_module(caller, found)
        if at is None
        else script.point_in_file(caller, at, found)
    )
    return pass_at(caller, found.func, point.args)


def pass_at(caller: str, func: Callable[..., Any], args: tuple[Any, ...]) -> Pass:
    """``func(*args)`` with every float argument a leaf, and a cotangent of ones."""
    fresh = tuple(map_leaves(_leaf, arg) for arg in args)
    with trace():
        outputs = func(*fresh)
    leaves, structure = flatten(outputs)
    found = {
        f"out{path}": leaf
        for path, leaf in zip(structure.paths, leaves, strict=True)
        if isinstance(leaf, Tensor)
    }
    if not found:
        raise _checks.no_tensor_output(caller, outputs)
    named = {name: leaf for name, leaf in found.items() if leaf.requires_grad} or found
    ones = {name: torch.ones_like(leaf) for name, leaf in named.items()}
    return Pass(named, ones, _inputs(caller, func, fresh, list(named.values())))


def _leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
        return value.detach().clone().requires_grad_()
    return value


def _arguments(caller: str, func: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Tensor]:
    floats = tuple(k for k, arg in enumerate(args) if any(map(_is_leaf, flatten(arg)[0])))
    if not floats:
        return {}
    forward = func.forward if isinstance(func, nn.Module) else func
    arguments = arguments_for(caller, args, floats, forward)
    return {
        name: leaf
        for name, leaf in zip(arguments.names, arguments.leaves, strict=True)
        if _is_leaf(leaf)
    }


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _inputs(
    caller: str, func: Callable[..., Any], args: tuple[Any, ...], outputs: list[Tensor]
) -> dict[str, Tensor]:
    """The arguments by the names of the function's parameters, and the other leaves it reached."""
    named = _arguments(caller, func, args)
    known = {id(tensor) for tensor in named.values()}
    if all(tensor.requires_grad for tensor in outputs):
        for k, (_, leaf) in enumerate(walk(outputs).leaves()):
            if id(leaf) not in known:
                named[parameter_name(leaf) or f"leaf {k}"] = leaf
    return named
