"""How the walk goes through functions, methods and what wraps them."""

from __future__ import annotations

import builtins
import functools
import importlib.util
import operator
import sys
import types
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from .code import CodeReads, reads_of
from .containers import visit_entries
from .facts import Place, quoted
from .objects import globals_namespace, module_dict, name_of, use_module
from .trust import COMPUTED_NAMES, READING_METHODS, class_dict_of, is_a, why_unforeseeable
from .walk import Handler, Walk

_EMPTY = object()


def short_name(function: Any) -> str:
    return str(function.__qualname__).replace("<locals>.", "")


def _look_at_function(function: FunctionType) -> object:
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, function.__dict__)
    return [*map(id, parts)]


def _look_at_cell(cell: CellType) -> object:
    return id(_content(cell))


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _visit_function(walk: Walk, place: Place, function: FunctionType) -> None:
    code, name = function.__code__, short_name(function)
    walk.kept.append((code, function.__defaults__, function.__kwdefaults__, function.__dict__))
    walk.probe(_look_at_function, function)
    where = f"{code.co_filename}:{code.co_firstlineno}"
    walk.fact(place, "function", code, f"the function {name} of {where}")
    library = walk.trust.of_code(code)
    if library:
        reason = why_unforeseeable(str(function.__module__), function.__name__)
        if reason:
            walk.hide(f"{quoted(str(place))} {reason}")
        if _is_of_its_module(walk, function):
            return
    reads = CodeReads((), frozenset(), (), ()) if library else reads_of(code)
    walk.mentioned |= reads.attributes
    _visit_closure(walk, function, reads)
    if not library:
        _visit_globals(walk, function, reads)
        _visit_defaults(walk, function)
        _visit_imports(walk, function, reads)
        _name_effects(walk, name, reads)
    if function.__dict__:
        visit_entries(walk, place.attr("__dict__"), function.__dict__, place.attr)
    else:
        walk.stays_empty(function.__dict__)


def _is_of_its_module(walk: Walk, function: FunctionType) -> bool:
    """Whether an installed function stands in its module under its name, as its author left it.

    Others were made for the program that runs: ``torch.func.vmap(f)`` closes over ``f``, and what
    ``contextmanager`` returns bears the name and the module of the user's function.
    """
    module = sys.modules.get(str(function.__module__))
    if not is_a(module, ModuleType) or not walk.trust.of_module(module):  # type: ignore[arg-type]
        return False
    found: Any = module
    for part in str(function.__qualname__).split("."):
        if not is_a(found, ModuleType) and not is_a(found, type):
            return False
        entries = class_dict_of(found) if is_a(found, type) else module_dict(found)
        found = entries.get(part)
    return found is function


def _value(walk: Walk, place: Place, value: object, reads: CodeReads) -> None:
    if is_a(value, ModuleType):
        walk.hold(value)
        use_module(walk, place, value, reads.attributes)  # type: ignore[arg-type]
    else:
        walk.later(place, value)


def _visit_closure(walk: Walk, function: FunctionType, reads: CodeReads) -> None:
    origin = walk.origin(f"closure of {short_name(function)}", function)
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        if name == "__class__":
            continue  # for super(): the class of the instance, which is walked with it
        place, value = Place(name, origin), _content(cell)
        walk.probe(_look_at_cell, cell)
        if value is _EMPTY:
            walk.fact(place, "empty", None, "not assigned yet")
        else:
            _value(walk, place, value, reads)


def _visit_globals(walk: Walk, function: FunctionType, reads: CodeReads) -> None:
    namespace = globals_namespace(walk, function.__globals__)
    for name in reads.globals:
        namespace.named.add(name)
        if name in COMPUTED_NAMES or name == "type":
            walk.mentioned.add(name)
        place = namespace.place(name)
        if name in function.__globals__:
            value = function.__globals__[name]
            if is_a(value, ModuleType):
                namespace.done[name] = None
                _value(walk, place, value, reads)
        elif name in builtins.__dict__:
            reason = why_unforeseeable("builtins", name)
            if reason:
                walk.hide(f"`{short_name(function)}` uses `{name}`, which {reason}")
        else:
            walk.fact(place, "missing", None, "not defined")


def _visit_defaults(walk: Walk, function: FunctionType) -> None:
    origin = walk.origin(f"default of {short_name(function)}", function)
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    for name, value in zip(names, defaults, strict=True):
        walk.later(Place(name, origin), value)
    if function.__kwdefaults__:
        visit_entries(
            walk, Place("", origin), function.__kwdefaults__, lambda name: Place(name, origin)
        )


def _visit_imports(walk: Walk, function: FunctionType, reads: CodeReads) -> None:
    package = str(function.__globals__.get("__package__") or "")
    for name, level in reads.imports:
        full = importlib.util.resolve_name("." * level + name, package) if level else name
        module = sys.modules.get(full)
        if not is_a(module, ModuleType):
            walk.hide(f"`{short_name(function)}` imports `{full}` when it runs")
            continue
        top = sys.modules[full.partition(".")[0]]
        for found in (module, top):
            place = Place(str(found.__name__), f"imported by {short_name(function)}")  # type: ignore[union-attr]
            _value(walk, place, found, reads)


def _name_effects(walk: Walk, name: str, reads: CodeReads) -> None:
    for written in reads.written:
        walk.hide(f"`{name}` assigns to `{written}`, which lives outside of it")
    for method in sorted(READING_METHODS & reads.attributes):
        walk.hide(f"`{name}` names `.{method}`, which reads files")


def _visit_method(walk: Walk, place: Place, method: MethodType) -> None:
    owner = method.__self__
    cls = owner if is_a(owner, type) else type(owner)
    walk.fact(place, "method", None, f"a method of {name_of(cls)}")  # type: ignore[arg-type]
    walk.later(Place(short_name(method.__func__), "method"), method.__func__)
    walk.later(Place("self", walk.origin(f"bound to {short_name(method.__func__)}", method)), owner)


def _visit_builtin(walk: Walk, place: Place, function: Any) -> None:
    owner, name = function.__self__, function.__name__
    module = getattr(function, "__module__", None)
    walk.fact(place, "builtin", (module, function.__qualname__), f"the function {name}")
    reason = why_unforeseeable(str(module or ""), name)
    if name in COMPUTED_NAMES:
        walk.mentioned.add(name)
    if reason:
        walk.hide(f"{quoted(str(place))} is `{name}`, which {reason}")
    elif owner is not None and not is_a(owner, ModuleType):
        walk.later(place.attr("__self__"), owner)


def _visit_partial(walk: Walk, place: Place, value: Any) -> None:
    parts = (value.func, value.args, value.keywords)
    walk.fact(place, "partial", len(value.args), f"a partial with {len(value.args)} arguments")
    walk.kept.append(parts)
    walk.probe(_look_at_partial, value)
    walk.later(place.attr("func"), value.func)
    for k, item in enumerate(value.args):
        walk.later(place.attr("args").item(str(k)), item)
    visit_entries(walk, place.attr("keywords"), value.keywords)


def _look_at_partial(value: Any) -> object:
    return [id(value.func), id(value.args), id(value.keywords)]


def _visit_getter(walk: Walk, place: Place, value: Any) -> None:
    """An attrgetter, itemgetter or methodcaller: its arguments are what ``__reduce__`` keeps."""
    parts = value.__reduce__()[1]
    walk.fact(place, "getter", type(value).__name__, f"an {type(value).__name__}")
    if type(value) is not operator.itemgetter:
        walk.mentioned.update(n for part in parts if type(part) is str for n in part.split("."))
    for k, part in enumerate(parts):
        walk.later(place.attr("args").item(str(k)), part)


def _visit_cache(walk: Walk, place: Place, value: Any) -> None:
    walk.hide(f"{quoted(str(place))} keeps the results of earlier calls (functools.lru_cache)")


def _visit_cell(walk: Walk, place: Place, cell: CellType) -> None:
    walk.fact(place, "cell", None, "a cell")
    walk.probe(_look_at_cell, cell)
    if (value := _content(cell)) is not _EMPTY:
        walk.later(place.attr("cell_contents"), value)


def _visit_trusted(walk: Walk, place: Place, value: Any) -> None:
    walk.fact(place, "operation", value.__name__, f"the operation {value.__name__}")


def _visit_wrapped(walk: Walk, place: Place, value: Any) -> None:
    walk.fact(place, type(value).__name__, None, f"a {type(value).__name__}")
    walk.later(place.attr("__func__"), value.__func__)


HANDLERS: dict[type[Any], Handler] = {
    FunctionType: _visit_function,
    MethodType: _visit_method,
    BuiltinFunctionType: _visit_builtin,
    types.MethodWrapperType: _visit_builtin,
    types.WrapperDescriptorType: _visit_trusted,
    types.MethodDescriptorType: _visit_trusted,
    types.ClassMethodDescriptorType: _visit_trusted,
    np.ufunc: _visit_trusted,
    CellType: _visit_cell,
    staticmethod: _visit_wrapped,
    classmethod: _visit_wrapped,
    functools.partial: _visit_partial,
    operator.attrgetter: _visit_getter,
    operator.itemgetter: _visit_getter,
    operator.methodcaller: _visit_getter,
    functools._lru_cache_wrapper: _visit_cache,
}
