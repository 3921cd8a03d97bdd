"""Fourier transforms: dense along their dims."""

from __future__ import annotations

import pytest
import torch

from .harness import check


@pytest.mark.parametrize("dims", [(0,), (-1,), (0, 1), (1, -1), (0, 1, 2)])
def test_dense_along_its_dims(dims: tuple[int, ...]) -> None:
    def f(t: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.fft.fftn(t, dim=dims))

    real = torch.zeros(2, 3, 2, dtype=torch.float64)
    for like in (real, real.to(torch.complex128)):
        found = check(f, [like], exact=False)
        along = 1
        for d in dims:
            along *= real.shape[d]
        assert (found.matrix.sum(1) == along).all()


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("onesided", [False, True])
def test_real_ends(size: int, onesided: bool) -> None:
    half = torch.zeros(2, size // 2 + 1, dtype=torch.complex128)
    back = check(lambda v: torch.ops.aten._fft_c2r(v, [1], 0, size), [half], exact=False)
    assert back.matrix.sum() == 2 * size * half.shape[1]
    there = check(lambda v: torch.ops.aten._fft_r2c(v, [1], 0, onesided), [(2, size)], exact=False)
    assert (there.matrix.sum(1) == size).all()
