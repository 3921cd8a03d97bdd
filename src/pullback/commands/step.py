"""``pullback step``: a backward pass node by node, at a prompt or from a pipe."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from .._errors import PullbackError
from ..backward.stepper import Stepper
from ..backward.stepper import step as begin
from . import failures, passes
from .orders import obey

CALLER = "step"
_PROMPT = "(step) "


@dataclass(frozen=True)
class Request:
    """What was typed, a field for each option."""

    target: str = ""
    at: Path | None = None
    traceback: bool = False


def run(request: Request) -> int:
    """Take orders until the end of input; the exit code: 0 done, 1 the function failed, 2
    refused."""
    try:
        found = (
            passes.of_function(CALLER, request.target, request.at)
            if request.target
            else passes.tutorial()
        )
        stepper = begin(found.outputs, found.cotangents, inputs=found.inputs or None)
    except (Exception, SystemExit) as error:
        if request.traceback:
            raise
        return failures.say(CALLER, error)
    typer.echo(f"{stepper}\n\nn runs the next node, h lists the orders.")
    converse(stepper)
    return 0


def converse(stepper: Stepper) -> None:
    """Whatever goes wrong with one order, the next one is read."""
    while True:
        try:
            line = _ask()
            if line.lower() == "q":
                return
            if line:
                typer.echo(obey(stepper, line))
        except (EOFError, KeyboardInterrupt):
            typer.echo("")
            return
        except PullbackError as error:
            typer.echo(str(error))
        except Exception as error:  # of a hook or a custom backward of the user's
            typer.echo(failures.tail(error))


def _ask() -> str:
    if sys.stdin.isatty():
        return input(_PROMPT).strip()
    print(_PROMPT, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    print(line.strip())
    return line.strip()
