"""What a command says when something was raised: the user's own lines, or a refusal's text."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch
import typer

from .._errors import PullbackError

_PULLBACK = Path(__file__).resolve().parents[1]
_TORCH = Path(torch.__file__).resolve().parent
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = ("site-packages", "dist-packages")


def say(caller: str, error: BaseException) -> int:
    """Tell a refusal, or the user's own lines, on standard error; the exit code: 2 or 1."""
    own = own_frames(error)
    if isinstance(error, PullbackError) and not own:
        typer.echo(f"pullback {caller}: {str(error).removeprefix(f'{caller}: ')}", err=True)
        return 2
    typer.echo(tail(error), err=True)
    if not isinstance(error, SyntaxError) and not own:
        typer.echo("No line of yours is in the traceback; --traceback shows all of it.", err=True)
    return 1


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames from the first line of the user's on, those of pullback and torch left out."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_library(f.filename)]
    first = next((k for k, f in enumerate(frames) if not _is_standard(f.filename)), len(frames))
    return frames[first:]


def tail(error: BaseException) -> str:
    """The end of the traceback as Python prints it, without the library's frames."""
    lines = traceback.format_list(own_frames(error))
    head = ["Traceback (your lines):\n"] if lines else []
    return "".join([*head, *lines, *traceback.format_exception_only(error)]).rstrip()


def _is_library(filename: str) -> bool:
    if filename.startswith("<"):
        return True
    path = Path(filename).resolve()
    return path.is_relative_to(_PULLBACK) or path.is_relative_to(_TORCH)


def _is_standard(filename: str) -> bool:
    path = Path(filename).resolve()
    return path.is_relative_to(_STANDARD) and not any(part in path.parts for part in _INSTALLED)
