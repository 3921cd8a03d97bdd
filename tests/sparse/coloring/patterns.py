"""Patterns to color, each built from its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from hypothesis import strategies as st

from pullback.sparse.pattern import SparsityPattern

Mask = npt.NDArray[np.bool_]


def pattern_of(matrix: object) -> SparsityPattern:
    return SparsityPattern.from_scipy(matrix)


def band(n: int, half: int) -> SparsityPattern:
    offsets = range(-half, half + 1)
    return pattern_of(sp.diags_array([np.ones(n - abs(k)) for k in offsets], offsets=list(offsets)))


def arrow(n: int) -> Mask:
    mask = np.eye(n, dtype=bool)
    mask[0] = mask[:, 0] = True
    return mask


def ring(n: int) -> sp.csr_array:
    i = np.arange(n)
    return sp.csr_array((np.ones(2 * n), (np.r_[i, i], np.r_[(i + 1) % n, (i - 1) % n])))


def brusselator(n: int) -> SparsityPattern:
    """Two species on a periodic n x n grid: 5-point Laplacian of each, coupled at each point."""
    eye = sp.eye_array(n)
    laplacian = sp.kron(ring(n), eye) + sp.kron(eye, ring(n))
    coupled = sp.kron(np.eye(2), laplacian) + sp.kron(np.ones((2, 2)), sp.eye_array(n * n))
    return pattern_of(sp.csr_array(coupled))


def conv(size: int, kernel: int, inputs: int, outputs: int) -> SparsityPattern:
    """A convolution without padding: each output reads a window of every input channel."""
    small = size - kernel + 1
    o, i, j, c, a, b = np.indices((outputs, small, small, inputs, kernel, kernel)).reshape(6, -1)
    shape = (outputs * small**2, inputs * size**2)
    rows, cols = (o * small + i) * small + j, (c * size + i + a) * size + j + b
    return pattern_of(sp.csr_array((np.ones(len(rows)), (rows, cols)), shape=shape))


def differences(n: int, k: int) -> SparsityPattern:
    """The k-th difference of n numbers: row i meets the columns i to i + k."""
    return pattern_of(
        sp.diags_array([np.ones(n - k)] * (k + 1), offsets=list(range(k + 1)), shape=(n - k, n))
    )


def random_mask(m: int, n: int, density: float, seed: int) -> Mask:
    return np.random.default_rng(seed).random((m, n)) < density


def mirrored(mask: Mask, diagonal: float, seed: int) -> Mask:
    both = mask | mask.T
    keep = np.random.default_rng(seed).random(len(both)) < diagonal
    np.fill_diagonal(both, np.diag(both) & keep)
    return both


def blocks(*shapes: tuple[int, int]) -> SparsityPattern:
    return pattern_of(sp.csr_array(sp.block_diag([np.ones(shape) for shape in shapes])))


ANY: dict[str, Callable[[], SparsityPattern]] = {
    "no rows": lambda: pattern_of(np.zeros((0, 4), bool)),
    "no columns": lambda: pattern_of(np.zeros((4, 0), bool)),
    "nothing": lambda: pattern_of(np.zeros((0, 0), bool)),
    "no entries": lambda: pattern_of(np.zeros((3, 4), bool)),
    "one entry": lambda: pattern_of(np.ones((1, 1), bool)),
    "one row": lambda: pattern_of(np.array([[1, 0, 1, 1, 0]], bool)),
    "one column": lambda: pattern_of(np.array([[1], [0], [1]], bool)),
    "full": lambda: SparsityPattern.full((4, 6)),
    "band": lambda: band(30, 2),
    "arrow": lambda: pattern_of(arrow(12)),
    "brusselator": lambda: brusselator(6),
    "convolution": lambda: conv(5, 3, 2, 1),
    "differences": lambda: differences(10, 3),
    "equal blocks": lambda: blocks((3, 2), (3, 2), (3, 2)),
    "unequal blocks": lambda: blocks((1, 4), (4, 1), (2, 2), (5, 3)),
    "long rows and columns": lambda: crossed(20, 30, 2),
    "random": lambda: pattern_of(random_mask(25, 40, 0.1, 0)),
    "random, dense": lambda: pattern_of(random_mask(12, 9, 0.6, 1)),
}
SYMMETRIC: dict[str, Callable[[], SparsityPattern]] = {
    "nothing": lambda: pattern_of(np.zeros((0, 0), bool)),
    "no entries": lambda: pattern_of(np.zeros((4, 4), bool)),
    "one entry": lambda: pattern_of(np.ones((1, 1), bool)),
    "diagonal": lambda: pattern_of(np.eye(5, dtype=bool)),
    "exchange": lambda: pattern_of(np.eye(6, dtype=bool)[::-1]),
    "full": lambda: SparsityPattern.full((5, 5)),
    "band": lambda: band(30, 2),
    "arrow": lambda: pattern_of(arrow(12)),
    "ring": lambda: pattern_of(ring(7)),
    "brusselator": lambda: brusselator(6),
    "blocks": lambda: blocks((3, 3), (2, 2), (1, 1)),
    "random": lambda: pattern_of(mirrored(random_mask(40, 40, 0.05, 2), 1.0, 3)),
    "random, half a diagonal": lambda: pattern_of(mirrored(random_mask(30, 30, 0.1, 4), 0.5, 5)),
    "random, no diagonal": lambda: pattern_of(mirrored(random_mask(20, 20, 0.3, 6), 0.0, 7)),
}


def crossed(m: int, n: int, k: int) -> SparsityPattern:
    mask = np.zeros((m, n), dtype=bool)
    mask[:k] = mask[:, :k] = True
    return pattern_of(mask)


@st.composite
def any_mask(draw: st.DrawFn) -> Mask:
    m, n = draw(st.integers(0, 14)), draw(st.integers(0, 14))
    return random_mask(
        m, n, draw(st.sampled_from([0.05, 0.15, 0.4, 0.9])), draw(st.integers(0, 999))
    )


@st.composite
def symmetric_mask(draw: st.DrawFn) -> Mask:
    n, seed = draw(st.integers(0, 16)), draw(st.integers(0, 999))
    density = draw(st.sampled_from([0.03, 0.1, 0.3, 0.8]))
    mask = random_mask(n, n, density, seed) | np.eye(n, dtype=bool)
    return mirrored(mask, draw(st.sampled_from([0.0, 0.5, 1.0])), seed)
