"""Differences and their bounds: honest about rounding, truncation, noise, kinks and jumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pullback._differences import Slope, slope
from pullback._mistakes import Compared, likely_mistake

DOUBLE = torch.float64
EPS = torch.finfo(DOUBLE).eps
X = torch.linspace(-2, 2, 41, dtype=DOUBLE) + 0.013


def along_ones(func: Callable[[Tensor], Tensor], x: Tensor, reach: float = 2.0) -> Slope:
    return slope(lambda h: (func(x + h),), reach, torch.finfo(x.dtype).eps)


SMOOTH = {
    "sin": (torch.sin, torch.cos),
    "exp": (torch.exp, torch.exp),
    "cubic": (lambda x: x**3, lambda x: 3 * x**2),
    "constant": (lambda x: torch.full_like(x, 3.7), torch.zeros_like),
    "linear": (lambda x: 1e6 * x, lambda x: torch.full_like(x, 1e6)),
    "steep": (lambda x: torch.sin(50 * x), lambda x: 50 * torch.cos(50 * x)),
    "offset": (lambda x: x.sin() + 1e8, torch.cos),
    "cancelling": (lambda x: (x.sin() + 1e7) - 1e7, torch.cos),
    "pole": (lambda x: 1 / (x - 3), lambda x: -1 / (x - 3) ** 2),
    "tiny": (lambda x: 1e-9 * x.exp(), lambda x: 1e-9 * x.exp()),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("reach", [0.1, 2.0, 30.0])
def test_errors_are_bounds(name: str, reach: float) -> None:
    func, derivative = SMOOTH[name]
    found = along_ones(func, X, reach)
    off = (found.values[0] - derivative(X)).abs()
    assert bool((off <= 10 * found.errors[0] + 1e-300).all())
    # Noise may pass for a jump now and then.
    assert name == "cancelling" or not bool(found.rough[0].any())


@pytest.mark.parametrize("name", ["sin", "exp", "cubic", "linear"])
def test_errors_are_small_where_nothing_is_in_the_way(name: str) -> None:
    func, derivative = SMOOTH[name]
    found = along_ones(func, X)
    assert float(found.errors[0].amax()) < 1e-7 * float(derivative(X).abs().amax())


def test_steps_may_leave_the_domain() -> None:
    x = torch.tensor([1e-4, 1.0], dtype=DOUBLE)
    found = along_ones(torch.log, x)
    off = (found.values[0] - 1 / x).abs()
    assert bool((off <= 10 * found.errors[0]).all())
    assert float(off[0]) < 1e-2


def test_noise_is_seen() -> None:
    made = torch.Generator().manual_seed(0)
    noisy = lambda x: x.sin() + 1e-9 * torch.randn(x.shape, generator=made, dtype=DOUBLE)  # noqa: E731
    off = []
    for _ in range(20):
        found = along_ones(noisy, X)
        off.append((found.values[0] - X.cos()).abs() / found.errors[0])
    assert float(torch.stack(off).max()) < 10


def test_kinks_and_jumps_are_rough() -> None:
    x = torch.tensor([0.0, 0.5], dtype=DOUBLE)
    for func in (
        torch.abs,
        torch.relu,
        torch.sign,
        lambda x: (x > 0) * 1.0,
        lambda x: x.abs().sqrt(),
    ):
        assert bool(along_ones(func, x).rough[0][0])
        assert not bool(along_ones(func, x).rough[0][1])


def test_a_kink_near_by_is_no_kink_here() -> None:
    x = torch.tensor([1e-4], dtype=DOUBLE)
    found = along_ones(torch.relu, x, 1.0)
    assert abs(float(found.values[0]) - 1) <= 10 * float(found.errors[0]) + 1e-9
    assert float(found.errors[0]) < 1e-6


def test_what_rounds_to_coarse_numbers_is_not_flat() -> None:
    found = along_ones(lambda x: x.half().double(), torch.tensor([1.0], dtype=DOUBLE), 1.0)
    assert float(found.errors[0]) == float("inf")


def truth(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


def told(found: Tensor, right: Tensor, **options: object) -> str:
    return likely_mistake(Compared(found, right, torch.full_like(right, 1e-9)), **options)  # type: ignore[arg-type]


def test_mistakes_have_names() -> None:
    J = truth(3, 3)
    assert told(-J, J) == "The sign is flipped"
    assert told(2 * J, J) == "Every entry is 2 times what it should be"
    assert told(J / 2, J) == "A factor of 2 is missing"
    assert told(J / 3, J, sizes=(3,)).startswith("Every entry is 1/3 of what it should be: a mean")
    assert told(J.T, J).startswith("It is the transpose")
    assert told(0 * J, J).startswith("Every entry is zero")
    s = torch.tensor([[0.5, 2.0, 3.0]], dtype=DOUBLE)
    assert told(J / s, J, values=[("`s`", s)]) == "A factor of `s` is missing"
    assert told(J * s, J, values=[("`s`", s)]) == "There is a factor of `s` too many"
    assert told(J * torch.tensor([1.0, 0, 1]), J).startswith("What comes from 1 of the 3 elements")
    conj = truth(4, 2)
    turned = conj * torch.tensor([1.0, -1], dtype=DOUBLE)
    assert told(turned, conj, pairs=(False, True)).startswith("It is the conjugate")


def test_other_differences_have_none() -> None:
    J = truth(3, 3)
    assert told(truth(9).reshape(3, 3).cos(), J) == ""
    one = J.clone()
    one[1, 1] += 0.1
    assert told(one, J) == ""
    assert likely_mistake(Compared(-J, J, torch.full_like(J, float("inf")))) == ""
