"""One call of a custom Function under audit: its arguments, and its backward to be called again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .._torch import Expected
from .graph import Port, port_of

Gradients = tuple[Tensor | None, ...]


class Unknown:
    """Stands for an argument that cannot be had any more."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Argument:
    """An argument of forward. ``expected`` and ``port`` are None where no gradient is needed."""

    place: int
    name: str
    expected: Expected | None
    port: Port | None
    value: Any = UNKNOWN

    @property
    def needs_gradient(self) -> bool:
        return self.expected is not None


@dataclass
class Call:
    """A node of the graph, the Function behind it, and what one real pass showed of it.

    ``given`` are the cotangents that arrived, ``returned`` what backward made of them before torch
    looked; ``error`` is what it raised instead; ``written`` names what it wrote into.
    ``draws`` is the random state that forward found, where it is known.
    """

    node: Node
    function: type[Any]
    arguments: tuple[Argument, ...]
    given: tuple[Any, ...] = ()
    returned: Any = None
    error: Exception | None = None
    draws: Tensor | None = None
    written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def ran(self) -> bool:
        return bool(self.given)

    def applied(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of forward at ``arguments``, drawing what it drew where that is known."""
        if self.draws is not None:
            torch.set_rng_state(self.draws)
        found = self.function.apply(*arguments)
        return tuple(found) if isinstance(found, (tuple, list)) else (found,)

    def holds(self) -> list[tuple[str, Tensor]]:
        """The tensors that the node keeps for its backward, named."""
        saved = enumerate(_torch.saved_by(self.node))
        named = [(f"saved tensor {k}", t) for k, t in saved if t is not None]
        return named + [(f"ctx.{name}", t) for name, t in kept_tensors(self.node)]

    def likes(self) -> tuple[Tensor | None, ...]:
        """Tensors like the outputs that a cotangent can reach; None for the others."""
        return tuple(starmap(_like, zip(self.given, _torch.slots(self.node), strict=True)))

    def pull(self, cotangents: Sequence[Tensor | None]) -> Gradients:
        """``J' v`` by the user's backward, summed and cast as torch would; None is kept.

        Where backward returns what torch refuses, there is None, too.
        """
        found = self.raw(cotangents)
        return tuple(starmap(_as_torch_takes_it, zip(found, self.arguments, strict=True)))

    def raw(self, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
        """What the user's backward returns for ``cotangents``, one entry per argument."""
        own = tuple(None if v is None else v.clone() for v in cotangents)
        filled = tuple(g if v is None else v for v, g in zip(own, self.given, strict=True))
        held = [t for _, t in self.holds()] if self.written else []
        with torch.no_grad(), _torch.unwritten(held):
            return as_tuple(_torch.run_backward(self.node, filled), len(self.arguments))


def call_of(node: Node, function: type[Any]) -> Call:
    """The call that made ``node``, with those of its arguments that can still be had."""
    needs = _torch.needs_gradient(node)
    ports = iter([Port(child, slot) for child, slot in node.next_functions if child is not None])
    held = _held(node)
    arguments = []
    for place, (name, needed) in enumerate(zip(_names(function, len(needs)), needs, strict=True)):
        port = next(ports, None) if needed else None
        if port is None:
            arguments.append(Argument(place, name, None, None))
            continue
        expected = _torch.expected_at(port.node, port.slot)
        value = _torch.leaf_of(port.node)
        arguments.append(
            Argument(place, name, expected, port, held.get(port) if value is None else value)
        )
    return Call(node, function, tuple(map(_marked, arguments)))


def as_tuple(returned: Any, count: int) -> tuple[Any, ...]:
    """What backward returned, one entry per argument of forward."""
    found = tuple(returned) if isinstance(returned, tuple) else (returned,)
    return (*found, *(None,) * (count - len(found)))[:count]


def reducible(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Whether torch sums a gradient of ``shape`` down to ``to`` without a word."""
    if len(to) > len(shape):
        return False
    tail = shape[len(shape) - len(to) :]
    return all(wanted in (1, had) for had, wanted in zip(tail, to, strict=True))


def fits(grad: Any, expected: Expected) -> bool:
    """Whether torch takes ``grad``, summed and cast if need be."""
    if not isinstance(grad, Tensor) or not reducible(grad.shape, expected.shape):
        return False
    return grad.device == expected.device or grad.dim() == 0


def kept_tensors(node: Node) -> list[tuple[str, Tensor]]:
    """Tensors on ``ctx`` that were not given to ``save_for_backward``, by attribute."""
    found = []
    for name, value in _torch.kept_as_attributes(node).items():
        parts = value.items() if isinstance(value, dict) else None
        if isinstance(value, (tuple, list)):
            parts = enumerate(value)  # type: ignore[assignment]
        inner = ((f"{name}[{k!r}]", part) for k, part in parts or ())
        found += [(n, t) for n, t in ((name, value), *inner) if isinstance(t, Tensor)]
    return found


def _held(node: Node) -> dict[Port, Tensor]:
    """Inputs that the node holds on to, by where their gradients go."""
    try:
        saved = _torch.saved_by(node)
    except RuntimeError:
        saved = ()
    held = [*saved, *(tensor for _, tensor in kept_tensors(node))]
    return {port_of(t): t for t in held if isinstance(t, Tensor) and t.requires_grad}


def _marked(argument: Argument) -> Argument:
    known = isinstance(argument.value, Tensor)
    value = argument.value if known else UNKNOWN
    return Argument(argument.place, argument.name, argument.expected, argument.port, value)


def _names(function: type[Any], count: int) -> list[str]:
    """The names of forward's arguments; numbers where the signature does not say."""
    forward: Callable[..., Any] = function.forward
    with_ctx = function.setup_context is torch.autograd.Function.setup_context
    try:
        parameters = list(inspect.signature(forward).parameters.values())[with_ctx:]
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [plain[k] if k < len(plain) else f"argument {k}" for k in range(count)]


def _like(given: Any, slot: _torch.Slot) -> Tensor | None:
    if given is None:  # not materialized: torch knows the shape
        return torch.zeros(slot.shape, dtype=slot.dtype) if slot.shape else None
    reachable = tuple(given.shape) == slot.shape and (
        given.is_floating_point() or given.is_complex()
    )
    return given if reachable else None


def _as_torch_takes_it(grad: Any, argument: Argument) -> Tensor | None:
    if argument.expected is None or not fits(grad, argument.expected):
        return None
    summed: Tensor = grad.sum_to_size(argument.expected.shape)
    if summed.is_complex() and not argument.expected.dtype.is_complex:
        summed = summed.real
    return summed.to(argument.expected.device, argument.expected.dtype)
