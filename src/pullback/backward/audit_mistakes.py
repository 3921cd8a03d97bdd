"""What the wrong entries of a small Jacobian have in common: the simple mistake that makes them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .._mistakes import Compared, likely_mistake
from .audit_call import Argument
from .audit_forward import Forward
from .audit_state import Cotangents

_ENTRIES = 2048
_COLUMNS = 64


def mistake_in(forward: Forward, argument: Argument, v: Cotangents) -> str:
    """A sentence, without its full stop; nothing where J is large, or no known mistake explains
    all of its entries. ``v`` is zero at outputs that are to be left out."""
    point = forward.arguments[argument.place]
    rows = [(place, k) for place in forward.places for k in _used(v[place])]
    width = 2 if point.is_complex() else 1
    if not 0 < point.numel() * width <= _COLUMNS or len(rows) * point.numel() > _ENTRIES:
        return ""
    units = [_unit(point, k, turn) for k in range(point.numel()) for turn in turns(point)]
    truth, errors = _by_differences(forward, argument.place, units, v)
    found = _by_backward(forward, argument.place, units, v)
    outputs = [t for t in v if t is not None]
    sizes = [size for t in (point, *outputs) for size in t.shape]
    pairs = all(t.is_complex() for t in outputs), point.is_complex()
    compared = Compared(found.to(truth.dtype), truth, errors)
    values = [] if any(pairs) else list(_values(forward, argument, outputs))
    return likely_mistake(compared, values, sizes, pairs)


def _used(tensor: Tensor | None) -> range:
    return range(0 if tensor is None else tensor.numel() * (2 if tensor.is_complex() else 1))


def turns(tensor: Tensor) -> tuple[complex, ...]:
    """What a complex unit is multiplied by for its two real directions."""
    return (1, 1j) if tensor.is_complex() else (1,)


def _unit(like: Tensor, place: int, turn: complex) -> Tensor:
    unit = torch.zeros_like(like, memory_format=torch.contiguous_format)
    unit.view(-1)[place] = 1
    return unit * turn


def _real(tensor: Tensor) -> Tensor:
    """Flat, a complex entry as two, (re, im)."""
    flat = tensor.reshape(-1)
    return torch.view_as_real(flat.resolve_conj()).reshape(-1) if flat.is_complex() else flat


def _by_differences(
    forward: Forward, place: int, units: list[Tensor], v: Cotangents
) -> tuple[Tensor, Tensor]:
    values, errors = [], []
    for unit in units:
        slope = forward.slope(place, unit)
        values.append(torch.cat([_real(t).double() for t in slope.values]))
        errors.append(torch.cat(list(map(_doubt, slope.values, slope.errors, slope.rough))))
    left_out = torch.cat([_real(t) == 0 for t in v if t is not None])
    doubts = torch.stack(errors, 1)
    doubts[left_out] = float("inf")
    return torch.stack(values, 1).nan_to_num(0.0), doubts


def _doubt(value: Tensor, error: Tensor, rough: Tensor) -> Tensor:
    doubt = error.double().masked_fill(rough, float("inf")).reshape(-1)
    return doubt.repeat_interleave(2) if value.is_complex() else doubt


def _by_backward(forward: Forward, place: int, units: list[Tensor], v: Cotangents) -> Tensor:
    rows = []
    for cotangent in _bases(v):
        grad = forward.call.pull(cotangent)[place]
        flat = torch.zeros(len(units)) if grad is None else _real(grad)
        rows.append(flat.double())
    return torch.stack(rows)


def _bases(v: Cotangents) -> Iterator[Cotangents]:
    for place, given in enumerate(v):
        if given is None:
            continue
        for k in range(given.numel()):
            for turn in turns(given):
                unit = [None if t is None else torch.zeros_like(t) for t in v]
                unit[place] = _unit(given, k, turn)
                yield tuple(unit)


def _values(
    forward: Forward, argument: Argument, outputs: list[Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Numbers that a backward may have lost, as columns or rows of its Jacobian."""
    point = forward.arguments[argument.place]
    for other in forward.call.arguments:
        value = forward.arguments[other.place]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        for shape, rows in ((point.shape, False), *((t.shape, True) for t in outputs[:1])):
            try:
                spread = value.double().broadcast_to(shape).reshape(-1)
            except RuntimeError:
                continue
            yield f"`{other.name}`", spread[:, None] if rows else spread[None]
