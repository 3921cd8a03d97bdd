"""Reads by index: followed where the index is fixed, any place where it may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .harness import check, linear_tensors, rule_of

aten = torch.ops.aten
F64 = torch.float64
STRIDED = torch.empty(4, 3, dtype=F64).t()


def ints(top: int, *shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    return lambda: [torch.randint(-top, top, shape) for shape in shapes]


def counts(top: int, *shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    return lambda: [torch.randint(top, shape) for shape in shapes]


READS: dict[str, tuple[Callable[..., Any], list[Any], Callable[[], list[Tensor]]]] = {
    "index_select": (lambda v, i: v.index_select(1, i), [(2, 3)], counts(3, (4,))),
    "index_select from the end": (lambda v, i: v.index_select(-1, i), [STRIDED], counts(4, (2,))),
    "index_select of a number": (lambda v, i: aten.index_select(v, 0, i), [()], counts(1, (1,))),
    "index_select at a number": (lambda v, i: v.index_select(0, i), [(3, 2)], counts(3, ())),
    "gather": (lambda v, i: v.gather(0, i), [(3, 2)], counts(3, (4, 2))),
    "gather of a corner": (lambda v, i: v.gather(1, i), [(3, 3)], counts(3, (2, 4))),
    "gather from the end": (lambda v, i: v.gather(-1, i), [(2, 2, 3)], counts(3, (2, 1, 2))),
    "gather of a number": (lambda v, i: v.gather(0, i), [()], counts(1, (2,))),
    "gather at a number": (lambda v, i: v.gather(0, i), [(3,)], counts(3, ())),
    "take": (lambda v, i: v.take(i), [(2, 3)], counts(6, (2, 2))),
    "index": (lambda v, i: v[i], [(3, 2)], ints(3, (2, 2))),
    "index of a later dim": (lambda v, i: v[:, i], [(2, 3)], ints(3, (4,))),
    "two indices": (lambda v, i, j: v[i, j], [(3, 3, 2)], ints(3, (4,), (4,))),
    "two that broadcast": (lambda v, i, j: v[i, j], [(3, 3)], ints(3, (2, 1), (3,))),
    "two apart": (lambda v, i, j: v[i, :, j], [(3, 2, 3)], ints(3, (4,), (4,))),
    "two apart, not first": (lambda v, i, j: v[:, i, :, j], [(2, 2, 2, 2)], ints(2, (3,), (3,))),
    "two in the middle": (lambda v, i, j: v[:, i, j], [(2, 2, 2, 2)], ints(2, (3, 1), (2,))),
    "number and list": (
        lambda v, i, j: aten.index(v, [i, None, j]),
        [(2, 2, 3)],
        ints(2, (), (2,)),
    ),
    "_unsafe_index": (lambda v, i: aten._unsafe_index(v, [None, i]), [(2, 3)], counts(3, (2,))),
}


@pytest.mark.parametrize("name", READS)
def test_a_varying_index_may_name_any_place(name: str) -> None:
    g, shapes, others = READS[name]
    check(g, shapes, others, draws=60)


@pytest.mark.parametrize("name", READS)
def test_a_fixed_index_is_followed(name: str) -> None:
    g, shapes, others = READS[name]
    torch.manual_seed(5)
    fixed = others()
    guarded = check(g, shapes, lambda: fixed, draws=1, guarded=range(len(fixed)))
    assert guarded.relied == {f"other{k}" for k in range(len(fixed))}
    assert check(lambda v: g(v, *fixed), shapes, draws=1).relied == set()


def test_one_index_of_two_that_varies_is_enough_to_read_any_place() -> None:
    found = check(
        lambda v, i, j: v[i, j],
        [(3, 3)],
        lambda: [torch.tensor([0, 1]), torch.randint(3, (2,))],
        exact=False,
        guarded=[0],
    )
    assert found.matrix.all()


def test_fixed_masks() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    check(lambda v: v[mask], [(2, 3)], draws=1)
    check(lambda v: v[mask], [(2, 3, 2)], draws=1)
    check(lambda v: v[:, mask.t()[:, 0]], [(2, 3)], draws=1)


def test_a_mask_that_varies_in_place_but_not_in_number() -> None:
    def shuffled() -> list[Tensor]:
        return [torch.randperm(6).reshape(2, 3) < 2]

    def g(v: Tensor, mask: Tensor) -> Tensor:
        return aten.index(v, [None, mask])

    check(g, [(2, 2, 3, 2)], shuffled, draws=40, exact=False)


@pytest.mark.parametrize("guarded", [[], [0], [1], [0, 1]])
def test_unsafe_masked_index(guarded: list[int]) -> None:
    torch.manual_seed(0)
    fixed = [torch.rand(2, 4) > 0.5, torch.randint(3, (4,))]

    def others() -> list[Tensor]:
        varied = [torch.rand(2, 4) > 0.5, torch.randint(3, (4,))]
        return [
            f if k in guarded else o for k, (f, o) in enumerate(zip(fixed, varied, strict=True))
        ]

    check(
        lambda v, m, i: aten._unsafe_masked_index(v, m, [None, i], 0),
        [(2, 3)],
        others,
        draws=60,
        guarded=guarded,
    )


@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (3,)])
def test_masked_scatter_backward(shape: tuple[int, ...]) -> None:
    mask = torch.tensor([True, False, True]).expand(shape)
    check(lambda v: aten.masked_scatter_backward(v, mask, [2, 3]), [(2, 3)], draws=1)
    check(
        lambda v, m: aten.masked_scatter_backward(v, m, [2, 3]),
        [(2, 3)],
        lambda: [torch.rand(shape) > 0.5],
        exact=False,
        draws=20,
    )


def test_an_index_by_the_data_of_an_argument_is_not_relied_on() -> None:
    index = torch.tensor([0, 0])
    loose = rule_of(lambda v, i: v[i], linear_tensors([(3,)]), [index])
    assert loose.matrix.all()
    assert not loose.relied
