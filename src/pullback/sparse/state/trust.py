"""Which code is trusted to be a function of its arguments, and which is known not to be."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ... import _torch

_STANDARD = "<standard library>"
_STANDARD_PATHS = tuple(
    os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ("stdlib", "platstdlib")
)
_PULLBACK = str(Path(__file__).parents[2]) + os.sep
_NEVER_HOME = frozenset({"torch", "numpy", "scipy", "torchgen", "functorch", _STANDARD})

mro_of = type.__dict__["__mro__"].__get__
class_dict_of = type.__dict__["__dict__"].__get__


def is_a(value: object, kind: type[Any]) -> bool:
    """``isinstance`` without the value's ``__class__`` and without its metaclass's ``__eq__``."""
    return type.__subclasscheck__(kind, type(value))


@lru_cache(maxsize=8192)
def installed_package(filename: str) -> str | None:
    """The installed package that ``filename`` belongs to; None for a user's own file."""
    if filename.startswith(_PULLBACK):
        return "pullback" if _torch.is_library_file(filename) else None
    if filename.startswith("<frozen"):
        return _STANDARD
    if filename.startswith("<"):
        return None
    parts = Path(filename).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts[:-1]:
            top = parts[len(parts) - parts[::-1].index(folder)]
            return top.partition(".")[0]
    return _STANDARD if os.path.realpath(filename).startswith(_STANDARD_PATHS) else None


def _file_of(module: str) -> str | None:
    """The file of an imported module; "" where it has none; None where nothing is imported."""
    if module == "__main__":
        return ""
    if module.partition(".")[0] in sys.stdlib_module_names:
        return "<frozen"
    found = sys.modules.get(module)
    if not isinstance(found, ModuleType):
        return None
    file = ModuleType.__getattribute__(found, "__dict__").get("__file__")
    return file if isinstance(file, str) else ""


class Trust:
    """Installed code is trusted, except for the package that the watched function lives in."""

    def __init__(self, func: object) -> None:
        package = _home_of(func)
        self._home = frozenset() if package in _NEVER_HOME else frozenset({package})

    def _is_library(self, filename: str) -> bool:
        package = installed_package(filename)
        return package is not None and package not in self._home

    def of_code(self, code: CodeType) -> bool:
        return self._is_library(code.co_filename)

    def of_class(self, cls: type[Any]) -> bool:
        module = class_dict_of(cls).get("__module__", "builtins")
        return self._is_library(_file_of(str(module)) or "")

    def of_module(self, module: ModuleType) -> bool:
        entries = ModuleType.__getattribute__(module, "__dict__")
        name, file = entries.get("__name__"), entries.get("__file__")
        if isinstance(file, str):
            return self._is_library(file)
        # Built-in modules have no file; neither have modules that a program makes itself.
        return name != "__main__" and str(name).partition(".")[0] in sys.stdlib_module_names


def _home_of(func: object) -> str | None:
    for _ in range(20):
        if type(func) is FunctionType:
            inner = func.__dict__.get("__wrapped__")
            if inner is None:
                return installed_package(func.__code__.co_filename)
            func = inner
        elif type(func) is MethodType:
            func = func.__func__
        elif type(func) is functools.partial:
            func = func.func
        else:
            cls = func if is_a(func, type) else type(func)
            module = str(class_dict_of(cls).get("__module__", "builtins"))
            return installed_package(_file_of(module) or "")
    return None


_UNFORESEEABLE = {
    "random": "draws random numbers",
    "secrets": "draws random numbers",
    "uuid": "draws random numbers",
    "numpy.random": "draws random numbers",
    "time": "reads the clock",
    "datetime": "reads the clock",
    "os": "reads the environment or the file system",
    "posix": "reads the environment or the file system",
    "pathlib": "reads files",
    "io": "reads files",
    "_io": "reads files",
    "tempfile": "reads files",
    "glob": "reads files",
    "shutil": "reads files",
    "genericpath": "reads files",
    "sqlite3": "reads files",
    "subprocess": "runs other programs",
    "multiprocessing": "runs other programs",
    "socket": "reads the network",
    "_socket": "reads the network",
    "ssl": "reads the network",
    "select": "reads the network",
    "urllib": "reads the network",
    "http": "reads the network",
    "requests": "reads the network",
    "httpx": "reads the network",
    "contextvars": "reads the context of its thread",
    "_contextvars": "reads the context of its thread",
    "asyncio": "depends on what else runs",
    "ctypes": "reads raw memory",
    "_ctypes": "reads raw memory",
    "gc": "looks at other objects",
    "importlib": "imports by a computed name",
}
_UNFORESEEABLE_NAMES = {
    "builtins": {
        "open": "reads files",
        "input": "reads what a person types",
        "breakpoint": "reads what a person types",
        "eval": "runs code that it makes itself",
        "exec": "runs code that it makes itself",
        "compile": "runs code that it makes itself",
        "globals": "reads globals by computed names",
        "__import__": "imports by a computed name",
    },
    "sys": dict.fromkeys(
        ("argv", "stdin", "modules", "_getframe", "getrefcount"), "reads the interpreter's state"
    ),
    "inspect": dict.fromkeys(("stack", "currentframe"), "reads the interpreter's state"),
    "torch": {
        **dict.fromkeys(("load", "from_file", "hub"), "reads files"),
        **dict.fromkeys(("get_num_threads", "get_num_interop_threads"), "reads torch's settings"),
        **dict.fromkeys(
            (
                *("seed", "initial_seed", "manual_seed", "manual_seed_all", "Generator"),
                *("get_rng_state", "set_rng_state", "default_generator", "fork_rng"),
            ),
            "sets or reads the state of a random generator",
        ),
    },
    "numpy": dict.fromkeys(("load", "fromfile", "loadtxt", "genfromtxt", "memmap"), "reads files"),
}
# Methods that read files whatever they are called on.
READING_METHODS = frozenset({"read_text", "read_bytes", "open", "readline", "readlines"})
# Names through which a program reaches attributes without naming them in its code.
COMPUTED_NAMES = frozenset(
    {
        *("getattr", "hasattr", "vars", "dir", "__dict__", "__getattribute__", "__getattr__"),
        *("attrgetter", "methodcaller", "getmembers", "getattr_static"),
        *("asdict", "astuple"),
    }
)


def why_unforeseeable(module: str, name: str | None = None) -> str | None:
    """What a module, or a name in it, reads that is no argument; None where nothing is known."""
    while module:
        if module in _UNFORESEEABLE:
            return _UNFORESEEABLE[module]
        if name is not None and module in _UNFORESEEABLE_NAMES:
            reason = _UNFORESEEABLE_NAMES[module].get(name)
            if reason is None:
                reason = _UNFORESEEABLE.get(f"{module}.{name}")
            return reason
        if name is not None and f"{module}.{name}" in _UNFORESEEABLE:
            return _UNFORESEEABLE[f"{module}.{name}"]
        module = module.rpartition(".")[0]
    return None
