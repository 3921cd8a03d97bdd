"""Which ``nn.Module`` is running, by the name under which the outermost one knows it."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary, ref

from torch import nn

_Names = WeakKeyDictionary[nn.Module, str]


class _Running(threading.local):
    """The modules that have begun and not ended, outermost first: each thread has its own."""

    def __init__(self) -> None:
        self.stack: list[tuple[ref[nn.Module], str]] = []
        self.names: _Names = WeakKeyDictionary()


_running = _Running()


def enter(module: nn.Module) -> None:
    if not _running.stack:
        _running.names = _names_under(module)
    name = _running.names.get(module)
    _running.stack.append((ref(module), type(module).__name__ if name is None else name))


def leave(module: nn.Module) -> None:
    """End ``module``, and whatever began inside it and was cut short by an error."""
    while _running.stack:
        ended, _ = _running.stack.pop()
        if ended() is module:
            return


def forget() -> None:
    _running.stack.clear()


def current() -> str:
    """``layers.0.norm``, the class name of the outermost module, or nothing outside of modules."""
    return _running.stack[-1][1] if _running.stack else ""


def _names_under(root: nn.Module) -> _Names:
    names: _Names = WeakKeyDictionary()
    for name, module in root.named_modules():
        names[module] = name or type(root).__name__
    return names
