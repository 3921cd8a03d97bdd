"""``pullback run``: a user's script, unmodified, with a ledger of its gradients."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import typer

from .. import _torch, draw
from .._checks import commands as checks
from ..backward import calls
from ..backward.diagnose import diagnose
from ..backward.events import UserCall
from ..backward.overseer import Overseer
from ..backward.provenance import trace
from ..backward.runreport import report_of
from ..backward.sites import site
from . import failures

CALLER = "run"


@dataclass(frozen=True)
class Request:
    """What was typed. ``stays`` leaves the script in the place of ``__main__`` when it has ended:
    handlers at the exit of the process look for its names there."""

    script: Path
    arguments: Sequence[str] = ()
    quiet: bool = False
    report: Path | None = None
    stays: bool = False


def run(request: Request) -> int:
    """Run the script as ``python SCRIPT`` would; its own exit code, or 2 where it cannot be read.

    Its output, its exceptions and its exit code are its own. What is added goes to standard error,
    after it: under a traceback that autograd caused, the diagnosis; at the end, the summary.
    """
    try:
        checks.file_is_there(CALLER, "SCRIPT", request.script)
        source = request.script.read_bytes()
    except Exception as error:
        return failures.say(CALLER, error)
    with _as_main(request) as module:
        tracing = trace()
        overseer = Overseer(tracing)
        code = _watched(overseer, tracing, lambda: _execute(source, module))
        _summarize(request, overseer)
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


@contextmanager
def _as_main(request: Request) -> Iterator[ModuleType]:
    """A ``__main__`` of the script's own, with its arguments and its folder in their places."""
    path = str(request.script.absolute())
    module = ModuleType("__main__")
    vars(module).update(__file__=path, __builtins__=builtins)
    before = sys.modules["__main__"], sys.argv, sys.path[0]
    sys.modules["__main__"], sys.argv = module, [str(request.script), *request.arguments]
    sys.path[0] = str(request.script.resolve().parent)
    try:
        yield module
    finally:
        if not request.stays:
            sys.modules["__main__"], sys.argv, sys.path[0] = before


def _watched(overseer: Overseer, tracing: trace, program: Callable[[], int]) -> int:
    tracing.__enter__()
    overseer.start()
    calls.begin_block(overseer)
    try:
        with _warnings_at_their_lines():
            return program()
    finally:
        calls.end_block(overseer)
        tracing.__exit__(None, None, None)
        overseer.stop(UserCall("the end of the script", "", 0, ""))


@contextmanager
def _warnings_at_their_lines() -> Iterator[None]:
    """torch warns of the frame that called it, which is the mode's: tell of the script's own.

    The registry of what was told is the script's, too, so that each line is told once.
    """
    shown, names = warnings.showwarning, vars(calls)

    def show(message: Any, category: Any, filename: str, *rest: Any, **options: Any) -> None:
        frame = site().frame if _torch.is_own_file(filename) else None
        if frame is None:
            shown(message, category, filename, *rest, **options)
            return
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(
            message, category, frame.f_code.co_filename, frame.f_lineno,
            frame.f_globals.get("__name__"), registry,
        )  # fmt: skip

    names["__warningregistry__"] = None  # what is relocated is remembered where it goes
    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = shown
        del names["__warningregistry__"]


def _execute(source: bytes, module: ModuleType) -> int:
    path = str(module.__file__)
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except SystemExit as ended:
        return _exit_code(ended)
    except KeyboardInterrupt as error:
        _tell(error, path)
        return -signal.SIGINT
    except BaseException as error:
        _tell(error, path)
        return 1
    return 0


def _exit_code(ended: SystemExit) -> int:
    if ended.code is None:
        return 0
    if isinstance(ended.code, int):
        return ended.code & 0xFF
    typer.echo(str(ended.code), err=True)
    return 1


def _tell(error: BaseException, path: str) -> None:
    """The traceback as Python prints it, and what autograd meant by it."""
    _flush()
    frames = _from_script(error.__traceback__, path)
    hook = sys.excepthook
    error.__traceback__ = frames
    hook(type(error), error, frames)
    if isinstance(error, Exception):
        verdict = diagnose(error)
        if verdict.code not in ("unknown_error", "refused"):
            typer.echo(f"\n{verdict}", err=True)


def _from_script(frames: TracebackType | None, path: str) -> TracebackType | None:
    """Without the frames that ran the script, and those of watching its calls.

    None if it never began (a SyntaxError).
    """
    chain = []
    while frames is not None:
        chain.append(frames)
        frames = frames.tb_next
    files = [each.tb_frame.f_code.co_filename for each in chain]
    begun = files.index(path) if path in files else len(files)
    kept = [
        each
        for k, each in enumerate(chain)
        if k >= begun and not _torch.is_detour(files[k], files[k + 1 : k + 2])
    ]
    for each, following in pairwise([*kept, None]):
        if each is not None:
            each.tb_next = following
    return kept[0] if kept else None


def _summarize(request: Request, overseer: Overseer) -> None:
    _flush()
    text = draw.to_text(report_of(overseer))
    if request.report is not None:
        request.report.write_text(text + "\n", encoding="utf-8")
    if not request.quiet:
        typer.echo(f"\n{text}", err=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed by the script
            stream.flush()
