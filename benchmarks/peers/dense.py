"""Dense Jacobians by ``torch.func``, a chunk of products at a time, as (m, n) matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from .in_torch import Func

CHUNK = 256


def jacrev(func: Func, x: Tensor) -> Tensor:
    found: Tensor = torch.func.jacrev(func, chunk_size=CHUNK)(x)
    return found.reshape(-1, x.numel())


def jacfwd(func: Func, x: Tensor) -> Tensor:
    """``torch.func.jacfwd``, which has no ``chunk_size``, in chunks: JVPs under ``vmap``."""

    def column(tangent: Tensor) -> Tensor:
        pushed: Tensor = torch.func.jvp(func, (x,), (tangent,))[1]
        return pushed

    n = x.numel()
    pieces = []
    for start in range(0, n, CHUNK):
        tangents = x.new_zeros(min(CHUNK, n - start), n)
        tangents.diagonal(start).fill_(1)
        pieces.append(torch.func.vmap(column)(tangents.view(-1, *x.shape)).flatten(1))
    return torch.cat(pieces).T
