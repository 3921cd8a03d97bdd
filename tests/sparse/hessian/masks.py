"""An objective with its exact pattern, and the patterns that recur."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .functions import Bools


class Objective(NamedTuple):
    func: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    pattern: Bools


def diagonal(n: int) -> Bools:
    return np.eye(n, dtype=bool)


def full(n: int) -> Bools:
    return np.ones((n, n), dtype=bool)


def nothing(n: int) -> Bools:
    return np.zeros((n, n), dtype=bool)


def blocks(count: int, size: int) -> Bools:
    """A dense square per sample."""
    return np.kron(diagonal(count), full(size))


def planes(count: int, size: int) -> Bools:
    """Entries of the same place of ``count`` samples with each other."""
    return np.kron(full(count), diagonal(size))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=_seeded(seed)) + 0.1


def squares_of(n: int, terms: Iterable[Iterable[int]]) -> Bools:
    """Every two of the variables of each term."""
    found = np.zeros((n, n), dtype=bool)
    for term in terms:
        places = list(term)
        found[np.ix_(places, places)] = True
    return found
