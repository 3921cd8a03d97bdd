"""The state of a function: found once, read again before every replay."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from torch import Tensor

from . import callables, containers, networks, objects
from .containers import follow_gradients
from .facts import Fact, Modes, Place, torch_facts
from .objects import hide_computed_module_reads, name_of
from .reading import Owned, Reading
from .trust import Trust
from .walk import Handler, Probe, Pulse, Tables, Walk

_HANDLERS: dict[type[Any], Handler] = {
    **objects.HANDLERS,
    **networks.HANDLERS,
    **containers.HANDLERS,
    **callables.HANDLERS,
}


class Snapshot:
    """One walk, kept in a form that is quick to compare and quick to read again."""

    def __init__(self, func: object, extra: Sequence[object]) -> None:
        self.modes = Modes()
        walk = Walk(Trust(func), _HANDLERS)
        walk.later(_root(func), func)
        for k, item in enumerate(extra):
            walk.later(Place(f"extra[{k}]", ""), item)
        walk.run()
        follow_gradients(walk)
        hide_computed_module_reads(walk)
        self.facts: dict[str, Fact] = {**walk.facts, **torch_facts()}
        self.unseen: tuple[str, ...] = tuple(walk.unseen)
        self.paths = tuple(path for path, _ in walk.tensors)
        self._readers: list[Callable[[], Tensor | None]] = [read for _, read in walk.tensors]
        self._probes: list[Probe] = walk.probes
        self._tables: Tables = walk.tables
        self._empty = walk.empty
        self._pulse: Pulse = walk.pulse
        self._held = (walk.kept, walk.refs)

    def tensors(self) -> list[Tensor] | None:
        """The tensors of now if nothing has changed since the walk; None where it must be done."""
        if not self._pulse.beating or not self.modes.hold():
            return None
        if any(self._empty) or not self._tables.hold():
            return None
        for look, subject, seen in self._probes:
            if look(subject) != seen:
                return None
        found: list[Tensor] = []
        for read in self._readers:
            tensor = read()
            if tensor is None:
                return None
            found.append(tensor)
        return found if self._pulse.beating else None


def _root(func: object) -> Place:
    if type(func) is FunctionType:
        return Place(callables.short_name(func), "")
    return Place("", f"in {name_of(type(func))}")


class State:
    """Everything that ``func`` reads besides its arguments.

    Tensors are found with the path under which their owner holds them, and read from there again
    at every ``read()``. Everything else becomes a fact. What cannot be looked into, or is known to
    answer differently at every call, is named in ``unseen``: then no captured graph may stand for
    ``func``.

    Installed code is trusted to be a function of its arguments, except for code of the package
    that ``func`` itself is from. Attributes of a user's object count only if some code that
    ``func`` can reach names them.
    """

    def __init__(self, func: Callable[..., Any], extra: Sequence[object]) -> None:
        self._func = func
        self._extra = tuple(extra)
        self._snapshot = Snapshot(func, self._extra)
        self._paths: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._remember(self.read())

    @classmethod
    def of(cls, func: Callable[..., Any], *, extra: Sequence[object] = ()) -> State:
        """Find the state of ``func``. ``extra``: further objects that belong to it."""
        return cls(func, extra)

    @property
    def leaves(self) -> list[Owned]:
        """Every tensor, once for each path that it is reached by, read from its owner now."""
        return [Owned(path, tensor) for path, tensor in self.read().tensors.items()]

    @property
    def unseen(self) -> tuple[str, ...]:
        """Why something that ``func`` reads cannot be watched; empty where everything can."""
        return self._snapshot.unseen

    def path_of(self, tensor: Tensor) -> str | None:
        """The first path that held this very tensor at the last ``read()``."""
        reference, path = self._paths.get(id(tensor), (None, ""))
        return path if reference is not None and reference() is tensor else None

    @property
    def snapshot(self) -> Snapshot:
        """The walk that the last ``read()`` rests on."""
        return self._snapshot

    def read(self) -> Reading:
        """The state of this moment."""
        snapshot = self._snapshot
        tensors = snapshot.tensors()
        if tensors is None:
            snapshot = Snapshot(self._func, self._extra)
            tensors = snapshot.tensors()
            if tensors is None:  # another thread writes meanwhile, or a probe is never at rest
                snapshot.paths, tensors = (), []
                snapshot.unseen += ("the state changes while it is read",)
            self._snapshot = snapshot
            reading = Reading.of(dict(zip(snapshot.paths, tensors, strict=True)), snapshot.facts)
            self._remember(reading)
            return reading
        return Reading.of(dict(zip(snapshot.paths, tensors, strict=True)), snapshot.facts)

    def _remember(self, reading: Reading) -> None:
        paths: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        for path, tensor in reading.tensors.items():
            paths.setdefault(id(tensor), (weakref.ref(tensor), path))
        self._paths = paths
