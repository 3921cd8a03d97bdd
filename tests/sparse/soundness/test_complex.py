"""Rule 7: complex elements are pairs of reals, (re, im)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import pullback as pb

from .reference import assert_right, assert_right_everywhere, matrix_of


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128)


CASES: dict[str, tuple[Callable[[Tensor], Any], Callable[[], Tensor]]] = {
    "square": (lambda z: z * z, lambda: numbers(3)),
    "conj(z) z": (lambda z: z.conj() * z, lambda: numbers(3)),
    "abs": (lambda z: z.abs(), lambda: numbers(3)),
    "angle": (lambda z: z.angle(), lambda: numbers(3)),
    "real to complex": (lambda r: r * (1 + 2j), lambda: torch.rand(3)),
    "rfft": (torch.fft.rfft, lambda: torch.rand(4)),
    "fft and back": (lambda r: torch.fft.ifft(torch.fft.fft(r) ** 2).real, lambda: torch.rand(4)),
    "conjugate view in": (lambda z: z * 2j, lambda: numbers(3).conj()),
    "negative view in": (lambda r: r * r, lambda: numbers(3).conj().imag),
    "as pairs": (lambda z: torch.view_as_real(z) ** 2, lambda: numbers(3)),
    "from pairs": (lambda r: torch.view_as_complex(r) ** 2, lambda: torch.rand(3, 2)),
    "outer": (lambda z: z.reshape(3, 1) @ z.reshape(1, 3), lambda: numbers(3)),
    "real and complex outputs": (lambda z: (z.real, z * z, z.imag[:1]), lambda: numbers(3)),
    "expanded": (lambda z: z * z, lambda: numbers(1).expand(3)),
    "transposed": (lambda z: z * z.conj(), lambda: numbers(2, 3).T),
    "every other": (lambda z: z * z.roll(1), lambda: numbers(8)[1::2]),
    "polar": (lambda r: torch.polar(r, 2 * r), lambda: torch.rand(3)),
    "in place": (lambda z: z.clone().mul_(z), lambda: numbers(3)),
    "write to the real part": (
        lambda z: torch.view_as_complex(torch.view_as_real(z).clone().mul_(2)) * z,
        lambda: numbers(3),
    ),
    "solve": (lambda z: torch.linalg.solve(torch.diag(z + 3) + 0.1j, z), lambda: numbers(3)),
    "scalar": (lambda z: z**2, lambda: numbers()),
}


@pytest.mark.parametrize(("func", "make"), CASES.values(), ids=CASES.keys())
def test_a_complex_program(func: Callable[[Tensor], Any], make: Callable[[], Tensor]) -> None:
    z = make()
    assert_right_everywhere(func, z)
    blocks = pytree.tree_leaves(pb.jacobian(func)(z))
    width = z.numel() * (2 if z.is_complex() else 1)
    found = torch.cat([block.reshape(-1, width) for block in blocks])
    assert_close(found.detach(), matrix_of(func, z))


def test_the_matrix_of_a_holomorphic_function_is_2_by_2_rotations() -> None:
    J = pb.jacobian(lambda z: z**2)(torch.tensor([3 + 4j]))
    assert_close(J.reshape(2, 2), torch.tensor([[6.0, -8.0], [8.0, 6.0]]))
    J = pb.jacobian(lambda z: z.conj())(torch.tensor([3 + 4j]))
    assert_close(J.reshape(2, 2), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))


def test_single_precision() -> None:
    z = numbers(3).to(torch.complex64)
    assert_right_everywhere(lambda z: z * z.conj() * z.roll(1), z, close=1e-5)


def test_forward_mode() -> None:
    z = numbers(3)

    def func(z: Tensor) -> Tensor:
        return torch.cat([z.conj() * z * z, z])

    for mode in ("fwd", "rev", "mixed", "dense"):
        assert_right(pb.jacobian(func, plan=pb.plan_jacobian(func, z, mode=mode)), func, z)


def test_several_inputs_of_both_kinds() -> None:
    assert_right_everywhere(
        lambda a, z, b: (a * z, b * a), torch.rand(3), numbers(3), torch.rand(3), argnums=(1, 0)
    )
