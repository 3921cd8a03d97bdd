"""The complex matrix of a holomorphic function, and the refusal of one that is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pullback as pb


def polynomial(z: Tensor) -> Tensor:
    return z * z.roll(1) + 2j * z**3


def derivative(z: Tensor) -> Tensor:
    """By hand: d/dz of z_i z_(i-1) + 2i z_i^3."""
    own = torch.diag(z.roll(1) + 6j * z**2)
    return own + torch.diag(z).roll(-1, 1)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.strided])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_it_is_the_derivative_by_hand(layout: torch.layout, dtype: torch.dtype) -> None:
    z = torch.randn(5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    found = pb.jacobian(polynomial, layout=layout, holomorphic=True)(z)
    dense = found if layout is torch.strided else found.to_dense()
    torch.testing.assert_close(dense, derivative(z))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.strided])
def test_a_small_entry_that_conjugates_is_refused(
    layout: torch.layout, scale: float, dtype: torch.dtype
) -> None:
    z = torch.randn(3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    jac = pb.jacobian(
        lambda a: torch.cat([a * scale, a.conj()[:1] * 5]), layout=layout, holomorphic=True
    )
    with pytest.raises(pb.ArgumentError, match=r"at entry \(3, 0\) its real derivatives break"):
        jac(z)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_complex_and_real_arguments_together(order: tuple[int, int]) -> None:
    def func(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a * b, a * b**2, (a**2).roll(1) * b, a.roll(1) * b, a.roll(2) * b])

    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, dtype=torch.complex128, generator=generator)
    b = torch.randn(5, dtype=torch.float64, generator=generator)
    found = pb.jacobian(func, argnums=order, layout=torch.sparse_csr)(a, b).to_dense()
    whole = pb.jacobian(func, argnums=order)(a, b)
    parts = [part.reshape(50, -1) for part in whole]
    torch.testing.assert_close(found, torch.cat(parts, dim=1))
