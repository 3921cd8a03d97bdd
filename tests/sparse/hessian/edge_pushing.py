"""The two families of the edge-pushing papers, with the patterns that their sums have.

As SparseConnectivityTracer.jl measures them (``benchmark/hessian.jl``, commit 140a018f8163), after
R. Gower and M. Mello, "A new framework for the computation of Hessians", Optim. Methods Softw. 27,
2012; indices start at 0 here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .functions import Bools, Func
from .masks import squares_of


def arrow_head(width: int) -> Func:
    """Σ_i cos(x_{i+1} + ... + x_{i+K}) + Σ_{j<K} (x_i + x_j)²."""

    def func(x: Tensor) -> Tensor:
        after = torch.nn.functional.pad(x[1:], (0, width)).unfold(0, width, 1)
        return torch.cos(after.sum(1)).sum() + ((x[:, None] + x[:width]) ** 2).sum()

    return func


def arrow_head_by_elements(width: int) -> Func:
    """The same, an element at a time."""

    def func(x: Tensor) -> Tensor:
        elements = x.unbind()
        total = x.new_zeros(())
        for i, here in enumerate(elements):
            total = total + torch.cos(sum(elements[i + 1 : i + 1 + width], x.new_zeros(())))
            for j in range(width):
                total = total + (here + elements[j]) ** 2
        return total

    return func


def of_arrow_head(n: int, width: int) -> Bools:
    windows = [range(i + 1, min(i + 1 + width, n)) for i in range(n)]
    pairs = [(i, j) for i in range(n) for j in range(width)]
    return squares_of(n, [*windows, *pairs])


def random_sets(n: int, size: int) -> Tensor:
    """With repetitions, as the benchmark draws them."""
    return torch.from_numpy(np.random.default_rng(123).integers(n, size=(n, size)))


def random_sparsity(n: int, size: int) -> Func:
    """Σ_i (x_i - 1)² + the product of x over the i-th set."""
    sets = random_sets(n, size)
    return lambda x: ((x - 1) ** 2).sum() + x[sets].prod(1).sum()


def of_random_sparsity(n: int, size: int) -> Bools:
    return squares_of(n, [*random_sets(n, size).tolist(), *([i] for i in range(n))])
