"""Normalizations: dense over what was averaged, apart elsewhere."""

from __future__ import annotations

import pytest
import torch

from .harness import check

A = torch.ops.aten


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 2), (2, 2, 2, 2), (1, 2, 3)])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("asked", [[True] * 3, [True, False, False], [False, True, True]])
def test_over_the_batch(shape, train: bool, asked: list[bool]) -> None:
    c = shape[1]

    def g(v, x, w, mean, deviation):
        return A.native_batch_norm_backward(
            v, x, w, mean, deviation**2, mean, 1 / deviation, train, 1e-5, asked
        )

    check(g, [shape], normal(shape, (c,), (c,), (c,)))


@pytest.mark.parametrize("train", [False, True])
def test_over_the_batch_by_any_backend(train: bool) -> None:
    def g(v, x, w, mean, deviation):
        return A.batch_norm_backward(
            v, x, w, mean, deviation**2, mean, 1 / deviation, train, 1e-5, [True] * 3, x[:0]
        )

    check(g, [(2, 3, 2)], normal((2, 3, 2), (3,), (3,), (3,)))


def test_over_the_batch_with_two_per_channel_in_training() -> None:
    def g(v, x):
        _, mean, deviation = A.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5)
        return A.native_batch_norm_backward(
            v, x, None, None, None, mean, deviation, True, 1e-5, [True, False, False]
        )[0]

    check(g, [(3, 2, 2)], normal((3, 2, 2)))


@pytest.mark.parametrize(
    ("shape", "over"), [((2, 3), 1), ((2, 2, 3), 2), ((3,), 1), ((2, 1, 3), 1)]
)
@pytest.mark.parametrize("asked", [[True] * 3, [True, False, False], [False, True, False]])
def test_over_the_last_dims(shape, over: int, asked: list[bool]) -> None:
    size = shape[len(shape) - over :]

    def g(v, x, w, b):
        _, mean, deviation = A.native_layer_norm(x, size, w, b, 1e-5)
        return A.native_layer_norm_backward(v, x, size, mean, deviation, w, b, asked)

    check(g, [shape], normal(shape, size, size))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused kernel runs on CUDA alone")
@pytest.mark.parametrize("asked", [[True, True], [True, False]])
def test_by_the_root_mean_square(asked: list[bool]) -> None:
    def g(v, x, w):
        v, x, w = v.cuda(), x.cuda(), w.cuda()
        deviation = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
        found = A._fused_rms_norm_backward(v, x, [4], deviation, w, asked)
        return [None if t is None else t.cpu() for t in found]

    check(g, [(2, 3, 4)], normal((2, 3, 4), (4,)))


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 4, 3), 2), ((1, 3, 2, 2), 3), ((2, 4), 1), ((2, 4, 1), 2)]
)
@pytest.mark.parametrize("asked", [[True] * 3, [True, False, False], [False, True, True]])
def test_over_groups_of_channels(shape, groups: int, asked: list[bool]) -> None:
    n, c = shape[:2]
    each = torch.zeros(shape)[0, 0].numel()

    def g(v, x, w):
        _, mean, deviation = A.native_group_norm(x, w, None, n, c, each, groups, 1e-5)
        return A.native_group_norm_backward(v, x, mean, deviation, w, n, c, each, groups, asked)

    check(g, [shape], normal(shape, (c,)))


@pytest.mark.parametrize(("dim", "size"), [(0, (3, 1, 1)), (2, (1, 1, 4))])
def test_of_a_weight(dim: int, size: tuple[int, ...]) -> None:
    def g(v, x, scale):
        _, norms = A._weight_norm_interface(x, scale, dim)
        return A._weight_norm_interface_backward(v, x, scale, norms, dim)

    check(g, [(3, 2, 4)], normal((3, 2, 4), size))
