"""A user's file: imported as a module, its function and the point that it names."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from .._checks import commands as checks
from .._checks import first_line

SHARED_SAMPLE = "sample"


class Target(NamedTuple):
    """A function of a file; ``name`` may be dotted."""

    module: ModuleType
    path: Path
    name: str
    func: Callable[..., Any]


class Point(NamedTuple):
    """The arguments of a call, and where they are from."""

    args: tuple[Any, ...]
    source: str


def import_file(path: Path) -> ModuleType:
    """Run ``path`` as a module that is not ``__main__``, with its folder first on ``sys.path``.

    It is known by the name of the file, so that its neighbors can import it, unless a module of
    that name is there already.
    """
    path = path.resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem not in sys.modules else f"_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def target_of(caller: str, module: ModuleType, path: Path, name: str) -> Target:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise checks.no_such_function(caller, path, name, _functions_of(module))
        value = getattr(value, part)
    if not callable(value):
        raise checks.not_callable(caller, path, name, value)
    return Target(module, path, name, value)


def _functions_of(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]


def point_in_file(caller: str, path: Path, target: Target) -> Point:
    """What ``torch.save`` wrote; only tensors and plain containers are read, no code runs."""
    checks.file_is_there(caller, "--at", path)
    try:
        where = None if torch.cuda.is_available() else "cpu"
        saved = torch.load(path, weights_only=True, map_location=where)
    except Exception as error:  # a file of any content may raise anything
        detail = f"{type(error).__name__}: {first_line(error)}"
        raise checks.point_file(caller, path, detail) from None
    return _point(caller, saved, str(path), target)


def point_of_module(caller: str, target: Target) -> Point:
    """What the file itself names: ``FUNC_sample``, else ``sample``; functions or values."""
    own = target.name.rpartition(".")[2] + "_sample"
    for name in (own, SHARED_SAMPLE):
        if hasattr(target.module, name):
            value = getattr(target.module, name)
            found = value() if inspect.isroutine(value) else value
            source = f"{name}()" if inspect.isroutine(value) else name
            return _point(caller, found, f"{source} of {target.path.name}", target)
    raise checks.no_point(caller, target.path, target.name, (own, SHARED_SAMPLE))


def _point(caller: str, value: Any, source: str, target: Target) -> Point:
    """A tuple or list is all arguments; a dict that names parameters gives them by name; anything
    else is the one argument."""
    if isinstance(value, (tuple, list)):
        args = tuple(value)
    elif isinstance(value, Mapping) and (named := _by_name(target.func, value)) is not None:
        args = named
    else:
        args = (value,)
    if not args:
        raise checks.empty_point(caller, source)
    return Point(args, source)


def _by_name(func: Callable[..., Any], given: Mapping[Any, Any]) -> tuple[Any, ...] | None:
    """The positional arguments that ``given`` names, or None where it names something else."""
    try:
        signature = inspect.signature(func)
        bound = signature.bind(**given)
    except (TypeError, ValueError):
        return None
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    if not given or any(signature.parameters.get(name) is None for name in given):
        return None
    if any(signature.parameters[name].kind not in plain for name in given):
        return None
    bound.apply_defaults()
    return None if bound.kwargs else tuple(bound.args)
