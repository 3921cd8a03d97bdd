"""Where the arrays of a solver become tensors, and tensors arrays that the solver may keep."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ... import _checks
from ...sparse.state import Reading, State, TensorGuard

Array = NDArray[Any]
# Tensors that a function owns are compared with a copy of them up to this many bytes; where they
# are more, nothing is shared between two calls.
_COMPARED = 2**24


P = ParamSpec("P")
R = TypeVar("R")


def outside_inference(method: Callable[P, R]) -> Callable[P, R]:
    """Inference mode, in which nothing has a graph, is left for the call."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return method(*args, **kwargs)
        with torch.inference_mode(False):
            return method(*args, **kwargs)

    return call


class Border:
    """The shape, dtype and device of a function's argument, and the way of arrays to it.

    ``name`` is what the argument is called in errors.
    """

    def __init__(self, caller: str, name: str, sample: ArrayLike | Tensor) -> None:
        if not isinstance(sample, Tensor):
            array = np.asarray(sample)
            if array.dtype.kind in "iub":
                array = array.astype(np.float64)
            native = array.astype(array.dtype.newbyteorder("="), order="C")
            sample = torch.from_numpy(native)
        _checks.start_of_solver(caller, name, sample)
        self.name = name
        self.sample = sample.detach().clone(memory_format=torch.contiguous_format)
        self.size = sample.numel()
        self._shape, self._device = tuple(sample.shape), sample.device
        self._dtype = _checks.numpy_dtype(caller, sample.dtype)

    def tensor(self, caller: str, array: ArrayLike, copy: bool = False) -> Tensor:
        """A tensor of the sample's shape, in the memory of ``array`` where that is possible and no
        ``copy`` is wanted."""
        given = np.asarray(array)
        if given.dtype != self._dtype or given.size != self.size:
            _checks.solver_array(caller, self.name, given, self.size, self._shape)
        usable = given.flags.c_contiguous and given.flags.writeable
        if given.dtype != self._dtype or copy or not usable:
            given = np.array(given, dtype=self._dtype, order="C")
        tensor = torch.from_numpy(given).view(self._shape)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)


def own_array(tensor: Tensor) -> Array:
    """A flat array in memory of its own: a solver keeps what it is given, and writes into it."""
    found: Array = tensor.detach().reshape(-1).cpu().numpy()
    return found.copy()


def bits_of(tensor: Tensor) -> bytes:
    """The content, which tells one point from another."""
    return tensor.detach().cpu().numpy().tobytes()


def returning_twice(func: Callable[..., Any], caller: str) -> Callable[..., Any]:
    """``func`` with its value as aux, too.

    ``__wrapped__`` tells those who watch what a function reads whose function this is.
    """

    def valued(*args: Any) -> tuple[Tensor, Tensor]:
        value = _checks.solver_value(caller, func(*args))
        return value, value

    valued.__wrapped__ = func  # type: ignore[attr-defined]
    valued.__name__ = getattr(func, "__name__", type(func).__name__)
    return valued


class Watch:
    """Whether all that ``func`` reads besides its point is as it was when ``mark`` was called.

    What a call computes may answer the next one at the same point only then.
    """

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._state = State.of(func, extra=args)
        self._reading: Reading | None = None
        self._guards: dict[str, TensorGuard] = {}

    def mark(self) -> None:
        reading = self._state.read()
        owned = reading.tensors
        self._reading = None
        if self._state.unseen or sum(map(_bytes, owned.values())) > _COMPARED:
            return
        if not self._has_contents(reading):
            self._guards = {path: TensorGuard.of(path, tensor) for path, tensor in owned.items()}
        self._reading = reading.without_tensors()

    def holds(self) -> bool:
        if self._reading is None:
            return False
        reading = self._state.read()
        unseen = self._state.unseen or reading.changes(self._reading)
        return not unseen and self._has_contents(reading)

    def _has_contents(self, reading: Reading) -> bool:
        guards, owned = self._guards, reading.tensors
        return guards.keys() == owned.keys() and all(
            guard.holds(owned[path]) for path, guard in guards.items()
        )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
