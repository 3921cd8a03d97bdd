"""A module as a function of tensors that it holds, by their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils import _pytree as pytree

from . import _checks, _torch

INPUTS, PARAMETERS = "inputs", "parameters"


class Called:
    """``module`` as a function of some of its tensors and of its own arguments.

    ``called(tensors, *args)`` is what the module gives for ``args`` with the tensors of these names
    in the place of its own. One that is held under several names, or by a part that stands at
    several places, is replaced at all of them: ``torch.func.functional_call`` means the same, but
    leaves a part that stands at two places with the tensor that it was called with.
    """

    # The leaves of these arguments are called by their keys alone.
    called_by_key = (0,)

    def __init__(self, caller: str, module: nn.Module) -> None:
        self._caller, self.module = caller, module
        self.notes: tuple[str, ...] = ()

    def __call__(self, tensors: Mapping[str, Tensor], *args: Any) -> Any:
        held = {name: tensor_of(self.module, name) for name in tensors}
        with _swapped(self.module, held, tensors), self._in_sight(held):
            returned = self.module(*args)
        self._refuse_ways_past(held, tensors, args, returned)
        return returned

    @property
    def __signature__(self) -> inspect.Signature:
        first = inspect.Parameter("tensors", inspect.Parameter.POSITIONAL_ONLY)
        try:
            rest = list(inspect.signature(self.module.forward).parameters.values())
        except (TypeError, ValueError):
            rest = []
        return inspect.Signature([first, *(p for p in rest if p.name != "tensors")])

    @contextmanager
    def _in_sight(self, held: Mapping[str, Tensor]) -> Iterator[None]:
        """With gradients for the tensors that were replaced: a read past their names shows."""
        frozen: list[Tensor] = []
        if _is_watching():
            frozen = [t for t in held.values() if not t.requires_grad and not t.is_inference()]
        try:
            for tensor in frozen:
                tensor.requires_grad_(True)
            yield
        finally:
            for tensor in frozen:
                tensor.requires_grad_(False)

    def _refuse_ways_past(
        self,
        held: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        args: Sequence[Any],
        returned: Any,
    ) -> None:
        """What the module keeps of the tensors elsewhere is not replaced, and would count for a
        constant."""
        if not _is_watching():
            return
        given = [t for t in pytree.tree_leaves((tuple(tensors.values()), args)) if _is_tensor(t)]
        apart = {id(t) for t in given}
        names = {id(t): name for name, t in held.items() if id(t) not in apart}
        outputs = [t for t in pytree.tree_leaves(returned) if _is_tensor(t)]
        found = {names.get(id(leaf)): None for leaf in _leaves_behind(outputs, given)}
        if past := [name for name in found if name is not None]:
            raise _checks.way_past_a_name(self._caller, past)

    def __repr__(self) -> str:
        return f"{type(self.module).__name__} by names"


def _is_watching() -> bool:
    return torch.is_grad_enabled() and _torch.plain_autograd_sees_everything()


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _leaves_behind(outputs: Sequence[Tensor], stops: Sequence[Tensor]) -> Iterator[Tensor]:
    """The leaves that ``outputs`` depend on otherwise than through ``stops``."""
    seen: set[Node | None] = {t.grad_fn for t in stops}
    apart = {id(t) for t in stops}
    for output in outputs:
        if output.grad_fn is None and output.requires_grad and id(output) not in apart:
            yield output
    stack = [output.grad_fn for output in outputs]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = node.next_functions
        if not following:
            leaf = _torch.leaf_of(node)
            if leaf is not None:
                yield leaf
        stack.extend(child for child, _ in following)


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer that stands under ``name`` now."""
    path, _, last = name.rpartition(".")
    for table in _torch.tensor_tables(module.get_submodule(path)):
        if (tensor := table.get(last)) is not None:
            return tensor
    raise KeyError(name)


@contextmanager
def _swapped(
    module: nn.Module, held: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> Iterator[None]:
    """Everywhere in ``module``, ``tensors`` in the place of those ``held`` under their names."""
    instead = {id(held[name]): tensor for name, tensor in tensors.items()}
    places = [
        (part, table, key, own)
        for part in module.modules()
        for table in _torch.tensor_tables(part)
        for key, own in table.items()
        if own is not None and id(own) in instead
    ]
    try:
        for _, table, key, own in places:
            table[key] = instead[id(own)]
        yield
    finally:
        for part, table, key, own in places:
            if table.get(key) is instead[id(own)]:
                table[key] = own
            _torch.settle(part)


@dataclass
class Selection:
    """``names`` are the tensors asked for, in the order of the columns; ``notes`` tell of those
    that stand under several names."""

    names: tuple[str, ...]
    notes: tuple[str, ...]
    places: list[tuple[_torch.Table, str]] = field(repr=False)

    def tensors(self) -> dict[str, Tensor]:
        found = [table[key] for table, key in self.places]
        return {n: t for n, t in zip(self.names, found, strict=True) if t is not None}


class Wrt:
    """What ``wrt`` asks for, looked up in a module as it is at each call."""

    def __init__(self, caller: str, func: Callable[..., Any], wrt: Any, argnums: Any) -> None:
        self._caller = caller
        self.module = _checks.module_for_names(caller, func)
        self._entries = _checks.wrt_option(caller, wrt)
        _checks.no_argnums_beside_names(caller, argnums)
        self.called = Called(caller, self.module)
        self._selection: Selection | None = None
        self._look: list[list[Any]] = []
        self._tables: list[dict[str, Any]] = []
        self._parts: list[nn.Module] = []
        self._recurrent: list[nn.RNNBase] = []

    @property
    def selection(self) -> Selection:
        """Of now. A table that has other entries than at the last look makes it look again."""
        if self._selection is None or self._seen() != self._look:
            self._parts = list(self.module.modules())
            self._recurrent = [p for p in self._parts if isinstance(p, nn.RNNBase)]
            self._tables = [t for part in self._parts for t in _torch.all_tables(part)]
            self._selection = _select(self._caller, self.module, self._entries)
            self._look = self._seen()
            self.called.notes = self._selection.notes
        return self._selection

    def _seen(self) -> list[list[Any]]:
        seen: list[list[Any]] = [[*map(id, table.values())] for table in self._tables]
        if PARAMETERS in self._entries:
            seen.append([p.requires_grad for p in self.module.parameters()])
        return seen

    def arguments(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Those of ``called``: the tensors that the module holds now, and ``args``."""
        found = self.selection.tensors()
        for part in self._recurrent:
            _torch.settle(part)  # what torch.func.functional_call has left behind
        return (found, *args)


def wrt_of(caller: str, func: Callable[..., Any], wrt: Any, argnums: Any) -> Wrt | None:
    """None where the arguments that ``argnums`` selects are meant."""
    return None if wrt is None or wrt == INPUTS else Wrt(caller, func, wrt, argnums)


def names_of(func: object, names: Sequence[str]) -> tuple[str, ...]:
    """The names of the inputs, where they are named tensors of a module."""
    return tuple(names) if isinstance(_within(func), Called) else ()


def notes_of(func: object) -> tuple[str, ...]:
    inner = _within(func)
    return inner.notes if isinstance(inner, Called) else ()


def _within(func: object) -> object:
    """What a gradient is the gradient of."""
    return getattr(func, "__wrapped__", func)


def owner_of(func: Callable[..., Any]) -> Callable[..., Any]:
    """What holds all that ``func`` reads besides its arguments."""
    return func.module if isinstance(func, Called) else func


def _select(caller: str, module: nn.Module, entries: Sequence[str]) -> Selection:
    parameters: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    buffers: dict[str, Tensor] = dict(module.named_buffers(remove_duplicate=False))
    known = {**parameters, **buffers}
    wanted: dict[int, str] = {}
    for entry in entries:
        for name in _expanded(caller, entry, parameters, buffers):
            if isinstance(known[name], UninitializedBuffer | UninitializedParameter):
                raise _checks.not_initialized(caller, name)
            wanted.setdefault(id(known[name]), name)
    names = tuple(wanted.values())
    notes = []
    for name in names:
        others = [n for n, t in known.items() if t is known[name] and n != name]
        if others:
            notes.append(
                f"`{name}` is one tensor with {_checks.listed(others)}: its columns hold what "
                f"comes through all of these names"
            )
    return Selection(names, tuple(notes), [_place(module, name) for name in names])


def _expanded(
    caller: str, entry: str, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> list[str]:
    if entry in parameters or entry in buffers:
        return [entry]
    if entry == PARAMETERS:
        trained = [name for name, p in parameters.items() if p.requires_grad]
        if not trained:
            raise _checks.no_trained_parameters(caller, list(parameters))
        return trained
    if any(sign in entry for sign in "*?["):
        found = [name for name in parameters if fnmatchcase(name, entry)]
        if not found:
            near = [name for name in buffers if fnmatchcase(name, entry)]
            raise _checks.pattern_matches_nothing(caller, entry, list(parameters), near)
        return found
    raise _checks.unknown_tensor_name(caller, entry, list(parameters), list(buffers))


def _place(module: nn.Module, name: str) -> tuple[_torch.Table, str]:
    path, _, last = name.rpartition(".")
    tables = _torch.tensor_tables(module.get_submodule(path))
    return next((table, last) for table in tables if table.get(last) is not None)
