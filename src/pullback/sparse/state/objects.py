"""How the walk goes through instances, classes and modules."""

from __future__ import annotations

import enum
import functools
import logging
import types
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from .facts import Place, plain_fact, quoted
from .trust import class_dict_of, is_a, mro_of, why_unforeseeable
from .walk import Handler, Namespace, Walk, itself

_NOTHING: Mapping[str, Any] = types.MappingProxyType({})
# Entries of a class that no running code reads, or that only describe it.
_INERT = frozenset(
    f"__{name}__"
    for name in (
        *("dict", "weakref", "doc", "module", "annotations", "qualname", "slots", "annotate"),
        *("parameters", "orig_bases", "dataclass_params", "dataclass_fields", "match_args"),
        *("abstractmethods", "static_attributes", "firstlineno", "annotations_cache"),
        *("classdictcell", "annotate_func"),
    )
)
_CONSTRUCTION = frozenset(
    f"__{name}__" for name in ("init", "new", "post_init", "init_subclass", "set_name", "del")
)
_C_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    type(class_dict_of(namedtuple("_Pair", "left right"))["left"]),
)
_MADE_OF_CODE = ("torch._ops", "typing", "typing_extensions", "logging", "warnings", "__future__")
_basicsize_of = type.__dict__["__basicsize__"].__get__
_itemsize_of = type.__dict__["__itemsize__"].__get__
_dictoffset_of = type.__dict__["__dictoffset__"].__get__
_weakrefoffset_of = type.__dict__["__weakrefoffset__"].__get__
_WORD = 8
# What is followed when it is found in an installed module.
_DATA: tuple[type[Any], ...] = (
    *(Tensor, np.ndarray, list, tuple, dict, set, type),
    *(FunctionType, types.BuiltinFunctionType),
)


def module_of(cls: type[Any]) -> str:
    name = class_dict_of(cls).get("__module__", "builtins")
    return name if type(name) is str else "builtins"


def name_of(cls: type[Any]) -> str:
    return str(type.__dict__["__qualname__"].__get__(cls)).replace("<locals>.", "")


# Instances.


class _Holder:
    """A class as a key that is compared by identity, whatever its metaclass defines."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Holder) and other.cls is self.cls

    def __hash__(self) -> int:
        return id(self.cls)


@lru_cache(maxsize=4096)
def _dict_getter(holder: _Holder) -> Any:
    for base in mro_of(holder.cls):
        found = class_dict_of(base).get("__dict__")
        if type(found) in (types.GetSetDescriptorType, types.MemberDescriptorType):
            return found
    return None


def entries_of(value: object) -> Mapping[str, Any]:
    """The ``__dict__`` of an instance, past whatever its class says of ``__dict__``."""
    return _reader_of(type(value))(value)


def _reader_of(cls: type[Any]) -> Callable[[Any], Mapping[str, Any]]:
    getter = _dict_getter(_Holder(cls))
    return _no_entries if getter is None else getter.__get__


def _no_entries(_: object) -> Mapping[str, Any]:
    return _NOTHING


def _slots_of(cls: type[Any]) -> dict[str, Any]:
    return {
        f"{name}": member
        for base in reversed(mro_of(cls))
        for name, member in class_dict_of(base).items()
        if type(member) is types.MemberDescriptorType and "__slots__" in class_dict_of(base)
    }


def _hides_state(cls: type[Any]) -> bool:
    """Whether instances have memory besides their ``__dict__`` and slots: the state of C code."""
    known = _basicsize_of(object) + _WORD * len(_slots_of(cls))
    known += _WORD * (_dictoffset_of(cls) > 0) + _WORD * (_weakrefoffset_of(cls) > 0)
    unreadable = _dictoffset_of(cls) and _dict_getter(_Holder(cls)) is None
    return bool(_basicsize_of(cls) > known or _itemsize_of(cls) or unreadable)


def _is_record(cls: type[Any]) -> bool:
    marks = ("__dataclass_fields__", "__attrs_attrs__")
    return any(mark in class_dict_of(base) for base in mro_of(cls) for mark in marks)


def instance_state(walk: Walk, place: Place, value: object) -> None:
    """The attributes of an object: all of them where library code may read them, otherwise those
    that some walked code names."""
    cls = type(value)
    visit_behaviour(walk, cls)
    whole = walk.trust.of_class(cls) or _is_record(cls)

    def counts(name: str) -> bool:
        return whole or walk.is_named(name)

    walk.open(Namespace(value, _reader_of(cls), place.attr, Walk.later, also=counts))
    slots = _slots_of(cls)
    if slots:
        walk.probe(_look_at_slots, (value, tuple(slots.values())))
        for name, member in slots.items():
            if (item := _slot(member, value)) is not _NOTHING:
                walk.later(place.attr(name), item)


def _slot(member: Any, value: object) -> object:
    try:
        return member.__get__(value)
    except AttributeError:
        return _NOTHING


def _look_at_slots(subject: tuple[object, tuple[Any, ...]]) -> object:
    value, members = subject
    return [id(_slot(member, value)) for member in members]


def visit_object(walk: Walk, place: Place, value: object) -> None:
    cls = type(value)
    module, text = module_of(cls), f"`{module_of(cls)}.{name_of(cls)}`"
    walk.fact(place, "object", (module, name_of(cls)), f"an object of the class {name_of(cls)}")
    if walk.trust.of_class(cls):
        if module.startswith(_MADE_OF_CODE):
            walk.fact(place, "object", (module, repr(value)), shortened_repr(value))
            return
        if why_unforeseeable(module) or module.startswith("torch.jit"):
            walk.hide(f"{quoted(str(place))} is a {text}, whose state cannot be watched")
            return
    if _hides_state(cls):
        walk.hide(f"{quoted(str(place))} is a {text}, which cannot be looked into")
        return
    instance_state(walk, place, value)


def shortened_repr(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _visit_enum(walk: Walk, place: Place, value: enum.Enum) -> None:
    entries = entries_of(value)
    name, cls = entries.get("_name_"), type(value)
    walk.fact(place, "enum", (module_of(cls), name_of(cls), str(name)), f"{name_of(cls)}.{name}")
    walk.later(place.attr("value"), entries.get("_value_"))
    visit_behaviour(walk, cls)


# Classes.


@lru_cache(maxsize=2048)
def _names_in_library_class(holder: _Holder) -> frozenset[str]:
    """What library code reads or calls on an instance of a class that derives from its own."""
    names = set()
    for name, value in class_dict_of(holder.cls).items():
        names.add(name)
        for part in _functions_of(value):
            names.update(_code_names(part.__code__))
    return frozenset(names)


def _functions_of(value: object) -> Iterator[FunctionType]:
    if type(value) in (staticmethod, classmethod):
        value = value.__func__  # type: ignore[attr-defined]
    for part in (value.fget, value.fset) if type(value) is property else (value,):
        if type(part) is FunctionType:
            yield part


def _code_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_names(constant)
        elif isinstance(constant, str):
            yield constant


def visit_behaviour(walk: Walk, cls: type[Any]) -> None:
    """What the instances of ``cls`` do: the methods and attributes of its user-written bases."""
    if id(cls) in walk.opened:
        return
    walk.opened.add(id(cls))
    walk.kept.append(cls)
    for base in mro_of(cls):
        if walk.trust.of_class(base):
            if base is not object and module_of(base) != "builtins":
                walk.library_names |= _names_in_library_class(_Holder(base))
        elif base is cls:
            origin = walk.origin(f"in class {name_of(base)}", base)
            walk.fact(Place("bases", origin), "bases", _bases(base), " > ".join(_bases(base)))
            visit = partial(_visit_class_entry, base)
            where = partial(Place, origin=origin)
            counts = partial(_counts_in_class, walk, base)
            walk.open(Namespace(base, class_dict_of, where, visit, also=counts))
        else:
            visit_behaviour(walk, base)
    if type(cls) is not type:
        visit_behaviour(walk, type(cls))


def _bases(cls: type[Any]) -> tuple[str, ...]:
    return tuple(f"{module_of(base)}.{name_of(base)}" for base in mro_of(cls)[:-1])


def _counts_in_class(walk: Walk, cls: type[Any], name: str) -> bool:
    if name in _CONSTRUCTION:
        by_type = "__class__" in walk.mentioned or "type" in walk.mentioned
        return by_type or id(cls) in walk.constructed or walk.by_computed_names
    if name.startswith("__") and name.endswith("__"):
        return name not in _INERT
    return walk.is_named(name)


def _visit_class_entry(cls: type[Any], walk: Walk, place: Place, value: Any) -> None:
    kind = type(value)
    if kind in _C_DESCRIPTORS or kind.__name__ == "_abc_data":
        return
    if kind is classmethod:
        walk.constructed.update(map(id, mro_of(cls)))
    if kind in (classmethod, staticmethod):
        walk.later(place, value.__func__)
    elif kind is property:
        for part, name in ((value.fget, ""), (value.fset, "setter"), (value.fdel, "deleter")):
            if part is not None:
                walk.later(place.attr(name) if name else place, part)
    elif kind is functools.cached_property:
        walk.later(place, value.func)
    else:
        walk.later(place, value)


def _visit_class(walk: Walk, place: Place, cls: type[Any]) -> None:
    """A class that code holds may be instantiated there."""
    module, name = module_of(cls), name_of(cls)
    walk.fact(place, "class", (module, name, _bases(cls)), f"the class {name}")
    if walk.trust.of_class(cls):
        reason = why_unforeseeable(module, name)
        if reason:
            walk.hide(f"{quoted(str(place))} is `{module}.{name}`, which {reason}")
        if name in ("attrgetter", "methodcaller"):
            walk.mentioned.add(name)
        return
    walk.constructed.update(map(id, mro_of(cls)))
    visit_behaviour(walk, cls)


# Modules.


def module_dict(module: ModuleType) -> dict[str, Any]:
    entries: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    return entries


def use_module(walk: Walk, place: Place, module: ModuleType, names: frozenset[str] | None) -> None:
    """What code that names ``names`` reads of a module; None: whatever any walked code names."""
    entries = module_dict(module)
    name = str(entries.get("__name__"))
    walk.fact(place, "module", name, f"the module {name}")
    library = walk.trust.of_module(module)
    reason = why_unforeseeable(name) if library else None
    if reason:
        walk.hide(f"{quoted(str(place))} is the module `{name}`, which {reason}")
        return
    namespace = walk.opened_modules.get(id(entries))
    if namespace is None:
        namespace = _open_module(walk, entries, name, library)
    if names is None or not library:
        namespace.also = walk.mentioned.__contains__
        if not library:
            walk.loose_modules[name] = None
    if names is None or names <= namespace.named:
        return
    namespace.named |= names
    for child in names:
        inner = entries.get(child)
        if not library or inner is None or not is_a(inner, ModuleType):
            continue
        if why_unforeseeable(f"{name}.{child}") is None:
            use_module(walk, Place(f"{name}.{child}", ""), inner, names)


def _open_module(walk: Walk, entries: Any, name: str, library: bool) -> Namespace:
    if library:
        visit: Handler = partial(_visit_library_entry, name)
        namespace = Namespace(entries, itself, Place(name, "").attr, visit)
    else:
        origin = walk.origin(f"global of {name}", entries)
        namespace = Namespace(entries, itself, partial(Place, origin=origin), Walk.later)
    walk.opened_modules[id(entries)] = namespace
    walk.open(namespace)
    return namespace


def globals_namespace(walk: Walk, entries: dict[str, Any]) -> Namespace:
    """The globals of a user's function, which are those of its module."""
    found = walk.opened_modules.get(id(entries))
    return found or _open_module(walk, entries, str(entries.get("__name__")), library=False)


def _visit_library_entry(module: str, walk: Walk, place: Place, value: Any) -> None:
    """Installed code is trusted; data in installed modules is not, nor what replaced a function."""
    reason = why_unforeseeable(module, place.expr.rpartition(".")[2])
    if reason:
        walk.hide(f"`{place.expr}` {reason}")
    elif is_a(value, ModuleType):
        if id(module_dict(value)) not in walk.opened_modules:
            use_module(walk, place, value, None)
    elif plain_fact(value) is not None or any(is_a(value, kind) for kind in _DATA):
        walk.later(place, value)


def hide_computed_module_reads(walk: Walk) -> None:
    if walk.by_computed_names:
        for module in walk.loose_modules:
            walk.hide(f"attributes of the module `{module}` may be read by computed names")


HANDLERS: dict[type[Any], Handler] = {
    object: visit_object,
    enum.Enum: _visit_enum,
    type: _visit_class,
    ModuleType: partial(use_module, names=None),
    logging.Logger: lambda walk, place, value: walk.fact(place, "logger", None, "a logger"),
}
