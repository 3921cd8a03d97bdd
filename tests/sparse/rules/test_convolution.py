"""Convolutions of all kinds and their backwards: windows in space, groups of channels."""

from __future__ import annotations

import pytest
import torch

from pullback.sparse.rules import convolution
from pullback.sparse.rules.base import RULES

from .harness import check, rule_of

A = torch.ops.aten
# Input, weight, stride, padding, dilation, transposed, output padding, groups.
KINDS = {
    "plain": ((2, 2, 5), (3, 2, 3), [1], [0], [1], False, [0], 1),
    "same size": ((1, 2, 4), (2, 2, 3), [1], [1], [1], False, [0], 1),
    "stride": ((1, 1, 7), (2, 1, 3), [2], [1], [1], False, [0], 1),
    "stride past the kernel": ((1, 1, 7), (1, 1, 2), [3], [0], [1], False, [0], 1),
    "dilation": ((1, 1, 7), (1, 1, 3), [1], [2], [2], False, [0], 1),
    "groups": ((1, 4, 4), (2, 2, 3), [1], [1], [1], False, [0], 2),
    "depthwise": ((1, 3, 4), (6, 1, 2), [1], [0], [1], False, [0], 3),
    "pointwise": ((2, 3, 3), (2, 3, 1), [1], [0], [1], False, [0], 1),
    "2-D": ((1, 2, 3, 4), (2, 2, 2, 3), [1, 2], [0, 1], [1, 1], False, [0, 0], 1),
    "2-D, short options": ((1, 1, 4, 3), (1, 1, 2, 2), [1], [1], [1], False, [0], 1),
    "3-D": ((1, 1, 3, 2, 3), (1, 1, 2, 2, 2), [1] * 3, [0, 1, 0], [1] * 3, False, [0] * 3, 1),
    "transposed": ((2, 2, 3), (2, 3, 3), [1], [0], [1], True, [0], 1),
    "transposed, stride": ((1, 2, 3), (2, 1, 3), [2], [1], [1], True, [1], 1),
    "transposed, groups": ((1, 4, 3), (4, 2, 2), [2], [0], [1], True, [0], 2),
    "transposed, dilation": ((1, 1, 3), (1, 2, 3), [2], [1], [2], True, [1], 1),
    "transposed, 2-D": ((1, 2, 2, 3), (2, 1, 3, 2), [2, 1], [1, 0], [1, 1], True, [1, 0], 1),
    "empty batch": ((0, 2, 5), (3, 2, 3), [1], [0], [1], False, [0], 1),
}
KIND = pytest.mark.parametrize("kind", KINDS)


def pieces(kind: str):
    given, weight, *options = KINDS[kind]
    channels = weight[1] * options[-1] if options[4 - 1] else weight[0]
    out = A.convolution(torch.zeros(given), torch.zeros(weight), None, *options)
    return given, weight, channels, tuple(out.shape), options


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


@KIND
def test_of_the_input_and_the_bias(kind: str) -> None:
    given, weight, channels, _, options = pieces(kind)
    check(
        lambda v, b, w: A.convolution(v, w, b, *options),
        [given, (channels,)],
        normal(weight),
        draws=2,
    )


@KIND
def test_of_the_weight(kind: str) -> None:
    given, weight, _, _, options = pieces(kind)
    check(lambda v, x: A.convolution(x, v, None, *options), [weight], normal(given), draws=2)


@KIND
def test_backward(kind: str) -> None:
    given, weight, channels, out, options = pieces(kind)
    check(
        lambda v, x, w: A.convolution_backward(v, x, w, [channels], *options, [True] * 3),
        [out],
        normal(given, weight),
        draws=2,
    )


@KIND
@pytest.mark.parametrize("asked", [0, 1])
def test_backward_of_one_argument_only(kind: str, asked: int) -> None:
    given, weight, channels, out, options = pieces(kind)
    mask = [asked == k for k in range(3)]
    v, x = (given, weight) if asked else (weight, given)

    def g(v, other, back):
        x, w = (v, other) if asked else (other, v)
        return A.convolution_backward(back, x, w, [channels], *options, mask)[asked]

    check(g, [v], normal(x, out), draws=2)


STENCIL = torch.tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_zeros_of_a_literal_stencil_are_used(transposed: bool, groups: int) -> None:
    weight = torch.zeros(2, 2 // groups, 3, 3, dtype=torch.float64)
    weight[0, 0], weight[1, -1], weight[1, 0, 0, 0] = STENCIL, STENCIL, 3.0
    options = [[1, 2], [1, 1], [1, 1], transposed, [0, 0], groups]
    given = (2, 2, 4, 5)
    out = tuple(A.convolution(torch.zeros(given).double(), weight, None, *options).shape)
    forward = check(lambda v: A.convolution(v, weight, None, *options), [given])
    check(
        lambda v, x: A.convolution_backward(v, x, weight, None, *options, [True, False, False])[0],
        [out],
        normal(given),
    )
    other = rule_of(
        lambda v, w: A.convolution(v, w, None, *options), [torch.randn(given).double()], [weight]
    )
    assert forward.matrix.sum() < other.matrix.sum()


def test_five_points_of_nine() -> None:
    kernel = STENCIL[None, None].clone()
    found = check(lambda v: torch.nn.functional.conv2d(v, kernel, padding=1), [(1, 1, 4, 4)])
    assert found.matrix.sum() == 5 * 16 - 4 * 4


def test_channels_share_their_sets() -> None:
    step = rule_of(
        lambda v, x, w: A.convolution_backward(
            v, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
        )[0],
        [torch.randn(1, 8, 6, 6)],
        [torch.randn(1, 8, 6, 6), torch.randn(8, 8, 3, 3)],
    )
    assert step.matrix.sum() == 8 * 8 * (3 * 6 - 2) ** 2


def test_a_window_that_is_too_narrow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convolution.meeting_places

    def narrow(*args: int):
        x, y, k = whole(*args)
        return x[k > 0], y[k > 0], k[k > 0]

    monkeypatch.setattr(convolution, "meeting_places", narrow)
    assert "convolution" in RULES
    with pytest.raises(AssertionError, match="missed"):
        test_of_the_input_and_the_bias("plain")
