"""Softmax and its kin: dense along one dim."""

from __future__ import annotations

import pytest
import torch

from .harness import check

A = torch.ops.aten


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (4,), (1, 3), (0, 3)])
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("name", ["_softmax", "_log_softmax"])
def test_dense_along_its_dim(name: str, dim: int, shape: tuple[int, ...]) -> None:
    backward = getattr(A, f"{name}_backward_data")

    def g(v, x):
        return backward(v, getattr(A, name)(x, dim, False), dim, torch.float64)

    # Over a single place both give a zero that the rule leaves out of account.
    check(g, [shape], normal(shape), exact=shape[dim] != 1)


@pytest.mark.parametrize("name", ["_softmax", "_log_softmax"])
def test_of_a_number_there_is_nothing_but_itself(name: str) -> None:
    backward = getattr(A, f"{name}_backward_data")
    check(lambda v, y: backward(v, y, -1, torch.float64), [()], normal(()))


@pytest.mark.parametrize("dim", [0, 1, None])
def test_masked(dim: int | None) -> None:
    def g(v, x, mask):
        return A._masked_softmax_backward(v, x.softmax(-1 if dim is None else dim), mask > 0.5, dim)

    check(
        g,
        [(2, 3)],
        lambda: [torch.randn(2, 3).double(), torch.rand(2, 3)],
        draws=30,
    )
