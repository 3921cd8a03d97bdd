"""Rule 9: masks and other shapes that depend on x, at points where they differ in size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pullback as pb

from .reference import CSR, assert_right

POINTS = [
    [1.0, -1, 2, -2], [1.0, 1, 1, 1], [-1.0, -1, -1, -1], [1.0, -1, 1, -1], [-1.0, 2, -3, -4],
    [0.0, 0, 1, 2], [3.0, 2, 1, 0],
]  # fmt: skip


def squared_where_positive(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = x[x > 0] ** 2
    return y * 2


def zeroed(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = 0.0
    return y * x


def scaled_in_place(x: Tensor) -> Tensor:
    y = x * 1
    y[x > 0] *= 3
    return y * x


def by_unique(x: Tensor) -> Tensor:
    _, places = torch.unique(x.detach().round(), return_inverse=True)
    return torch.zeros(4).index_add(0, places, x**2)


def in_buckets(x: Tensor) -> Tensor:
    return torch.zeros(4).index_add(0, x.detach().abs().clamp(max=3).long(), x**2)


PROGRAMS: dict[str, Callable[[Tensor], Tensor]] = {
    "get and set": squared_where_positive,
    "fill": zeroed,
    "scale": scaled_in_place,
    "sum": lambda x: (x[x > 0] ** 2).sum()[None] * x,
    "unique": by_unique,
    "buckets": in_buckets,
    "masked_scatter": lambda x: torch.zeros(4).masked_scatter(x > 0, x**2),
    "masked_fill": lambda x: x.masked_fill(x > 0, 2.0) * x,
    "where": lambda x: torch.where(x > 0, x**2, x.flip(0)),
    "where of one": lambda x: torch.zeros(4).index_put(torch.where(x > 0), x[x > 0] ** 3),
    "repeat_interleave": lambda x: (
        torch.repeat_interleave(x, (x.detach() > 0).long() + 1, output_size=None).sin().sum()[None]
        * x
    ),
    "padded": lambda x: torch.nn.functional.pad(x[x > 0] ** 2, (0, 4))[:4],
    "mask of rows": lambda x: x.view(2, 2)[x.view(2, 2).sum(1) > 0].sum(0) ** 2,
}


@pytest.mark.parametrize("func", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_one_plan_at_points_with_other_masks(func: Callable[[Tensor], Tensor]) -> None:
    for first in (POINTS[0], POINTS[2]):
        own = pb.jacobian(func, layout=CSR)
        given = pb.jacobian(func, plan=pb.plan_jacobian(func, torch.tensor(first)))
        for k, point in enumerate(POINTS):
            with torch.set_grad_enabled(k < 4):
                assert_right(own, func, torch.tensor(point))
                assert_right(given, func, torch.tensor(point))


CHANGING: dict[str, Callable[[Tensor], Tensor]] = {
    "mask": lambda x: x[x > 0] ** 2,
    "nonzero": lambda x: x[x.nonzero().squeeze(1)] ** 2,
    "masked_select": lambda x: torch.masked_select(x * x.roll(1), x > 0),
    "unique": lambda x: torch.unique(x.detach()) * x.sum(),
    "slice": lambda x: x[: int((x > 0).sum())] ** 2,
    "split": lambda x: torch.split(x**2, [int((x > 0).sum()), 4 - int((x > 0).sum())])[0],
}


@pytest.mark.parametrize("name", CHANGING)
def test_outputs_of_another_length(name: str) -> None:
    func = CHANGING[name]
    own = pb.jacobian(func, layout=CSR)
    given = pb.jacobian(func, plan=pb.plan_jacobian(func, torch.tensor(POINTS[0])))
    for point in POINTS:
        assert_right(own, func, torch.tensor(point))
        assert_right(given, func, torch.tensor(point))


def test_indices_that_follow_from_x_stand_for_every_value() -> None:
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.topk(2).values ** 2,
        lambda x: x.view(2, 2).max(1).values ** 2,
        lambda x: x.median() ** 2,
        lambda x: x.kthvalue(2).values,
        lambda x: x.cummax(0).values ** 2,
        lambda x: torch.nn.functional.max_pool1d(x.view(1, 4), 2, 1) ** 2,
        lambda x: x.gather(0, x.argsort()) ** 2,
        lambda x: x.sort().values[:2] * x[2:],
        lambda x: x.amax() * x,
        lambda x: x[x.argmax()] * x,
        lambda x: torch.stack(torch.aminmax(x)),
        lambda x: torch.zeros(4).scatter(0, x.argsort(), x**2),
        lambda x: x[torch.searchsorted(torch.tensor([0.6, 0.8, 1.0]), x.detach())] ** 2,
        lambda x: torch.take_along_dim(x, x.argsort()),
        lambda x: torch.nn.functional.grid_sample(
            torch.arange(9.0).view(1, 1, 3, 3) * x.sum(), (x - 0.5).view(1, 1, 2, 2),
            align_corners=True,
        ),
    ]  # fmt: skip
    sample = torch.tensor([0.1, 0.4, 0.7, 0.95])
    for func in functions:
        own = pb.jacobian(func, layout=CSR)
        given = pb.jacobian(func, plan=pb.plan_jacobian(func, sample))
        for x in (sample, sample.flip(0), sample.roll(1), sample[torch.tensor([2, 0, 3, 1])]):
            assert_right(own, func, x.clone())
            assert_right(given, func, x.clone())
