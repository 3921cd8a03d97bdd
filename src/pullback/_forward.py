"""Products J t of the Jacobian of a backward pass: by a double VJP, or by forward mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._adjoint import is_adjoint, probe
from ._engines import Batch
from ._errors import UnsupportedError
from ._linear import Forward, ForwardProducts, Products, RandomState, transposed


class _NoProducts:
    """Stands where torch can push no tangent; refuses with the reasons."""

    def __init__(self, refusal: UnsupportedError) -> None:
        self._refusal = refusal

    def one(self, vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        raise self._refusal

    def many(self, batch: Sequence[Tensor], chunk_size: int | None = None) -> Batch:
        raise self._refusal


def forward_products(
    forward: Forward, func: Callable[..., Any], primals: tuple[Any, ...], state: RandomState
) -> tuple[str, Products, tuple[str, ...]]:
    """How J t is computed: the engine, its products, and why not by a faster one.

    Either way has to form an adjoint pair with J' v at a random point first.
    """
    tangents = [probe(t).detach() for t in forward.products.like]
    try:
        double = transposed(forward.products)
        if not double.agrees(tangents, double.map.one(tangents)):
            raise RuntimeError(_checks.HIDDEN_BACKWARD)
        return "double VJP", double.map, ()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        refused = error
    products = ForwardProducts(func, primals, forward.flat, state)
    reason = f"double VJP was left: {_checks.first_line(refused)}"
    try:
        up = forward.products
        if not is_adjoint(up.one, up.outputs, tangents, products.one(tangents)):
            raise RuntimeError(_checks.NOT_ADJOINT)
    except RuntimeError as error:
        refusal = _checks.no_jvp("JacobianOperator", refused, error)
        other = f"torch.func.jvp was left: {_checks.first_line(error)}"
        return "none", _NoProducts(refusal), (reason, other)
    return "torch.func.jvp", products, (reason,)
