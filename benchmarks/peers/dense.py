"""Dense matrices by torch, as (m, n): both modes of ``torch.func``, in chunks of several sizes.

For Hessians these differentiate the gradient, beside ``torch.func.hessian`` and that of
``torch.autograd.functional``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..problems.in_torch import Func

Dense = Callable[[Func, Tensor], Tensor]
# All products at once hold several copies of the matrix: not above this many bytes of it.
AT_ONCE = 2**27


def variants(nbytes: int, matrix: str = "jacobian") -> dict[str, Dense]:
    """Name and function of every way to compute a dense matrix of ``nbytes``."""
    ways = _jacobians(nbytes)
    if matrix == "jacobian":
        return ways
    ways = {name: _of_gradient(way) for name, way in ways.items()}
    return ways if nbytes > AT_ONCE else ways | {"hessian": _hessian, "functional": _functional}


def _jacobians(nbytes: int) -> dict[str, Dense]:
    chunks: tuple[int | None, ...] = (256, 32) if nbytes > AT_ONCE else (None, 256, 32)
    ways: dict[str, Dense] = {}
    for chunk in chunks:
        ways[f"jacrev{_told(chunk)}"] = _jacrev(chunk)
        if chunk != 32:
            ways[f"jacfwd{_told(chunk)}"] = _jacfwd(chunk)
    return ways


def _of_gradient(way: Dense) -> Dense:
    return lambda func, x: way(torch.func.grad(func), x)


def _hessian(func: Func, x: Tensor) -> Tensor:
    found: Tensor = torch.func.hessian(func)(x)
    return found.reshape(x.numel(), x.numel())


def _functional(func: Func, x: Tensor) -> Tensor:
    found = torch.autograd.functional.hessian(func, x, vectorize=True)
    assert isinstance(found, Tensor)
    return found.reshape(x.numel(), x.numel())


def _told(chunk: int | None) -> str:
    return "" if chunk is None else f" by {chunk}"


def _jacrev(chunk: int | None) -> Dense:
    def whole(func: Func, x: Tensor) -> Tensor:
        found: Tensor = torch.func.jacrev(func, chunk_size=chunk)(x)
        return found.reshape(-1, x.numel())

    return whole


def _jacfwd(chunk: int | None) -> Dense:
    """``torch.func.jacfwd`` has no ``chunk_size``: with one, JVPs under ``vmap``."""

    def whole(func: Func, x: Tensor) -> Tensor:
        found: Tensor = torch.func.jacfwd(func)(x)
        return found.reshape(-1, x.numel())

    def in_chunks(func: Func, x: Tensor) -> Tensor:
        def column(tangent: Tensor) -> Tensor:
            pushed: Tensor = torch.func.jvp(func, (x,), (tangent,))[1]
            return pushed

        assert chunk is not None
        n = x.numel()
        pieces = []
        for start in range(0, n, chunk):
            tangents = x.new_zeros(min(chunk, n - start), n)
            tangents.diagonal(start).fill_(1)
            pieces.append(torch.func.vmap(column)(tangents.view(-1, *x.shape)).flatten(1))
        return torch.cat(pieces).T

    return whole if chunk is None else in_chunks
