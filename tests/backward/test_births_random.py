"""Births at places that were planted: random shapes, random entries, several dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.backward.birth import Proof
from pullback.backward.operations import OPERATIONS

Unary = Callable[[Tensor], Tensor]

# Each with the operand at which its derivative is infinite. Between 0.1 and 0.9, plus the shift,
# it exists.
SINGULAR: dict[str, tuple[Unary, float, float]] = {
    "SqrtBackward0": (torch.sqrt, 0.0, 0.0),
    "RsqrtBackward0": (torch.rsqrt, 0.0, 0.0),
    "LogBackward0": (torch.log, 0.0, 0.0),
    "Log2Backward0": (torch.log2, 0.0, 0.0),
    "Log10Backward0": (torch.log10, 0.0, 0.0),
    "Log1PBackward0": (torch.log1p, -1.0, 0.0),
    "ReciprocalBackward0": (torch.reciprocal, 0.0, 0.0),
    "PowBackward0": (lambda x: x**0.25, 0.0, 0.0),
    "AcosBackward0": (torch.acos, 1.0, 0.0),
    "AsinBackward0": (torch.asin, -1.0, 0.0),
    "AcoshBackward0": (torch.acosh, 1.0, 1.0),
    "AtanhBackward0": (torch.atanh, 1.0, 0.0),
    "ErfinvBackward0": (torch.erfinv, -1.0, 0.0),
    "LogitBackward0": (torch.logit, 1.0, 0.0),
    "SpecialEntrBackward0": (torch.special.entr, 0.0, 0.0),
}


def planted(seed: int, dtype: torch.dtype, value: float, shift: float) -> tuple[Tensor, Tensor]:
    """Entries where all is well, and where not: the second tensor says where."""
    generator = torch.Generator().manual_seed(seed)
    rank = int(torch.randint(1, 4, (), generator=generator))
    shape = tuple(torch.randint(1, 5, (rank,), generator=generator).tolist())
    bad = torch.rand(shape, generator=generator) < 0.3
    bad.view(-1)[int(torch.randint(bad.numel(), (), generator=generator))] = True
    x = 0.1 + 0.8 * torch.rand(shape, generator=generator) + shift
    return torch.where(bad, value, x).to(dtype).requires_grad_(), bad


def first_of(bad: Tensor) -> tuple[int, ...]:
    return tuple(bad.nonzero()[0].tolist())


def run_rewrite(proof: Proof, x: Tensor) -> Tensor:
    """The text of the proof, evaluated by hand on the leaf itself."""
    scope = {"torch": torch, "a": x, "eps": None, "exponent": 0.25}
    result = eval(proof.rewrite, scope)
    assert isinstance(result, Tensor)
    return result


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("node", sorted(SINGULAR))
def test_masked_singular_entries(node: str, dtype: torch.dtype) -> None:
    """Under where: the first planted entry, all of them counted, each mended."""
    function, value, shift = SINGULAR[node]
    for seed in range(4):
        x, bad = planted(seed, dtype, value, shift)
        out = torch.where(bad, 0, function(x))
        v = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(dtype) + 0.5
        birth = pb.find_nonfinite(out, v)
        assert birth is not None
        assert (birth.code, birth.node) == ("zero_times_infinity", node)
        assert (birth.element, birth.count) == (first_of(bad), int(bad.sum()))
        assert birth.upstream == 0
        assert birth.derivative is not None
        assert math.isinf(birth.derivative)
        assert birth.operands
        assert birth.proof is not None
        assert birth.proof.holds
        assert birth.proof.before == int(bad.sum())
        (mended,) = torch.autograd.grad(torch.where(bad, 0, run_rewrite(birth.proof, x)), x, v)
        good = ~bad
        expected = torch.zeros_like(x)
        inner = x.detach()[good].requires_grad_()
        expected[good] = torch.autograd.grad(function(inner), inner, v[good])[0]
        assert torch.equal(mended, expected)


@pytest.mark.parametrize(
    "node", ["SqrtBackward0", "AcosBackward0", "AsinBackward0", "PowBackward0"]
)
def test_infinite_derivatives_whose_value_is_finite(node: str) -> None:
    function, value, shift = SINGULAR[node]
    for seed in range(6):
        x, bad = planted(seed, torch.float64, value, shift)
        birth = pb.find_nonfinite(function(x), torch.full_like(x, 3.0))
        assert birth is not None
        assert (birth.code, birth.kind) == ("infinite_derivative", "inf")
        assert (birth.element, birth.upstream) == (first_of(bad), 3.0)
        assert birth.proof is not None
        assert birth.proof.holds


@pytest.mark.parametrize("seed", range(8))
def test_a_broadcast_divisor(seed: int) -> None:
    """The contribution to the divisor is a sum; the entry shown is one that enters it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 1, 4, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.rand(2, 1, generator=generator, dtype=torch.float64) + 0.5
    y[seed % 2, 0] = 0.0
    y.requires_grad_()
    out = torch.where(y != 0, x / y, 0)
    birth = pb.find_nonfinite(out, torch.ones_like(out))
    assert birth is not None
    assert (birth.node, birth.position, birth.element) == ("DivBackward0", 0, (0, 0, 0))
    alone = pb.find_nonfinite(out, torch.ones_like(out), inputs={"y": y})  # x is not asked for
    assert alone is not None
    assert (alone.position, alone.element) == (1, (seed % 2, 0))
    assert alone.operands == {"other": 0.0, "self": float(x.detach()[0, 0, 0])}
    assert alone.proof is not None
    assert alone.proof.holds


def test_every_guard_of_a_function_of_one_operand_is_planted() -> None:
    unary = {
        n for n, o in OPERATIONS.items() if o.guards and set(o.operands) == {"a"} and not o.along
    }
    assert unary - set(SINGULAR) == {"ExpBackward0", "Expm1Backward0"}  # these overflow
