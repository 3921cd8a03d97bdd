"""How the walk goes through builtin containers, tensors and arrays."""

from __future__ import annotations

import gc
import types
import weakref
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .facts import Fact, Place, array_fact, dtype_fact, plain_fact, quoted, sequence_fact
from .objects import instance_state, name_of
from .trust import class_dict_of, is_a, mro_of
from .walk import Handler, Walk, itself

Items = Callable[[Any], Iterable[object]]


def _sequence(base: type[Any], items: Items) -> Handler:
    def look(value: Any) -> object:
        return [*map(id, items(value))]

    def visit(walk: Walk, place: Place, value: Any) -> None:
        values, kind = list(items(value)), name_of(type(value))
        if base is not tuple:
            walk.probe(look, value)
        whole = sequence_fact(kind, values)
        if whole is not None:
            walk.kept.append(tuple(values))
            walk.facts[str(place)] = whole
        else:
            names = _field_names(value) if base is tuple else None
            walk.fact(place, kind, len(values), f"a {kind} of {len(values)}")
            for k, item in enumerate(values):
                walk.later(place.attr(names[k]) if names else place.item(str(k)), item)
        if type(value) is not base:
            instance_state(walk, place, value)

    return visit


def _field_names(value: Any) -> tuple[str, ...] | None:
    """The names of a named tuple's entries."""
    for base in mro_of(type(value)):
        names = class_dict_of(base).get("_fields")
        if type(names) is tuple and len(names) == tuple.__len__(value):
            return names if all(type(name) is str for name in names) else None
    return None


def _visit_set(walk: Walk, place: Place, value: Any) -> None:
    base: Any = set if is_a(value, set) else frozenset
    values = list(base.__iter__(value))
    if base is set and not values:
        walk.stays_empty(value)
    else:
        walk.probe(_look_in_set, (base, value))
    facts = [plain_fact(item) for item in values]
    if all(fact is not None for fact in facts):
        walk.kept.append(values)
        shown = ", ".join(sorted(fact.text for fact in facts[:20] if fact is not None))
        walk.fact(place, base.__name__, frozenset(facts), f"a set of {len(values)}: {shown}")
    else:
        walk.fact(place, base.__name__, len(values), f"a set of {len(values)}")
        for k, item in enumerate(values):
            walk.later(place.item(f"element {k}"), item)
    if type(value) is not base:
        instance_state(walk, place, value)


def _look_in_set(subject: tuple[Any, Any]) -> object:
    base, value = subject
    return [*map(id, base.__iter__(value))]


def look_in_dict(value: dict[Any, Any]) -> object:
    return [*map(id, dict.keys(value)), *map(id, dict.values(value))]


def _look_in_ordered(value: OrderedDict[Any, Any]) -> object:
    return [*map(id, OrderedDict.__iter__(value)), *map(id, dict.values(value))]


def visit_entries(
    walk: Walk, place: Place, value: dict[Any, Any], entry: Callable[[Any], Place] | None = None
) -> None:
    """The keys of a dictionary as a fact, its values as places of their own."""
    if not dict.__len__(value):
        walk.stays_empty(value)
        walk.fact(place, name_of(type(value)), (), f"an empty {name_of(type(value))}")
        return
    ordered = is_a(value, OrderedDict)
    if ordered:  # its order may change without a write to the dictionary
        walk.probe(_look_in_ordered, value)
    else:
        walk.probe_table(look_in_dict, value, itself, value)
    keys = []
    order = list(OrderedDict.__iter__(value)) if ordered else list(dict.keys(value))
    walk.kept.append(order)
    for k, key in enumerate(order):
        fact = plain_fact(key)
        if fact is None:
            walk.later(place.item(f"key {k}"), key)
            fact = Fact("object", type(key).__qualname__, type(key).__qualname__)
        keys.append(fact)
    shown = ", ".join(key.text for key in keys[:8]) + (", ..." if len(keys) > 8 else "")
    walk.fact(
        place, name_of(type(value)), tuple(keys), f"a {name_of(type(value))} with keys {shown}"
    )
    text_of = {id(key): fact.text for key, fact in zip(order, keys, strict=True)}
    for key, item in dict.items(value):
        where = entry(key) if entry and type(key) is str else place.item(text_of[id(key)])
        walk.later(where, item)


_factory_of = defaultdict.__dict__["default_factory"].__get__


def _look_at_factory(value: Any) -> object:
    return id(_factory_of(value))


def _visit_dict(walk: Walk, place: Place, value: Any) -> None:
    visit_entries(walk, place, value)
    if is_a(value, defaultdict):
        walk.probe(_look_at_factory, value)
        walk.later(place.attr("default_factory"), _factory_of(value))
    if not any(type(value) is kind for kind in (dict, OrderedDict, defaultdict)):
        instance_state(walk, place, value)


def _visit_slice(walk: Walk, place: Place, value: slice) -> None:
    walk.fact(place, "slice", None, "a slice")
    for name in ("start", "stop", "step"):
        walk.later(place.attr(name), getattr(value, name))


def _visit_proxy(walk: Walk, place: Place, value: Any) -> None:
    walk.fact(place, "mappingproxy", None, "a read-only view of a dict")
    for inner in gc.get_referents(value):
        walk.later(place, inner) if type(inner) is not dict else visit_entries(walk, place, inner)


def _visit_reference(walk: Walk, place: Place, value: Any) -> None:
    referent = weakref.ref.__call__(value)
    walk.fact(place, "weak reference", referent is None, "a weak reference")
    if referent is not None:
        walk.later(Place(f"{place.expr}()", place.origin), referent)


def _visit_array(walk: Walk, place: Place, value: Any) -> None:
    if value.dtype.hasobject:
        walk.hide(f"{quoted(str(place))} is an array of Python objects")
        return
    walk.facts[str(place)] = array_fact(value)
    walk.probe(_content, weakref.ref(value, walk.pulse.stop))
    if type(value) is not np.ndarray:
        instance_state(walk, place, value)


def _content(reference: weakref.ref[Any]) -> object:
    value = reference()
    return None if value is None else array_fact(value)


def _visit_bytes(walk: Walk, place: Place, value: Any) -> None:
    walk.fact(place, type(value).__name__, bytes(value), f"a {type(value).__name__}")
    walk.probe(bytes, value)


def _visit_tensor(walk: Walk, place: Place, value: Tensor) -> None:
    path = str(place)
    if not _answers_foritself(type(value)):
        walk.hide(f"{quoted(path)} is a {type(value).__qualname__}, which overrides torch's own")
        return
    if path in walk.paths:
        return
    walk.paths.add(path)
    reference = weakref.ref(value, walk.pulse.stop)
    walk.tensors.append((path, reference))
    if value.__dict__:
        instance_state(walk, place, value)
    if type(value).__name__ in ("Tensor", "Parameter") and value.is_leaf:
        walk.leaves.append((place, reference))


def follow_gradients(walk: Walk) -> None:
    """The ``.grad`` of every leaf is state as well, once some walked code names ``grad``."""
    if "grad" not in walk.mentioned:
        return
    for place, reference in walk.leaves:
        walk.probe(_look_at_grad, reference)
        gradient = _grad_of(reference)
        path = str(place.attr("grad"))
        if gradient is None:
            walk.fact(place.attr("grad"), "NoneType", "None", "None")
        elif path not in walk.paths:
            walk.hold(gradient)
            walk.paths.add(path)
            # Read from its owner: the wrapper of a gradient may come and go.
            walk.tensors.append((path, partial(_grad_of, reference)))


def _grad_of(reference: weakref.ref[Tensor]) -> Tensor | None:
    tensor = reference()
    return None if tensor is None else tensor.grad


def _look_at_grad(reference: weakref.ref[Tensor]) -> object:
    return id(_grad_of(reference))


def _answers_foritself(kind: type[Any]) -> bool:
    """Whether reading ``shape`` or ``dtype`` of such a tensor runs no code of a user's."""
    for base in mro_of(kind):
        if base is Tensor:
            return True
        entries = class_dict_of(base)
        module = str(entries.get("__module__"))
        ours = module == "torch" or module.startswith("torch.")
        if not ours and not {"__torch_function__", "__torch_dispatch__"}.isdisjoint(entries):
            return False
    return True


def _visit_generator(walk: Walk, place: Place, value: object) -> None:
    walk.hide(f"{quoted(str(place))} is a torch.Generator: what it draws is not known beforehand")


def _visit_scalar(exact: Callable[[Any], object]) -> Handler:
    """A user's subclass of a number or of a string."""

    def visit(walk: Walk, place: Place, value: Any) -> None:
        fact = plain_fact(exact(value))
        assert fact is not None
        walk.facts[str(place)] = fact._replace(kind=f"{fact.kind} {type(value).__qualname__}")
        instance_state(walk, place, value)

    return visit


def _visit_dtype(walk: Walk, place: Place, value: Any) -> None:
    walk.facts[str(place)] = dtype_fact(value)


HANDLERS: dict[type[Any], Handler] = {
    list: _sequence(list, list.__iter__),
    tuple: _sequence(tuple, tuple.__iter__),
    deque: _sequence(deque, deque.__iter__),
    dict: _visit_dict,
    set: _visit_set,
    frozenset: _visit_set,
    int: _visit_scalar(int.__int__),
    float: _visit_scalar(float.__float__),
    complex: _visit_scalar(complex.__complex__),
    str: _visit_scalar(str.__str__),
    bytes: _visit_scalar(bytes.__bytes__),
    np.dtype: _visit_dtype,
    slice: _visit_slice,
    types.MappingProxyType: _visit_proxy,
    weakref.ref: _visit_reference,
    np.ndarray: _visit_array,
    bytearray: _visit_bytes,
    array: _visit_bytes,
    Tensor: _visit_tensor,
    torch.Generator: _visit_generator,
}
