"""The gradient of a function as a function: its Jacobian is the Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import _checks, _torch
from .._engines import gradients as gradients_of
from .._linear import flat_outputs
from .._named import owner_of
from .._trees import flatten


class Gradient:
    """What autograd's backward gives at the arguments that ``argnums`` selects.

    ``func`` returns one number, or, if ``weighed``, any tensors: the last argument then holds their
    cotangents v, and the gradient is that of v · func. It has the structure of the selected
    argument, or is a tuple of several. With ``has_aux``, aux is returned beside it.
    """

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        argnums: int | tuple[int, ...],
        *,
        has_aux: bool = False,
        weighed: bool = False,
    ) -> None:
        self._caller, self.func, self._argnums = caller, func, argnums
        self._has_aux, self._weighed = has_aux, weighed

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """Lends the names of its arguments."""
        return self.func

    @property
    def weighed(self) -> bool:
        """Whether the last argument holds cotangents."""
        return self._weighed

    @property
    def called_by_key(self) -> tuple[int, ...]:
        """Lends how the leaves of these are called."""
        places: tuple[int, ...] = getattr(self.func, "called_by_key", ())
        return places

    @property
    def argnums(self) -> int | tuple[int, ...]:
        """For this function: cotangents behind the arguments shift those counted from the end."""
        if not self._weighed:
            return self._argnums
        if isinstance(self._argnums, tuple):
            return tuple(map(_before_the_last, self._argnums))
        return _before_the_last(self._argnums)

    def __call__(self, *args: Any) -> Any:
        given = args[:-1] if self._weighed else args
        places = _checks.argnums_for(self._caller, self._argnums, len(given))
        leaves, structure = flatten(tuple(given[place] for place in places))
        aux: list[Any] = []
        named: list[_checks.Leaves] = []

        def outputs(*moved: Tensor) -> tuple[Tensor, ...]:
            arguments = list(given)
            for place, value in zip(places, structure.rebuild(moved), strict=True):
                arguments[place] = value
            # torch differentiates the backward of one kernel of attention alone.
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                returned = self.func(*arguments)
            if self._has_aux:
                returned, extra = _checks.output_and_aux(self._caller, returned)
                aux[:] = [extra]
            named[:] = [self._checked(returned)]
            return named[0].tensors

        def cotangents() -> tuple[Tensor, ...]:
            if self._weighed:
                return _checks.cotangents_for(self._caller, named[0], args[-1])
            return tuple(torch.ones_like(out) for out in named[0].tensors)

        gradients = _backward(outputs, leaves, cotangents)
        # torch puts such a node where a backward must not be differentiated; no path leads on from
        # it, so that its derivative would pass for zero.
        if any(_torch.node_name(node) == "Error" for node in _torch.nodes_behind(gradients)):
            raise _checks.once_differentiable(self._caller)
        found = structure.rebuild(gradients)
        gradient = found if isinstance(self._argnums, tuple) else found[0]
        return (gradient, aux[0]) if self._has_aux else gradient

    def _checked(self, returned: Any) -> _checks.Leaves:
        flat_outputs(self._caller, returned)
        named = _checks.leaves_of(self._caller, "output", returned)
        _checks.differentiable_outputs(self._caller, named)
        _checks.real(self._caller, named, "output")
        if not self._weighed:
            _checks.one_number(self._caller, named)
        return named


def _before_the_last(place: int) -> int:
    return place - 1 if place < 0 else place


def _backward(
    func: Callable[..., tuple[Tensor, ...]],
    leaves: Sequence[Tensor],
    cotangents: Callable[[], tuple[Tensor, ...]],
) -> list[Tensor]:
    if _torch.running_transform() is not None:
        pull = torch.func.vjp(func, *leaves)[1]
        # Without a graph, torch's backwards may take factors from the forward for constants.
        with torch.enable_grad():
            return list(pull(cotangents()))
    outputs = func(*leaves)
    with torch.enable_grad():
        found = gradients_of(outputs, leaves, cotangents(), create_graph=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, found, strict=True)
    ]


def result_name(func: object) -> str:
    """What the results of a function are called in plans and messages."""
    return "gradient" if isinstance(func, Gradient) else "output"


def kind_of(func: object) -> str:
    """What the Jacobian of a function is called."""
    return "hessian" if isinstance(func, Gradient) else "jacobian"


def written(func: Callable[..., Any]) -> Callable[..., Any]:
    """What the user wrote: all that a gradient reads is read by the function that it is of."""
    return owner_of(func.func if isinstance(func, Gradient) else func)
