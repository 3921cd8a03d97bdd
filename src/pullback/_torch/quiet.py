"""Work of pullback's own, which a trace or a ledger of the user's program need not see.

They watch through a function mode. Inside a capture what it notes would be taken for the user's
program; and it would fill their records with tensors and passes that no user made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Thread(threading.local):
    watched = 0
    quiet = 0


_thread = _Thread()


def begin_watching() -> None:
    """A function mode of pullback's is on in this thread, until ``end_watching``."""
    _thread.watched += 1


def end_watching() -> None:
    _thread.watched -= 1


def is_quiet() -> bool:
    """Whether the mode should let calls of this thread pass unseen."""
    return _thread.quiet > 0


@contextmanager
def unwatched() -> Iterator[None]:
    _thread.quiet += 1
    try:
        yield
    finally:
        _thread.quiet -= 1


def runs_unwatched(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose calls of torch no trace or ledger sees."""

    @wraps(function)
    def quietly(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _thread.watched:
            return function(*args, **kwargs)
        with unwatched():
            return function(*args, **kwargs)

    return quietly
