"""Calls of the autograd engine: what each was asked for, from where, and how it ended."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor

from .. import _torch
from .cuts import cuts_of
from .events import UserCall
from .meanings import Meaning, meaning_of
from .origins import AnyOrigin, Cut, Origin, origin_of_tensor
from .passlog import OF_OUTPUTS

_KEPT_CALLS = 16
_SCALE = "pullback.scale"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Root:
    """One tensor that was differentiated, and the cotangent it was given."""

    shape: tuple[int, ...]
    call: UserCall | None
    cotangent: Meaning | None
    weak_origin: ref[AnyOrigin] | None
    cuts: tuple[Cut, ...] = ()

    @property
    def origin(self) -> AnyOrigin | None:
        """None once the graph is gone and the call is not among the latest."""
        return None if self.weak_origin is None else self.weak_origin()


@dataclass(slots=True, eq=False)
class EngineCall:
    """``backward`` or ``autograd.grad``, once. ``error`` is the first line of what it raised.

    ``scale`` is the factor of a GradScaler that the outputs were multiplied with. Nodes that its
    thread made since are numbered ``began`` or later.
    """

    number: int
    function: str
    call: UserCall
    roots: tuple[Root, ...]
    retain_graph: bool
    create_graph: bool
    inputs: tuple[ref[Tensor], ...] | None
    scale: float | None = None
    running: bool = True
    error: str = ""
    began: int = 0

    @property
    def writes(self) -> bool:
        """Whether it adds to ``.grad``: ``autograd.grad`` hands gradients back instead."""
        return self.function == "backward"

    def asked_for(self, tensor: Tensor) -> bool:
        return self.inputs is None or any(each() is tensor for each in self.inputs)


class Asked(NamedTuple):
    """The tensors of one call, while it is made."""

    outputs: Sequence[Tensor]
    cotangents: Sequence[Tensor | None]


_log: deque[tuple[EngineCall, list[AnyOrigin | None]]] = deque(maxlen=_KEPT_CALLS)


def latest_calls() -> tuple[EngineCall, ...]:
    """The latest calls under ``trace`` or a ledger, in every thread, oldest first."""
    return tuple(call for call, _ in list(_log))


_PARAMETERS: dict[str, tuple[str, ...]] = {
    "backward": (
        "outputs", "cotangents", "retain_graph", "create_graph", "grad_variables", "inputs"),
    "method": ("outputs", "cotangents", "retain_graph", "create_graph", "inputs"),
    "grad": ("outputs", "inputs", "cotangents", "retain_graph", "create_graph"),
}  # fmt: skip
_KEYWORDS = {
    "tensors": "outputs",
    "grad_tensors": "cotangents",
    "gradient": "cotangents",
    "grad_outputs": "cotangents",
}


def begin(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], call: UserCall
) -> tuple[EngineCall, Asked]:
    """Log a call of ``Tensor.backward``, ``torch.autograd.backward`` or ``torch.autograd.grad``."""
    which = "grad" if func is torch.autograd.grad else "backward"
    names = _PARAMETERS["method" if func is Tensor.backward else which]
    asked = dict(zip(names, args, strict=False))
    asked.update((_KEYWORDS.get(name, name), value) for name, value in kwargs.items())
    outputs = [t for t in _listed(asked.get("outputs")) if isinstance(t, Tensor)]
    given = _listed(asked.get("cotangents"))
    cotangents = [given[k] if k < len(given) else None for k in range(len(outputs))]
    inputs = asked.get("inputs")
    retain = asked.get("retain_graph")
    create = bool(asked.get("create_graph"))
    begun = EngineCall(
        next(_numbers),
        which,
        call,
        tuple(
            _root(output, cotangent) for output, cotangent in zip(outputs, cotangents, strict=True)
        ),
        create if retain is None else bool(retain),
        create,
        None if inputs is None else tuple(ref(t) for t in _listed(inputs) if isinstance(t, Tensor)),
        next((s for s in map(scale_of, outputs) if s is not None), None),
        began=_torch.next_sequence_number(),
    )
    _log.append((begun, [root.origin for root in begun.roots]))
    return begun, Asked(outputs, cotangents)


def end(call: EngineCall, error: BaseException | None = None) -> None:
    call.running = False
    if error is not None:
        call.error = str(error).partition("\n")[0]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _root(output: Tensor, cotangent: Any) -> Root:
    meaning = None
    if isinstance(cotangent, Tensor) and 0 < cotangent.numel() <= OF_OUTPUTS:
        meaning = _meaning(cotangent)
    if not output.requires_grad or _torch.is_transform_tensor(output):
        return Root(tuple(output.shape), None, meaning, None, cuts_of(output))
    origin = origin_of_tensor(output)
    made_by = origin.call if isinstance(origin, Origin) else None
    return Root(tuple(output.shape), made_by, meaning, ref(origin))


def _meaning(cotangent: Tensor) -> Meaning | None:
    plain = cotangent.layout is torch.strided and not _torch.is_transform_tensor(cotangent)
    if not plain or cotangent.device.type != "cpu":  # elsewhere reading it would wait for it
        return None
    return meaning_of(cotangent.detach(), "the output")


def note_scale(output: Tensor, factor: Tensor) -> None:
    """A GradScaler has multiplied ``output`` with ``factor``."""
    if output.grad_fn is not None:
        _torch.notes_of(output.grad_fn)[_SCALE] = factor


def scale_of(output: Tensor) -> float | None:
    """What a GradScaler multiplied ``output`` with, if one did under ``trace``."""
    if output.grad_fn is None:
        return None
    factor = _torch.notes_of(output.grad_fn).get(_SCALE)
    return float(factor) if isinstance(factor, Tensor) else None
