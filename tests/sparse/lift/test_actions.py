"""Every fixed linear call is the call itself, applied to a basis; the others have no action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pullback.sparse.lift import actions as module

from .harness import check, check_none

aten = torch.ops.aten
Like = Any
STRIDED = torch.empty(5, 4, dtype=torch.float64).t()[:, ::2]

MOVEMENT: dict[str, tuple[Callable[..., Any], Like]] = {
    "view": (lambda v: v.reshape(2, 6), (3, 4)),
    "transpose": (lambda v: v.t(), (3, 4)),
    "slice": (lambda v: v[1:, ::2], (3, 4)),
    "roll": (lambda v: v.roll((1, -1), (0, 1)), (3, 4)),
    "flip": (lambda v: v.flip(0), (3, 4)),
    "expand": (lambda v: v.expand(2, 3, 4), (3, 1)),
    "pad": (lambda v: F.pad(v, (1, 2)), (3, 4)),
    "cat": (lambda v, w: torch.cat([v, w.t(), v]), ((3, 4), (4, 2))),
    "stack": (lambda v, w: torch.stack([v, w], 1), ((3,), (3,))),
    "split": (lambda v: v.split(2)[1], (5, 2)),
    "unbind": (lambda v: v.unbind(1)[0], (3, 4)),
    "diagonal": (lambda v: v.diagonal(), (3, 4)),
    "tril": (lambda v: v.tril(), (3, 4)),
    "repeat": (lambda v: v.repeat(2, 1, 3), (3, 2)),
    "slice_backward": (lambda v: aten.slice_backward(v, [5, 4], 0, 1, 4, 1), (3, 4)),
    "select_backward": (lambda v: aten.select_backward(v, [4, 3], 1, 2), (4,)),
    "index": (lambda v: v[torch.tensor([2, 0, 2])], (3, 2)),
    "gather": (lambda v: v.gather(1, torch.tensor([[0, 0], [3, 1]])), (2, 4)),
    "strided operand": (lambda v: v.reshape(-1), STRIDED),
    "no elements": (lambda v: v[:0], (3,)),
    "no dims": (lambda v: v.reshape(1, 1), ()),
    "float16": (lambda v: v.roll(1), torch.zeros(4, dtype=torch.float16)),
}
SUMS: dict[str, tuple[Callable[..., Any], Like]] = {
    "add": (lambda v, w: v + w, ((3, 4), (3, 4))),
    "add broadcast": (lambda v, w: v + w, ((3, 1), (4,))),
    "add to itself": (lambda v: v + v, (3,)),
    "add its own image": (lambda v: v + v.roll(1), (4,)),
    "add what covers nothing twice": (lambda v: F.pad(v[:2], (0, 2)) + F.pad(v[2:], (2, 0)), (4,)),
    "add alpha": (lambda v, w: torch.add(v, w, alpha=-2.5), ((3,), (3,))),
    "add zero": (lambda v: v + torch.zeros(3, 1), (3,)),
    "add nothing": (lambda v: v + 0, (3,)),
    "sub": (lambda v, w: v - w, ((3,), (3,))),
    "sub alpha": (lambda v, w: torch.sub(v, w, alpha=3), ((3,), (1,))),
    "rsub": (lambda v, w: torch.rsub(v, w, alpha=2), ((3,), (3,))),
    "sub itself": (lambda v: v - v, (3,)),
    "neg": (lambda v: -v, (3,)),
    "thrice": (lambda v: v + v + v - 4 * v, (3,)),
    "clone": (lambda v: v.clone(), STRIDED),
    "cast": (lambda v: v.double(), torch.zeros(3, dtype=torch.float32)),
    "sum": (lambda v: v.sum(), (3, 4)),
    "sum over dims": (lambda v: v.sum((0, 2), keepdim=True), (2, 3, 4)),
    "sum of nothing": (lambda v: v.sum(0), (0, 3)),
    "sum of one": (lambda v: v.sum(1), (3, 1)),
    "mean": (lambda v: v.mean(1), (3, 4)),
    "mean of all": (lambda v: v.mean(), (3, 4)),
    "cumsum": (lambda v: v.cumsum(0), (4, 2)),
    "float32": (lambda v: (v + v.roll(1)).sum(), torch.zeros(4, dtype=torch.float32)),
    "many equal addends": (lambda v: v.expand(40, 3).sum(0), (1, 3)),
}
SCALED: dict[str, tuple[Callable[..., Any], Like]] = {
    "number": (lambda v: v * 2.5, (3,)),
    "number on the left": (lambda v: -0.5 * v, (3,)),
    "zero": (lambda v: v * 0 + v.roll(1), (3,)),
    "divided": (lambda v: v / 3, (3,)),
    "scales that differ": (lambda v: 2 * v + 3 * v.roll(1) - v, (4,)),
    "a scale and its opposite": (lambda v: 0.1 * v - 0.1 * v, (4,)),
    "after it was moved": (lambda v: (2 * v).roll(1).expand(3, 4).sum(0) * 0.5, (4,)),
    "cat of scales": (lambda v: torch.cat([2 * v, -3 * v, v]), (3,)),
    "bool": (lambda v: v * torch.tensor([True, False, True]), (3,)),
    "half precision": (lambda v: v * 0.5, torch.zeros(3, dtype=torch.float16)),
}


def apart(like: Like) -> Any:
    several = isinstance(like, tuple) and bool(like) and isinstance(like[0], tuple)
    return like if several else (like,)


@pytest.mark.parametrize("name", MOVEMENT)
def test_movement(name: str) -> None:
    g, like = MOVEMENT[name]
    check(g, apart(like))


@pytest.mark.parametrize("name", SUMS)
def test_sums(name: str) -> None:
    g, like = SUMS[name]
    check(g, apart(like))


@pytest.mark.parametrize("name", SCALED)
def test_scaling(name: str) -> None:
    g, like = SCALED[name]
    check(g, apart(like))


@pytest.mark.parametrize(
    ("v", "w"), [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 1)), ((3, 1), (1, 4)), ((), (2, 2))]
)
@pytest.mark.parametrize("divided", [False, True])
def test_scaling_by_tensors_of_the_function(v: Any, w: Any, divided: bool) -> None:
    factors = torch.randn(w).double() + 3
    g = (lambda v, w: v / w) if divided else (lambda v, w: w * v)
    check(g, [v], [factors])
    check_none(g, [v], [factors])


def test_scaling_by_tensors_with_zeros_and_by_integers() -> None:
    check(lambda v, w: v * w, [(4,)], [torch.tensor([0.0, 1, 0, 2])])
    check(lambda v, w: v * w, [(4,)], [torch.tensor([0, 1, -3, 2])], owned=False, guarded=[0])


def test_factors_that_follow_from_settled_ones() -> None:
    w = torch.rand(3, dtype=torch.float64) + 1
    check(lambda v, w: v * (w.exp() / w.sum()).roll(1), [(3,)], [w])


MASK = torch.tensor([[True, False, True], [False, False, True]])


@pytest.mark.parametrize("options", [{"owned": True}, {"owned": False, "guarded": [0]}])
def test_choices_by_a_settled_mask(options: dict[str, Any]) -> None:
    g = lambda v, w, m: torch.where(m, v, w)  # noqa: E731
    check(g, [(2, 3), (2, 3)], [MASK], **options)
    check(g, [(3,), (2, 1)], [MASK], **options)
    check(lambda v, m: torch.where(m, v, 0.0), [(3,)], [MASK], **options)
    check(lambda v, m: torch.where(m, torch.zeros(3), v), [(2, 3)], [MASK], **options)
    check(lambda v, m: v.masked_fill(m, 0), [(2, 3)], [MASK], **options)
    check(lambda v, m: torch.where(m, v, -v), [(2, 3)], [MASK], **options)


def test_a_mask_that_may_change_is_no_choice() -> None:
    check_none(lambda v, w, m: torch.where(m, v, w), [(2, 3), (2, 3)], [MASK])


INDEX = torch.tensor([1, 3, 1, 0, 1])
ACCUMULATIONS: dict[str, Callable[..., Any]] = {
    "index_put": lambda v, i: torch.zeros(4, 2).index_put((i,), v, accumulate=True),
    "index_add": lambda v, i: torch.zeros(4, 2).index_add(0, i, v),
    "index_add alpha": lambda v, i: torch.zeros(4, 2).index_add(0, i, v, alpha=-1.5),
    "scatter_add": lambda v, i: torch.zeros(4, 2).scatter_add(0, i[:, None].expand(5, 2), v),
    "embedding": lambda v, i: aten.embedding_dense_backward(v, i, 4, -1, False),
    "embedding by frequency": lambda v, i: aten.embedding_dense_backward(v, i, 4, -1, True),
}


@pytest.mark.parametrize("name", ACCUMULATIONS)
def test_accumulation_with_repeated_indices(name: str) -> None:
    check(ACCUMULATIONS[name], [(5, 2)], [INDEX], owned=False, guarded=[0])
    check(ACCUMULATIONS[name], [(5, 2)], [torch.zeros(5, dtype=torch.int64)], owned=False,
          guarded=[0])  # fmt: skip
    if name != "embedding by frequency":
        single = torch.zeros(5, 2, dtype=torch.float32)
        check(
            lambda v, i: ACCUMULATIONS[name](v.double(), i), [single], [INDEX], owned=False,
            guarded=[0],
        )  # fmt: skip


@pytest.mark.parametrize("name", ACCUMULATIONS)
def test_accumulation_at_places_that_may_change(name: str) -> None:
    check_none(ACCUMULATIONS[name], [(5, 2)], [INDEX])


def test_movement_to_places_that_may_change() -> None:
    check_none(lambda v, i: v[i], [(4,)], [torch.tensor([1, 1, 2])])
    check_none(lambda v, x: v[x.argsort()], [(4,)], [torch.randn(4)])
    check_none(lambda v, x: v.gather(0, x.argsort()), [(4,)], [torch.randn(4)])


KERNEL = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]], dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": 2}, {"dilation": 2}])
def test_convolution_with_a_kernel_of_the_function(options: dict[str, Any]) -> None:
    g = lambda v, k: F.conv2d(v, k, **options)  # noqa: E731
    check(g, [(2, 1, 6, 5)], [KERNEL])
    check_none(g, [(2, 1, 6, 5)], [KERNEL])
    several = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    check(g, [(1, 3, 6, 5)], [several])


def convolution_backward(v: Tensor, x: Tensor, k: Tensor, mask: list[bool]) -> Any:
    out = aten.convolution_backward(v, x, k, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)
    return out[0]


def test_the_backward_of_a_convolution() -> None:
    x = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    g = lambda v, k, x: convolution_backward(v, x, k, [True, False, False])  # noqa: E731
    check(g, [x.shape], [KERNEL, x])
    # Its values do not count, only its shape: it need not be settled.
    check(lambda v, x: convolution_backward(v, x, KERNEL, [True, False, False]), [x.shape], [x],
          owned=False)  # fmt: skip
    check_none(g, [x.shape], [KERNEL, x])


def test_a_convolution_of_a_tensor_with_itself_is_none() -> None:
    both = lambda v, x: convolution_backward(v, x, x, [True, False, False])  # noqa: E731
    check_none(both, [(1, 1, 3, 3)], [torch.randn(1, 1, 3, 3, dtype=torch.float64)])


BANDED = torch.tensor(np.diag(np.ones(5)) - np.diag(2 * np.ones(4), 1) + np.diag(np.ones(4), -1))
MATRICES = {
    "dense": torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    "banded": BANDED,
    "of zeros": torch.zeros(5, 5, dtype=torch.float64),
    "of ones": torch.ones(5, 5, dtype=torch.float64),
    "of tiny and huge entries": torch.tensor(
        np.geomspace(1e-8, 1e8, 25).reshape(5, 5) * np.sign(np.arange(25) % 3 - 0.5).reshape(5, 5)
    ),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("left", [False, True])
def test_products_with_a_matrix_of_the_function(name: str, left: bool) -> None:
    g = (lambda v, a: a @ v) if left else (lambda v, a: v @ a.mT)
    check(g, [(5, 5)], [MATRICES[name]], close=1e-10)
    check_none(g, [(5, 5)], [MATRICES[name]])
    both = torch.stack([MATRICES[name], 2 * BANDED])
    check(g, [(2, 5, 5)], [both if left else both.mT], close=1e-10)


def test_more_products_with_a_matrix() -> None:
    check(lambda v, a: a.mv(v), [(5,)], [BANDED])
    check(lambda v, a: a.matmul(v), [(3, 5, 2)], [BANDED])
    check(lambda v, a: v.dot(a[0]), [(5,)], [BANDED])
    check(lambda v, a: a.float() @ v, [torch.zeros(5, 2, dtype=torch.float32)], [BANDED])


def test_a_product_of_two_linear_operands_or_of_a_varying_one_is_none() -> None:
    check_none(lambda v, x: x @ v, [(5, 5)], [BANDED])
    check_none(lambda v, x: v * x.sin(), [(5, 5)], [BANDED])


POOLING: dict[str, tuple[Callable[..., Any], Like]] = {
    "avg_pool2d": (lambda v: F.avg_pool2d(v, 2, 1), (1, 2, 4, 5)),
    "avg_pool2d padded": (lambda v: F.avg_pool2d(v, 3, 2, 1), (1, 1, 4, 5)),
    "adaptive": (lambda v: F.adaptive_avg_pool2d(v, (2, 3)), (1, 1, 5, 4)),
    "nearest": (lambda v: F.interpolate(v, scale_factor=2), (1, 1, 3, 2)),
    "bilinear": (lambda v: F.interpolate(v, (5, 7), mode="bilinear"), (1, 1, 3, 2)),
}


@pytest.mark.parametrize("name", POOLING)
def test_pooling_and_resampling_and_their_backwards(name: str) -> None:
    g, shape = POOLING[name]
    check(g, [shape])
    x = torch.randn(shape, dtype=torch.float64)
    back = lambda v: torch.func.vjp(g, x)[1](v)[0]  # noqa: E731
    check(back, [tuple(g(x).shape)])


COMPLEX = torch.zeros(3, 2, dtype=torch.complex128)
OF_COMPLEX: dict[str, Callable[..., Any]] = {
    "view_as_real": torch.view_as_real,
    "back and forth": lambda v: torch.view_as_complex(torch.view_as_real(v).roll(1, 0)),
    "swapped parts": lambda v: torch.view_as_complex(torch.view_as_real(v).flip(-1)),
    "moved": lambda v: v.t().roll(1, 0),
    "added": lambda v: v + v.roll(1, 0) - 3 * v,
    "negated": lambda v: -v,
    "summed": lambda v: v.sum(0),
    "scaled by numbers": lambda v: 2.5 * v / 4,
    "scaled by real numbers of its own": lambda v: v * torch.tensor([2.0, 3.0]),
    "chosen": lambda v: torch.where(torch.tensor([True, False]), v, 0),
    "real": torch.real,
    "imag": torch.imag,
    "accumulated": lambda v: torch.zeros(2, 2, dtype=v.dtype).index_put(
        (torch.tensor([1, 1, 0]),), v, accumulate=True
    ),
}


@pytest.mark.parametrize("name", OF_COMPLEX)
def test_complex_elements_are_pairs(name: str) -> None:
    check(OF_COMPLEX[name], [COMPLEX])


MAYBE = {
    "conj": lambda v: torch.conj_physical(v),
    "scaled by a complex number": lambda v: v * (1 + 2j),
    "scaled by complex numbers of its own": lambda v: v * torch.tensor([1j, 2 - 1j]),
    "made of two": lambda v: torch.complex(v.real.clone(), 2 * v.imag.clone()),
    "a complex convolution": lambda v: F.conv1d(v[None], torch.ones(1, 3, 2) * 1j),
}


@pytest.mark.parametrize("name", MAYBE)
def test_complex_calls_are_right_or_left_alone(name: str) -> None:
    try:
        check(MAYBE[name], [COMPLEX])
    except AssertionError:
        check_none(MAYBE[name], [COMPLEX])


def test_random_draws_are_no_part_of_a_fixed_map() -> None:
    check_none(lambda v: v * torch.rand(3, dtype=torch.float64), [(3,)])
    check_none(lambda v: v * torch.bernoulli(torch.full((3,), 0.5)), [(3,)])
    check_none(lambda v: v * torch.randn_like(v), [(3,)])
    check_none(lambda v: v + 0 * torch.empty(3).uniform_() * v, [(3,)])


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_are_left_alone(bad: float) -> None:
    check_none(lambda v: v * bad, [(3,)])
    check_none(lambda v, w: v * w, [(3,)], [torch.tensor([1.0, bad, 2.0])], owned=True)
    check_none(lambda v, a: a @ v, [(3,)], [torch.full((3, 3), bad).double()], owned=True)
    check_none(lambda v: v.expand(4, 3).sum() * bad, [(3,)])


def test_a_division_by_zero_is_left_alone() -> None:
    check_none(lambda v: v / 0, [(3,)])


def test_a_cast_to_complex_numbers_is_never_passed_over() -> None:
    single = torch.zeros(3, dtype=torch.float32)
    check(lambda v: v.double().sum(), [single])
    check_none(lambda v: v.to(torch.complex128).conj() * 1j, [(3,)])


def test_the_harness_sees_a_wrong_action(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEGATES", frozenset())
    monkeypatch.setattr(module, "_SAME", frozenset({"neg"}))
    with pytest.raises(AssertionError, match="Not equal"):
        check(lambda v: -v, [(3,)])
