"""``pullback explore``: the page of a backward pass, served to this machine alone."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from ..backward.record import BackwardRecord
from ..backward.recorder import record
from . import failures, passes
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
    return seen(passes.tutorial())


def of_function(request: Request) -> Seen:
    """The function of the file at its sample, with a cotangent of ones."""
    return seen(passes.of_function(CALLER, request.target, request.at))


def seen_at(func: Callable[..., Any], args: tuple[Any, ...]) -> Seen:
    """``func(*args)`` with every float argument a leaf, and its backward with ones."""
    return seen(passes.pass_at(CALLER, func, args))


def seen(found: passes.Pass) -> Seen:
    made = record(found.outputs, found.cotangents, inputs=found.inputs or None)
    return Seen(made, list(found.outputs.values()), found.inputs)
