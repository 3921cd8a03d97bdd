"""One walk over everything that a function reads: facts, tensors, and probes for the next look.

The walk itself knows no kind of object; ``HANDLERS`` of the kinds are handed to it. Objects are
read through the descriptors of ``object`` and of the builtin types, never through ``getattr``,
so no property, ``__getattr__``, ``__eq__`` or ``__hash__`` of a user runs.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ... import _settings
from .facts import Fact, Place, plain_fact, quoted
from .trust import COMPUTED_NAMES, Trust, is_a, mro_of

Handler = Callable[["Walk", Place, Any], None]
Look = Callable[[Any], object]

_MOST_OBJECTS = 200_000
_MISSING = object()


class Probe(NamedTuple):
    """``look(subject)`` is ``seen`` for as long as nothing changed there."""

    look: Look
    subject: Any
    seen: object


class Tables:
    """Probes of what dictionaries hold, of which only those are repeated whose dictionary was
    written since: the version of its content tells, where torch can read it.

    ``fetch(owner)`` is the dictionary of ``owner``, an object of one class all the time.
    """

    def __init__(self) -> None:
        self._owners: list[Any] = []
        self._fetch: list[Callable[[Any], Any]] = []
        self._kinds: list[type[Any]] = []
        self._probes: list[Probe] = []
        self._versions: list[int] = []
        self._plain = True  # they are the dictionaries themselves

    def add(self, fetch: Callable[[Any], Any], owner: Any, probe: Probe) -> None:
        self._owners.append(owner)
        self._fetch.append(fetch)
        self._kinds.append(type(owner))
        self._probes.append(probe)
        self._versions.append(-1)
        self._plain &= fetch is itself and type(owner) is dict

    def hold(self) -> bool:
        version = _settings.dict_version
        if version is None:
            return not self._owners
        # Read before the content is: a write in between shows at the next look.
        if self._plain:
            now = [*map(version, self._owners)]
        elif not all(map(is_, map(type, self._owners), self._kinds)):
            return False
        else:
            now = [version(fetch(owner)) for fetch, owner in zip(self._fetch, self._owners)]  # noqa: B905
        if now == self._versions:
            return True
        for k, (before, after) in enumerate(zip(self._versions, now, strict=True)):
            if before != after:
                look, subject, seen = self._probes[k]
                if look(subject) != seen:
                    return False
        self._versions = now
        return True


class Pulse:
    """Stops when an object dies that the walk has only looked at: its id may be given anew."""

    def __init__(self) -> None:
        self.beating = True

    def stop(self, _: object) -> None:
        self.beating = False


@dataclass
class Namespace:
    """A mapping of which only the entries count that some walked code can name.

    ``fetch(subject)`` is the mapping and ``place(name)`` where an entry stands. Names in ``named``
    count; ``also(name)`` says which others do, and then new keys are watched for, too.
    """

    subject: Any
    fetch: Callable[[Any], Mapping[str, Any]]
    place: Callable[[str], Place]
    visit: Handler
    named: set[str] = field(default_factory=set)
    also: Callable[[str], bool] | None = None
    done: dict[str, None] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        return name in self.named or (self.also is not None and self.also(name))


class Walk:
    def __init__(self, trust: Trust, handlers: Mapping[type[Any], Handler]) -> None:
        self.trust = trust
        self.pulse = Pulse()
        self.facts: dict[str, Fact] = {}
        self.tensors: list[tuple[str, Callable[[], Tensor | None]]] = []
        self.paths: set[str] = set()
        self.leaves: list[tuple[Place, weakref.ref[Tensor]]] = []
        self.probes: list[Probe] = []
        self.tables = Tables()
        self.empty: list[Any] = []
        self.unseen: dict[str, None] = {}
        self.kept: list[object] = []
        self.mentioned: set[str] = set()
        self.library_names: set[str] = set()
        self.constructed: set[int] = set()
        self.opened: set[int] = set()
        self.opened_modules: dict[int, Namespace] = {}
        self.loose_modules: dict[str, None] = {}
        self._handlers = {id(kind): handler for kind, handler in handlers.items()}
        self.refs: list[weakref.ref[Any]] = []
        self._queue: deque[tuple[Place, object]] = deque()
        self._namespaces: list[Namespace] = []
        self._origins: dict[str, list[object]] = {}
        self._claimed: dict[int, str] = {}
        self._alive: list[object] = []

    @property
    def by_computed_names(self) -> bool:
        return not COMPUTED_NAMES.isdisjoint(self.mentioned)

    def hold(self, value: object) -> None:
        """Make sure that the id of ``value`` stays its own, without keeping tensors alive."""
        if is_a(value, Tensor) or is_a(value, np.ndarray):
            self.refs.append(weakref.ref(value, self.pulse.stop))
        else:
            self.kept.append(value)

    def later(self, place: Place, value: object) -> None:
        self.hold(value)
        self._alive.append(value)
        self._queue.append((place, value))

    def claim(self, place: Place, value: object) -> None:
        """``value`` stands at ``place``; wherever else it turns up, it is named as the same."""
        self._claimed[id(value)] = str(place)

    def is_named(self, name: str) -> bool:
        return name in self.mentioned or name in self.library_names or self.by_computed_names

    def fact(self, place: Place, kind: str, token: Any, text: str) -> None:
        self.facts[str(place)] = Fact(kind, token, text)

    def hide(self, reason: str) -> None:
        self.unseen[reason] = None

    def probe(self, look: Look, subject: Any) -> None:
        self.probes.append(Probe(look, subject, look(subject)))

    def probe_table(
        self, look: Look, subject: Any, fetch: Callable[[Any], Any], owner: Any
    ) -> None:
        """``probe``, where ``look`` depends on the class of ``owner`` and its dictionary alone."""
        if _settings.dict_version is None or not is_a(fetch(owner), dict):
            self.probe(look, subject)
        else:
            self.tables.add(fetch, owner, Probe(look, subject, look(subject)))

    def stays_empty(self, value: Any) -> None:
        """``value``, a dictionary or a set, is empty, which is watched."""
        if any(type(value) is kind for kind in (dict, OrderedDict, set)):
            self.empty.append(value)
        else:
            self.probe(dict.__len__ if is_a(value, dict) else set.__len__, value)

    def origin(self, text: str, owner: object) -> str:
        """``text``, numbered where another object has been given the same."""
        owners = self._origins.setdefault(text, [])
        for number, known in enumerate(owners, 1):
            if known is owner:
                return text if number == 1 else f"{text} #{number}"
        owners.append(owner)
        return text if len(owners) == 1 else f"{text} #{len(owners)}"

    def open(self, namespace: Namespace) -> None:
        """Walk the wanted entries, those included that only code walked later names."""
        self._namespaces.append(namespace)

    def run(self) -> None:
        """Until no object waits, and no namespace holds an entry that newly walked code names."""
        while self._queue:
            while self._queue:
                if len(self._alive) >= _MOST_OBJECTS:
                    self.hide(f"too much state to watch: more than {_MOST_OBJECTS:,} objects")
                    self._queue.clear()
                    break
                self._visit(*self._queue.popleft())
            else:
                for namespace in list(self._namespaces):
                    self._enter(namespace)
        for namespace in self._namespaces:
            self._watch(namespace)
        self._alive.clear()

    def _enter(self, namespace: Namespace) -> None:
        entries = namespace.fetch(namespace.subject)
        for name in list(entries):
            if type(name) is str and name not in namespace.done and namespace.wants(name):
                namespace.done[name] = None
                value = entries.get(name, _MISSING)
                self.hold(value)
                namespace.visit(self, namespace.place(name), value)

    def _watch(self, namespace: Namespace) -> None:
        fetch, owner = namespace.fetch, namespace.subject
        entries = fetch(owner)
        names = tuple(namespace.done.keys() | namespace.named)
        if namespace.also is None:
            self.probe_table(_look_in, (entries, names), itself, entries)
            return
        self.kept.append(list(entries))
        if len(names) == len(entries) and all(name in entries for name in names):
            self.probe_table(_look_in_whole, (fetch, owner, type(owner)), fetch, owner)
        else:
            self.probe_table(_look_in_open, (fetch, owner, type(owner), names), fetch, owner)

    def _visit(self, place: Place, value: object) -> None:
        fact = plain_fact(value)
        if fact is not None:
            self.facts[str(place)] = fact
            return
        if not is_a(value, Tensor):
            first = self._claimed.get(id(value))
            if first == str(place):
                return
            if first is not None:
                self.fact(place, "same", first, f"the same object as {quoted(first)}")
                return
            self.claim(place, value)
        known = map(id, mro_of(type(value)))
        self._handlers[next(base for base in known if base in self._handlers)](self, place, value)


def itself(value: Any) -> Any:
    return value


def _look_in(subject: tuple[Mapping[str, Any], tuple[str, ...]]) -> object:
    entries, names = subject
    return [*map(id, map(entries.get, names, repeat(_MISSING)))]


def _look_in_whole(subject: tuple[Any, Any, type[Any]]) -> object:
    fetch, owner, kind = subject
    if type(owner) is not kind:
        return None
    entries = fetch(owner)
    return [*map(id, entries), *map(id, entries.values())]


def _look_in_open(subject: tuple[Any, Any, type[Any], tuple[str, ...]]) -> object:
    fetch, owner, kind, names = subject
    if type(owner) is not kind:
        return None
    entries = fetch(owner)
    return [*map(id, entries), *map(id, map(entries.get, names, repeat(_MISSING)))]
