"""Writes by index: followed where the index is fixed, any place where it may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .harness import check, linear_tensors, rule_of

aten = torch.ops.aten
F64 = torch.float64

Others = Callable[[], list[Tensor]]
Case = tuple[Callable[..., Any], list[Any], Others]


def counts(top: int, *shapes: tuple[int, ...]) -> Others:
    return lambda: [torch.randint(top, shape) for shape in shapes]


ADDED: dict[str, Case] = {
    "scatter_add": (lambda v, w, i: v.scatter_add(0, i, w), [(3, 2), (4, 2)], counts(3, (4, 2))),
    "into a corner": (
        lambda v, w, i: v.scatter_add(1, i, w),
        [(3, 3), (3, 4)],
        counts(3, (2, 3)),
    ),
    "to a number": (lambda v, w, i: v.scatter_add(0, i, w), [(), ()], counts(1, ())),
    "of zeros": (
        lambda w, i: torch.zeros(3).double().scatter_add(0, i, w),
        [(4,)],
        counts(3, (4,)),
    ),
    "scatter with add": (
        lambda v, w, i: aten.scatter.reduce(v, -1, i, w, reduce="add"),
        [(2, 3), (2, 2)],
        counts(3, (2, 2)),
    ),
    "scatter_reduce": (
        lambda v, w, i: v.scatter_reduce(0, i, w, "mean"),
        [(3,), (4,)],
        counts(3, (4,)),
    ),
    "index_add": (lambda v, w, i: v.index_add(1, i, w), [(2, 3), (2, 4)], counts(3, (4,))),
    "index_add of a number": (lambda v, w, i: v.index_add(0, i, w), [(), ()], counts(1, (1,))),
    "index_put": (
        lambda v, w, i: v.index_put((i,), w, accumulate=True),
        [(3, 2), (4, 2)],
        counts(3, (4,)),
    ),
    "index_put that broadcasts": (
        lambda v, w, i: v.index_put((i,), w, accumulate=True),
        [(3, 2), (4, 1)],
        counts(3, (4,)),
    ),
    "index_put of a number": (
        lambda v, w, i: v.index_put((i,), w, accumulate=True),
        [(3, 2), ()],
        counts(3, (4,)),
    ),
    "index_put apart": (
        lambda v, w, i, j: aten.index_put(v, [i, None, j], w, True),
        [(2, 2, 3), (4, 2)],
        lambda: [torch.randint(2, (4,)), torch.randint(3, (4,))],
    ),
    "index_put of rows that repeat": (
        lambda v, w, i: aten.index_put(v, [None, i], w, True),
        [(2, 3), (1, 2)],
        counts(3, (2,)),
    ),
    "put": (
        lambda v, w, i: v.put(i, w, accumulate=True),
        [(2, 2), (3,)],
        counts(4, (3,)),
    ),
}
OVERWRITTEN: dict[str, Case] = {
    "scatter": (lambda v, w, i: v.scatter(0, i, w), [(3, 2), (4, 2)], counts(3, (3, 2))),
    "scatter in a corner": (
        lambda v, w, i: v.scatter(1, i, w),
        [(3, 3), (2, 3)],
        counts(3, (2, 2)),
    ),
    "scatter of a number": (lambda v, i: v.scatter(0, i, 0.0), [(4, 2)], counts(4, (2, 1))),
    "index_copy": (lambda v, w, i: v.index_copy(1, i, w), [(2, 3), (2, 2)], counts(3, (2,))),
    "index_fill": (lambda v, w, i: v.index_fill(0, i, w), [(3, 2), ()], counts(3, (2,))),
    "index_fill with zero": (lambda v, i: v.index_fill(0, i, 0), [(3, 2)], counts(3, (2,))),
    "index_put": (lambda v, w, i: v.index_put((i,), w), [(3, 2), (2, 2)], counts(3, (2,))),
    "put": (lambda v, w, i: v.put(i, w), [(2, 2), (2,)], counts(4, (2,))),
    "scatter_reduce without its base": (
        lambda v, w, i: v.scatter_reduce(0, i, w, "sum", include_self=False),
        [(3,), (2,)],
        counts(3, (2,)),
    ),
}


@pytest.mark.parametrize("name", ADDED)
def test_additions_at_varying_places(name: str) -> None:
    check(*ADDED[name], draws=60)


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_writes_at_varying_places(name: str) -> None:
    check(*OVERWRITTEN[name], draws=60)


@pytest.mark.parametrize("name", [*ADDED, *(f"over {n}" for n in OVERWRITTEN)])
def test_fixed_places_are_followed(name: str) -> None:
    cases = ADDED | {f"over {n}": case for n, case in OVERWRITTEN.items()}
    g, shapes, others = cases[name]
    torch.manual_seed(3)
    fixed = others()
    if name.startswith("over"):
        fixed = [_without_repeats(t, dim=1 if "corner" in name else 0) for t in fixed]
    found = check(g, shapes, lambda: fixed, draws=1, guarded=range(len(fixed)))
    assert found.relied == {f"other{k}" for k in range(len(fixed))}


def _without_repeats(index: Tensor, dim: int) -> Tensor:
    """0, 1, 2... along ``dim``: writes never meet."""
    sizes = [-1 if d == dim else 1 for d in range(index.dim())]
    return torch.arange(index.shape[dim]).reshape(sizes).expand(index.shape).contiguous()


@pytest.mark.parametrize("name", ["scatter", "index_copy", "index_put", "put"])
def test_where_writes_meet_either_may_win(name: str) -> None:
    writes = {
        "scatter": lambda v, i: torch.zeros(2).double().scatter(0, i, v),
        "index_copy": lambda v, i: torch.zeros(2).double().index_copy(0, i, v),
        "index_put": lambda v, i: torch.zeros(2).double().index_put((i,), v),
        "put": lambda v, i: torch.zeros(2).double().put(i, v),
    }
    index = torch.tensor([1, 1, 0])
    found = rule_of(writes[name], linear_tensors([(3,)]), [index], guarded=[0])
    assert found.matrix.tolist() == [[False, False, True], [True, True, False]]


def test_masked_writes() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    check(lambda v, w: aten.index_put(v, [mask], w), [(2, 3), (3,)], draws=1)
    check(lambda v, w: aten.index_put(v, [mask], w), [(2, 3, 2), (3, 2)], draws=1)

    def varying() -> list[Tensor]:
        return [torch.randperm(6).reshape(2, 3) < 3]

    check(lambda v, w, m: aten.index_put(v, [m], w), [(2, 3), (3,)], varying, exact=False, draws=30)
    check(lambda v, w, m: aten.index_put(v, [m], w), [(2, 3), ()], varying, draws=30)
    check(lambda v, w, m: aten.index_put(v, [m], w), [(2, 3, 2), (2,)], varying, draws=30)
    check(lambda v, w, m: aten.index_put(v, [None, m], w), [(2, 2, 3), (2, 1)], varying, draws=30)


@pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 1)])
def test_masked_scatter(shape: tuple[int, ...]) -> None:
    mask = (torch.tensor([True, False, True]) if shape[-1] > 1 else torch.tensor([True])).expand(
        shape
    )
    check(lambda v, w: v.masked_scatter(mask, w), [(2, 3), (7,)], draws=1)
    check(lambda v: v.masked_scatter(mask, torch.zeros(7).double()), [(2, 3)], draws=1)
    check(
        lambda v, w, m: v.masked_scatter(m, w),
        [(2, 3), (6,)],
        lambda: [torch.rand(shape) > 0.4],
        exact=False,
        draws=20,
    )


@pytest.mark.parametrize(
    ("sizes", "dim", "size", "step"),
    [((5,), 0, 3, 1), ((5, 2), 0, 2, 2), ((2, 7), 1, 3, 2), ((2, 6), -1, 2, 3), ((), 0, 1, 1)],
)
def test_unfold_backward(sizes: tuple[int, ...], dim: int, size: int, step: int) -> None:
    shape = tuple(torch.zeros(sizes).unfold(dim, size, step).shape)
    check(lambda v: aten.unfold_backward(v, list(sizes), dim, size, step), [shape], draws=1)


def test_as_strided_scatter() -> None:
    check(lambda v, w: aten.as_strided_scatter(v, w, (2, 2), (4, 2), 1), [(8,), (2, 2)], draws=1)
    strided = torch.empty(4, 3, dtype=F64).t()
    check(lambda v, w: aten.as_strided_scatter(v, w, (3,), (4,), 1), [strided, (3,)], draws=1)
    overlap = rule_of(
        lambda v, w: aten.as_strided_scatter(v, w, (2, 2), (1, 1)), linear_tensors([(3,), (2, 2)])
    )
    expected = torch.zeros(3, 7, dtype=torch.bool)
    for row, columns in enumerate([[3], [4, 5], [6]]):
        expected[row, columns] = True
    assert overlap.matrix.tolist() == expected.tolist()


@pytest.mark.parametrize("guarded", [[], [0, 1]])
def test_unsafe_masked_index_put_accumulate(guarded: list[int]) -> None:
    torch.manual_seed(0)
    fixed = [torch.rand(2, 4) > 0.5, torch.randint(3, (4,))]
    check(
        lambda v, w, m, i: aten._unsafe_masked_index_put_accumulate(v, m, [None, i], w),
        [(2, 3), (2, 4)],
        lambda: fixed if guarded else [torch.rand(2, 4) > 0.5, torch.randint(3, (4,))],
        draws=60,
        guarded=guarded,
    )


def test_products_of_writes_are_not_linear() -> None:
    found = rule_of(
        lambda v, i: v.scatter_reduce(0, i, v * 2, "prod"),
        linear_tensors([(3,)]),
        [torch.tensor([0, 1])],
    )
    assert "scatter_reduce" in found.pessimistic
