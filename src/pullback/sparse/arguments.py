"""The arguments of one call, told apart: differentiated tensors, other tensors, plain values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from .. import _checks, _torch
from .._trees import Structure, flatten_each
from .leaf import Leaf, leaf

_PLAIN = (bool, int, float, complex, str, bytes)


@dataclass(frozen=True)
class Arguments:
    """``primals`` are the tensor leaves of the arguments that ``argnums`` selects, in pytree
    order; ``others`` the tensors of the rest; ``values`` all leaves, tensors replaced by None."""

    structure: Structure
    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    primal_at: tuple[int, ...]
    other_at: tuple[int, ...]
    selected: tuple[Structure, ...]
    places: tuple[int, ...]
    single: bool

    @property
    def primals(self) -> list[Tensor]:
        """The selected tensors; of a complex one its real view, with a last axis (re, im)."""
        return [as_real(self.leaves[k]) for k in self.primal_at]

    @property
    def inputs(self) -> tuple[Leaf, ...]:
        return tuple(leaf(self.names[k], self.leaves[k]) for k in self.primal_at)

    @property
    def others(self) -> list[Tensor]:
        return [self.leaves[k] for k in self.other_at]

    @property
    def primal_names(self) -> tuple[str, ...]:
        return tuple(self.names[k] for k in self.primal_at)

    @property
    def other_names(self) -> tuple[str, ...]:
        return tuple(self.names[k] for k in self.other_at)

    @property
    def plain(self) -> tuple[Any, ...]:
        """Numbers, strings and None among the leaves, with their types: what a graph bakes in."""
        return tuple(
            (k, type(leaf), bits(leaf))
            for k, leaf in enumerate(self.leaves)
            if leaf is None or isinstance(leaf, _PLAIN)
        )

    @property
    def objects(self) -> tuple[Any, ...]:
        """The leaves that are neither tensors nor plain: arrays, modules, settings."""
        return tuple(
            leaf
            for leaf in self.leaves
            if leaf is not None and not isinstance(leaf, (Tensor, *_PLAIN))
        )

    def call(
        self, func: Callable[..., Any], primals: Sequence[Tensor], others: Sequence[Tensor]
    ) -> Any:
        leaves = list(self.leaves)
        for k, tensor in zip(self.primal_at, primals, strict=True):
            leaves[k] = torch.view_as_complex(tensor) if self.leaves[k].is_complex() else tensor
        for k, tensor in zip(self.other_at, others, strict=True):
            leaves[k] = tensor
        return func(*self.structure.rebuild(leaves))

    @property
    def sample(self) -> Arguments:
        """The same with plain tensors: of each that a running transform has wrapped, one slice."""
        leaves = tuple(
            _torch.plain_sample(leaf) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves
        )
        return replace(self, leaves=leaves)

    def in_selected(self, entries: Sequence[Any]) -> Any:
        """One entry per primal, in the structure of the selected argument or of several."""
        rebuilt, at = [], 0
        for structure in self.selected:
            count = len(structure.paths)
            rebuilt.append(structure.rebuild(entries[at : at + count]))
            at += count
        return rebuilt[0] if self.single else tuple(rebuilt)

    def with_primals(self, primals: Sequence[Tensor]) -> Arguments:
        leaves = list(self.leaves)
        for k, tensor in zip(self.primal_at, primals, strict=True):
            leaves[k] = torch.view_as_complex(tensor) if self.leaves[k].is_complex() else tensor
        return replace(self, leaves=tuple(leaves))

    def on_primals(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """``func`` as a function of the primals alone."""
        return lambda *primals: self.call(func, primals, self.others)

    @property
    def signature(self) -> tuple[Any, ...]:
        """Shapes, strides, dtypes and devices, and where they stand: what one capture is for."""
        tensors = tuple(
            (
                k,
                type(leaf),
                tuple(leaf.shape),
                strides_of(leaf),
                leaf.dtype,
                leaf.device,
                *_flags(leaf),
            )
            for k, leaf in enumerate(self.leaves)
            if isinstance(leaf, Tensor)
        )
        wanted = tuple(t.requires_grad for t in self.others)
        return (self.structure.paths, self.primal_at, tensors, wanted)


def arguments_for(
    caller: str,
    args: Sequence[Any],
    argnums: int | tuple[int, ...],
    func: Callable[..., Any] | None = None,
) -> Arguments:
    """Split ``args``; refuses selected arguments that are not floating point tensors.

    ``func``, where given, lends its arguments the names that it has for them.
    """
    places = _checks.argnums_for(caller, argnums, len(args))
    leaves, structure, each = flatten_each(args)
    chosen: list[int] = []
    selected: list[Structure] = []
    starts = [0]
    for part in each:
        starts.append(starts[-1] + len(part.paths))
    called = _parameter_names(func, len(args))
    by_key = getattr(func, "called_by_key", ())
    names = tuple(
        called[k] + path if k not in by_key else name
        for k, part in enumerate(each)
        for path, name in zip(part.paths, part.names, strict=True)
    )
    for place in places:
        checked = _checks.leaves_of(caller, called[place], args[place])
        _checks.differentiable_primals(caller, checked)
        chosen += range(starts[place], starts[place + 1])
        selected.append(each[place])
    others = [
        k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and k not in set(chosen)
    ]
    return Arguments(
        structure,
        names,
        tuple(leaves),
        tuple(chosen),
        tuple(others),
        tuple(selected),
        places,
        not isinstance(argnums, tuple),
    )


def _parameter_names(func: Callable[..., Any] | None, count: int) -> list[str]:
    """What ``func`` calls its first ``count`` arguments; ``args[k]`` where it does not say."""
    plain = [f"args[{k}]" for k in range(count)]
    if func is None:
        return plain
    if type(func) is FunctionType and not func.__dict__:
        code = func.__code__
        named = list(code.co_varnames[: code.co_argcount][:count])
        return named + plain[len(named) :]
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):
        return plain
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in parameters if p.kind in kinds][:count]
    return named + plain[len(named) :]


def _flags(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_conj(), tensor.is_neg()


def bits(value: Any) -> Any:
    """Equal for equal values only: nan is itself, and -0.0 is not 0.0."""
    return value.hex() if isinstance(value, float) else repr(value)


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout is torch.strided else ()


def in_layout(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """``tensor`` in these strides, copied if it has others."""
    if tensor.layout is not torch.strided or tensor.stride() == stride or tensor.numel() < 2:
        return tensor
    laid_out = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device)
    return laid_out.copy_(tensor)


def as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def fresh(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return tensor.detach().clone()


def fresh_others(arguments: Arguments) -> list[Tensor]:
    return [fresh(t).requires_grad_(t.requires_grad) for t in arguments.others]


def devices_of(tensors: Sequence[Tensor]) -> list[int]:
    return sorted({t.device.index or 0 for t in tensors if t.is_cuda})
