"""``pullback explore``: the page of a backward pass, served to this machine alone."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor, nn

from .. import _checks
from .._checks import commands as checks
from .._trees import flatten, map_leaves
from ..backward.graph import walk
from ..backward.provenance import parameter_name, trace
from ..backward.record import BackwardRecord
from ..backward.recorder import record
from ..sparse.arguments import arguments_for
from . import failures, script
from .server import Server

CALLER = "explore"


@dataclass(frozen=True)
class Request:
    """What was typed, a field for each option."""

    target: str = ""
    at: Path | None = None
    port: int = 0
    opened: bool = True
    traceback: bool = False


@dataclass(frozen=True)
class Seen:
    """A record, and the tensors whose graph stands behind it."""

    record: BackwardRecord
    outputs: list[Tensor]
    inputs: dict[str, Tensor]


def run(request: Request) -> int:
    """Serve until interrupted; the exit code: 0 done, 1 the function failed, 2 refused."""
    try:
        seen = tutorial() if not request.target else of_function(request)
        server = Server(seen.record, request.port)
    except (Exception, SystemExit) as error:
        if request.traceback:
            raise
        return failures.say(CALLER, error)
    typer.echo(f"The page of this pass: {server.url}")
    typer.echo("It is served to this machine alone, until Ctrl-C.")
    if request.opened:
        webbrowser.open(server.door)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("")
    finally:
        server.close()
    return 0


def tutorial() -> Seen:
    """The weighing exercise: what a stranger can play with at once."""
    inp = torch.eye(4, 5, requires_grad=True)
    with trace():
        out = (inp + 10).pow(3).t()
    v = torch.zeros_like(out)
    v[0] = 1
    return Seen(record({"out": out}, {"out": v}, inputs={"inp": inp}), [out], {"inp": inp})


def of_function(request: Request) -> Seen:
    """The function of the file at its sample, with a cotangent of ones."""
    file, name = checks.target_text(CALLER, request.target)
    path = Path(file)
    checks.file_is_there(CALLER, "FILE.py", path)
    target = script.target_of(CALLER, script.import_file(path), path, name)
    point = (
        script.point_of_module(CALLER, target)
        if request.at is None
        else script.point_in_file(CALLER, request.at, target)
    )
    return seen_at(target.func, point.args)


def seen_at(func: Callable[..., Any], args: tuple[Any, ...]) -> Seen:
    """``func(*args)`` with every float argument a leaf, and its backward with ones."""
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
        raise _checks.no_tensor_output(CALLER, outputs)
    named = {name: leaf for name, leaf in found.items() if leaf.requires_grad} or found
    ones = {name: torch.ones_like(leaf) for name, leaf in named.items()}
    inputs = _inputs(func, fresh, list(named.values()))
    return Seen(record(named, ones, inputs=inputs or None), list(named.values()), inputs)


def _leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
        return value.detach().clone().requires_grad_()
    return value


def _arguments(func: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Tensor]:
    floats = tuple(k for k, arg in enumerate(args) if any(map(_is_leaf, flatten(arg)[0])))
    if not floats:
        return {}
    forward = func.forward if isinstance(func, nn.Module) else func
    arguments = arguments_for(CALLER, args, floats, forward)
    return {
        name: leaf
        for name, leaf in zip(arguments.names, arguments.leaves, strict=True)
        if _is_leaf(leaf)
    }


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _inputs(
    func: Callable[..., Any], args: tuple[Any, ...], outputs: list[Tensor]
) -> dict[str, Tensor]:
    """The arguments by the names of the function's parameters, and the other leaves it reached."""
    named = _arguments(func, args)
    known = {id(tensor) for tensor in named.values()}
    if all(tensor.requires_grad for tensor in outputs):
        for k, (_, leaf) in enumerate(walk(outputs).leaves()):
            if id(leaf) not in known:
                named[parameter_name(leaf) or f"leaf {k}"] = leaf
    return named
