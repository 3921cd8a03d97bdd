"""Every way to write to a dictionary is seen, whether the state compares versions or contents."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pullback import _settings
from pullback.sparse.state import State
from pullback.sparse.state.walk import Probe


def swapped(table: dict[str, Any]) -> None:
    table["a"] = table.pop("a")


def replaced_in_a_loop(table: dict[str, Any]) -> None:
    for k in range(100):
        table["a"] = float(k)


WRITES: dict[str, Callable[[dict[str, Any]], object]] = {
    "set": lambda table: table.__setitem__("a", 5.0),
    "new": lambda table: table.__setitem__("new", 5.0),
    "delete": lambda table: table.__delitem__("a"),
    "pop": lambda table: table.pop("a"),
    "popitem": lambda table: table.popitem(),
    "clear": lambda table: table.clear(),
    "update": lambda table: table.update(b=5.0),
    "merge": lambda table: table.__ior__({"b": 5.0}),
    "setdefault": lambda table: table.setdefault("new", 5.0),
    "order": swapped,
    "loop": replaced_in_a_loop,
}


@dataclasses.dataclass
class Record:
    a: float = 1.0
    b: float = 2.0


@pytest.fixture(params=[True, False], ids=["versions", "contents"])
def versions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(_settings, "dict_version", None)
    elif _settings.dict_version is None:
        pytest.skip("this Python keeps no versions of dictionaries")


def sees(func: Callable[..., Any], act: Callable[[], object]) -> bool:
    state = State.of(func)
    before = state.read()
    for _ in range(3):
        assert state.read().changes(before) == ()
    act()
    return state.read().changes(before) != ()


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, collections.defaultdict])
def test_writes_to_a_dictionary(write: Callable[[Any], object], kind: type[dict[str, Any]]) -> None:
    table = kind()
    table.update(a=1.0, b=2.0)

    def func(x: Tensor) -> Tensor:
        found: Tensor = x * sum(table.values())
        return found

    assert not sees(func, lambda: None)
    assert sees(func, lambda: write(table))


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("write", [w for n, w in WRITES.items() if n != "order"])
def test_writes_to_the_attributes_of_an_object(write: Callable[[Any], object]) -> None:
    record = Record()

    def func(x: Tensor) -> Tensor:
        return x * record.a + record.b

    assert sees(func, lambda: write(record.__dict__))


def by_name(record: Any) -> None:
    for k in range(100):
        record.a = float(k)


class Other(Record):
    pass


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("act", [
    by_name,
    lambda record: delattr(record, "a"),
    lambda record: setattr(record, "new", 1.0),
    lambda record: setattr(record, "__dict__", {"a": 2.0, "b": 2.0}),
    lambda record: setattr(record, "__class__", Other),
    lambda record: object.__setattr__(record, "a", 3.0),
])  # fmt: skip
def test_attributes_that_are_set(act: Callable[[Any], object]) -> None:
    record = Record()

    def func(x: Tensor) -> Tensor:
        return x * record.a + record.b

    assert sees(func, lambda: act(record))


@pytest.mark.usefixtures("versions")
def test_an_equal_dictionary_in_place_of_another_is_no_change() -> None:
    record = Record()

    def func(x: Tensor) -> Tensor:
        return x * record.a + record.b

    assert not sees(func, lambda: setattr(record, "__dict__", dict(record.__dict__)))


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("empty", [
    dict, set, collections.OrderedDict, type("Mine", (dict,), {}), type("Own", (set,), {}),
])  # fmt: skip
def test_what_was_empty_and_is_filled(empty: Callable[[], Any]) -> None:
    held = empty()

    def func(x: Tensor) -> Tensor:
        return x * len(held)

    fill = held.add if isinstance(held, set) else lambda k: held.__setitem__(k, 1.0)
    assert sees(func, lambda: fill("a"))


@pytest.mark.usefixtures("versions")
def test_the_order_of_an_ordered_dictionary() -> None:
    table = collections.OrderedDict(a=1.0, b=2.0)

    def func(x: Tensor) -> Tensor:
        return x * next(iter(table.values()))

    assert sees(func, lambda: table.move_to_end("a"))


def test_a_dictionary_that_is_not_written_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    if _settings.dict_version is None:
        pytest.skip("this Python keeps no versions of dictionaries")
    net = torch.nn.Linear(3, 4)
    state = State.of(lambda x: net(x))
    state.read()
    looks: list[int] = []
    tables = state.snapshot._tables
    assert tables._probes

    def noted(probe: Probe) -> Probe:
        def look(subject: Any) -> object:
            looks.append(1)
            return probe.look(subject)

        return probe._replace(look=look)

    tables._probes = [noted(probe) for probe in tables._probes]
    state.read()
    assert looks == []
    net.scale = 2.0  # type: ignore[assignment]
    state.read()
    assert looks == [1]
