"""Pooling: windows in space, channels apart."""

from __future__ import annotations

import itertools

import pytest
import torch

from pullback.sparse.rules.pooling import adaptive_windows

from .harness import check

A = torch.ops.aten
F = torch.nn.functional
# Input, kernel, stride, padding, ceil_mode.
WINDOWS = {
    "tiles": ((2, 4, 4), [2, 2], [], [0, 0], False),
    "overlaps": ((1, 2, 5, 4), [3, 2], [2, 1], [1, 0], False),
    "same size": ((1, 4, 4), [3, 3], [1, 1], [1, 1], False),
    "gaps": ((1, 5, 5), [1, 2], [2, 3], [0, 0], False),
    "ceil": ((1, 5, 6), [2, 3], [2, 2], [0, 1], True),
    "one number": ((1, 5, 5), [2], [2], [1], True),
    "one place": ((1, 1, 1), [1, 1], [1, 1], [0, 0], False),
}


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


def result(f, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    found = f(*(torch.zeros(s, dtype=torch.float64) for s in shapes))
    return tuple((found if isinstance(found, torch.Tensor) else found[0]).shape)


@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("count_pad", [False, True])
def test_average(case: str, count_pad: bool) -> None:
    shape, kernel, stride, padding, ceil = WINDOWS[case]
    out = result(lambda x: A.avg_pool2d(x, kernel, stride, padding, ceil), shape)
    options = [kernel, stride, padding, ceil, count_pad, None]
    check(lambda v: A.avg_pool2d(v, *options), [shape])
    check(lambda v, x: A.avg_pool2d_backward(v, x, *options), [out], normal(shape))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("case", WINDOWS)
def test_maximum_anywhere_in_the_window(case: str, dilation: int) -> None:
    shape, kernel, stride, padding, ceil = WINDOWS[case]
    options = [kernel, stride, padding, [dilation], ceil]
    try:
        out = result(lambda x: A.max_pool2d_with_indices(x, *options), shape)
    except RuntimeError:
        pytest.skip("no window fits")

    def g(v, x):
        indices = A.max_pool2d_with_indices(x, *options)[1]
        return A.max_pool2d_with_indices_backward(v, x, *options, indices)

    check(g, [out], normal(shape), draws=60)


def test_in_three_dims() -> None:
    shape, options = (2, 3, 4, 3), [[2, 2, 3], [1, 2, 1], [1, 0, 1]]
    out = result(lambda x: A.avg_pool3d(x, *options), shape)
    check(
        lambda v, x: A.avg_pool3d_backward(v, x, *options, False, True, None), [out], normal(shape)
    )
    check(lambda v: A.avg_pool3d(v, *options), [shape])

    def g(v, x):
        indices = A.max_pool3d_with_indices(x, *options, [1])[1]
        return A.max_pool3d_with_indices_backward(v, x, *options, [1], False, indices)

    check(g, [out], normal(shape), draws=80)


@pytest.mark.parametrize("size", [[2, 3], [1, 1], [5, 4], [7, 3], [4, 5]])
def test_adaptive(size: list[int]) -> None:
    shape = (2, 5, 4)
    check(lambda v, x: A._adaptive_avg_pool2d_backward(v, x), [(2, *size)], normal(shape))
    check(lambda v: A._adaptive_avg_pool2d(v, size), [shape])

    def g(v, x):
        return A.adaptive_max_pool2d_backward(v, x, A.adaptive_max_pool2d(x, size)[1])

    check(g, [(2, *size)], normal(shape), draws=100)


def test_adaptive_in_three_dims() -> None:
    shape, size = (1, 3, 4, 2), (1, 2, 3, 2)
    check(lambda v, x: A._adaptive_avg_pool3d_backward(v, x), [size], normal(shape))
    check(lambda v: A._adaptive_avg_pool3d(v, size[1:]), [shape])
    check(
        lambda v, x: A.adaptive_max_pool3d_backward(v, x, A.adaptive_max_pool3d(x, size[1:])[1]),
        [size],
        normal(shape),
        draws=40,
    )


def test_adaptive_windows_cover_everything_in_order() -> None:
    for large, small in itertools.product(range(1, 9), repeat=2):
        x, y = adaptive_windows(large, small)
        assert set(x) == set(range(large))
        assert set(y) == set(range(small))


def test_windows_at_random_places_are_a_plane() -> None:
    shape, size = (2, 4, 4), [2, 2]

    def g(v, x, samples):
        indices = A.fractional_max_pool2d(x, [2, 2], size, samples)[1]
        return A.fractional_max_pool2d_backward(v, x, [2, 2], size, indices)

    found = check(
        g,
        [(2, 2, 2)],
        lambda: [torch.randn(shape).double(), torch.rand(1, 2, 2).double()],
        exact=False,
    )
    assert found.matrix.sum() == 2 * 16 * 4


def test_unpooling_goes_where_the_indices_say() -> None:
    found = check(
        lambda v, x: A.max_unpool2d(v, A.max_pool2d_with_indices(x, [2, 2])[1], [4, 4]),
        [(2, 2, 2)],
        normal((2, 4, 4)),
        exact=False,
    )
    assert found.matrix.sum() == 2 * 4 * 16


def test_one_dim_goes_through_two() -> None:
    check(lambda v: F.avg_pool1d(v, 3, 2, 1), [(1, 2, 6)])
