"""Rules 5, 6 and 8 from outside: no entry is missed where shapes or numbers would mislead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import pullback as pb

from .reference import CSR, assert_right, matrix_of

image = torch.arange(16.0, dtype=torch.float64).sin().reshape(1, 1, 4, 4)
mask = torch.tensor([True, False, True, True])

EQUAL_SHAPES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "average pool": (lambda x: F.avg_pool2d(x, 3, 1, 1) ** 2, image),
    "max pool": (lambda x: F.max_pool2d(x, 3, 1, 1) ** 2, image),
    "max pool of one row": (lambda x: F.max_pool2d(x, (1, 3), 1, (0, 1)), image),
    "masked_scatter": (lambda x: x.masked_scatter(mask, x.flip(0) ** 2), image[0, 0, 0]),
    "median filter": (lambda x: x.unfold(0, 3, 1).median(1).values ** 2, image.reshape(-1)),
    "softmax": (lambda x: x.softmax(1), image[0, 0]),
    "log_softmax of one column": (lambda x: x.log_softmax(0), image[0, 0, :, :1]),
    "cumsum": (lambda x: x.cumsum(0) ** 2, image[0, 0]),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), image[0, 0]),
    "sort": (lambda x: x.sort(1).values ** 2, image[0, 0]),
    "square product": (lambda x: (x @ x) ** 2, image[0, 0]),
    "layer norm": (lambda x: F.layer_norm(x, (4,)), image[0, 0]),
    "normalise": (lambda x: F.normalize(x, dim=0), image[0, 0]),
    "transposed add": (lambda x: x + x.T**2, image[0, 0]),
    "broadcast": (lambda x: x[:, :1] * x[:1] + x, image[0, 0]),
    "sizes of one": (lambda x: (x[:1] * x[:, :1]).expand(4, 4) * x, image[0, 0]),
    "convolution of equal size": (lambda x: F.conv2d(x, image[:, :, :3, :3], padding=1), image),
    "overlapping windows": (lambda x: x.unfold(0, 3, 1).sum(1) ** 2, image.reshape(-1)),
    "overlapping strides": (lambda x: x.as_strided((4, 3), (1, 1)).sin(), image.reshape(-1)),
    "fold": (
        lambda x: F.fold(F.unfold(x, 2) ** 2, (4, 4), 2),
        image,
    ),
    "repeated index": (lambda x: x[torch.tensor([0, 0, 1, 3])] ** 2, image[0, 0, 0]),
    "index from x": (lambda x: x[x.argsort()] * x, image[0, 0, 0]),
    "mean taken off": (lambda x: (x - x.mean()) ** 2, image[0, 0, 0]),
    "roll and flip": (lambda x: x.roll(1, 1).flip(0) * x, image[0, 0]),
    "triangle": (lambda x: x.tril() * x.T, image[0, 0]),
    "pad": (lambda x: F.pad(x, (1, 1), mode="reflect")[:, 1:5] * x, image[0, 0]),
    "diagonal": (lambda x: torch.diag_embed(x.diagonal()) * x.T, image[0, 0]),
}


@pytest.mark.parametrize(("func", "x"), EQUAL_SHAPES.values(), ids=EQUAL_SHAPES.keys())
def test_nothing_is_missed(func: Callable[[Tensor], Tensor], x: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    plan = pb.plan_jacobian(func, torch.zeros_like(x))
    jac = pb.jacobian(func, plan=plan)
    known = torch.zeros(plan.pattern.shape, dtype=torch.bool)
    known[plan.pattern.rows, plan.pattern.cols] = True
    for _ in range(3):
        point = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        expected = matrix_of(func, point)
        assert not (expected.ne(0) & ~known).any()
        assert_right(jac, func, point)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_numbers_of_elements_do_not_collide_in_narrow_dtypes(dtype: torch.dtype) -> None:
    """A half counts exactly to 2048 only, and bfloat16 to 256."""
    n = 5000

    def func(x: Tensor) -> Tensor:
        return x.to(dtype).roll(1).double() * 2

    plan = pb.plan_jacobian(func, torch.rand(n))
    assert plan.pattern.nnz == n
    assert torch.equal(plan.pattern.cols, torch.arange(-1, n - 1) % n)
    J = pb.jacobian(func, layout=CSR)(torch.rand(n))
    assert torch.equal(J.values(), torch.full((n,), 2.0))
