"""The stages of a long command: their times, and a moving line while one of them lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# A stage that is over sooner shows nothing while it runs: a line that flickers informs nobody.
PATIENCE = 1.0


class Stages:
    """Times stages and prints a line for each; ``seconds`` keeps what they took.

    On a terminal, a stage that lasts shows its name and its time as they pass, on standard error.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.seconds: dict[str, float] = {}
        self._console = Console(stderr=True)
        self._patience = patience

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        start = time.perf_counter()
        with self._moving(doing):
            yield
        self.seconds[name] = time.perf_counter() - start
        typer.echo(f"{name:<9} {seconds_text(self.seconds[name])}")

    @contextmanager
    def _moving(self, doing: str) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        progress = Progress(*columns, console=self._console, transient=True)
        progress.add_task(doing, total=None)
        over = threading.Event()

        def show_if_it_lasts() -> None:
            if not over.wait(self._patience):
                with progress:
                    over.wait()

        watcher = threading.Thread(target=show_if_it_lasts, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def seconds_text(seconds: float) -> str:
    """Write a time with two or three digits and its unit.

    >>> seconds_text(0.00123), seconds_text(0.25), seconds_text(12.34), seconds_text(200.0)
    ('1.2 ms', '250 ms', '12.3 s', '200 s')
    """
    if seconds < 0.995:
        milli = 1000 * seconds
        return f"{milli:.1f} ms" if milli < 9.95 else f"{milli:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.{1 if seconds < 99.95 else 0}f} s"
