"""A custom Function to be audited: it is one, and something of it can be differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function

from .._errors import ArgumentError, GraphError
from .words import can_carry_gradients


def custom_function(caller: str, function: Any, inputs: Sequence[Any]) -> None:
    """Refuse what is no subclass of Function, and inputs that cannot have a gradient."""
    if not (isinstance(function, type) and issubclass(function, Function)):
        told = repr(function) if not callable(function) else getattr(function, "__name__", "it")
        raise ArgumentError(
            f"{caller}: the first argument must be a subclass of torch.autograd.Function; found "
            f"{told}. Pass the class itself: {caller}(MyFunction, *inputs), not MyFunction.apply."
        )
    if not any(isinstance(t, Tensor) and can_carry_gradients(t.dtype) for t in inputs):
        raise ArgumentError(
            f"{caller}: no input of {function.__name__} is a floating point or complex tensor, so "
            f"none can have a gradient. Give the inputs of {function.__name__}.apply, one by one."
        )


def differentiable_call(caller: str, name: str, outputs: Sequence[Tensor]) -> None:
    if not outputs:
        raise GraphError(
            f"{caller}: no output of {name} requires a gradient, so its backward is never asked. "
            "See whether forward marks them non-differentiable, or returns whole numbers."
        )
