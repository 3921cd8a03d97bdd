"""Fused attention: batch items and heads never mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sparse.arguments import arguments_for
from pullback.sparse.capture import capture
from pullback.sparse.detect import detect
from pullback.sparse.state import State

from .harness import check

A = torch.ops.aten
FLASH = A._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = A._scaled_dot_product_flash_attention_for_cpu_backward
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="these kernels run on CUDA alone")


def normal(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64):
    return lambda: [torch.randn(s, dtype=dtype) for s in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "others"), [(3, 3), (2, 4), (4, 2), (1, 1)])
def test_attention(length: int, others: int, causal: bool) -> None:
    query, key = (2, 2, length, 3), (2, 2, others, 3)

    def g(v, q, k, w):
        out, sums = FLASH(q, k, w, 0.0, causal)
        return FLASH_BACKWARD(v, q, k, w, out, sums, 0.0, causal)

    # Over a single key, and over masked ones, there are zeros that the rule leaves out of account.
    exact = others > 1 and not causal
    check(g, [query], normal(query, key, key), exact=exact, draws=2)


def test_causal_attention_is_triangular() -> None:
    shape = (1, 1, 4, 2)

    def g(v, q, k, w):
        out, sums = FLASH(q, k, w, 0.0, True)
        return FLASH_BACKWARD(v, q, k, w, out, sums, 0.0, True)

    found = check(g, [shape], normal(shape, shape, shape), exact=False)
    query, key, value = found.matrix.reshape(3, 4, 2, 4, 2)
    i, e, j, f = np.ix_(range(4), range(2), range(4), range(2))
    assert (query == (i == j)).all()
    assert (key == (j >= i)).all()
    assert (value == ((j >= i) & (e == f))).all()


def test_with_a_mask() -> None:
    shape = (1, 2, 3, 2)

    def g(v, q, k, w, mask):
        out, sums = FLASH(q, k, w, 0.0, False, attn_mask=mask)
        return FLASH_BACKWARD(v, q, k, w, out, sums, 0.0, False, attn_mask=mask)

    check(g, [shape], normal(shape, shape, shape, (1, 1, 3, 3)))


def captured_pattern(f, *inputs: torch.Tensor):
    """The pattern that detection finds, the dense truth, and the operators of the backward."""
    arguments = arguments_for("test", inputs, tuple(range(len(inputs))))
    graph = capture("test", f, arguments, State.of(f)).graph
    detection = detect("test", graph)
    assert not detection.pessimistic
    truth = torch.autograd.functional.jacobian(f, inputs)
    rows = torch.cat(
        [t.flatten(0, -1 - x.dim()).flatten(1) for t, x in zip(truth, inputs, strict=True)], 1
    )
    found = np.asarray(detection.pattern.to_scipy().todense()).astype(bool)
    return found, rows.ne(0).cpu().numpy(), {str(n.target) for n in graph.linear}


@pytest.mark.parametrize("causal", [False, True])
def test_through_the_public_function(causal: bool) -> None:
    attention = torch.nn.functional.scaled_dot_product_attention
    inputs = [torch.randn(2, 1, 3, 2, dtype=torch.float64) for _ in range(3)]
    found, truth, names = captured_pattern(lambda *x: attention(*x, is_causal=causal), *inputs)
    assert "aten._scaled_dot_product_flash_attention_for_cpu_backward.default" in names
    assert not (truth & ~found).any()
    assert not found.reshape(2, 6, 3, 2, 6)[0, :, :, 1].any()


@cuda
@pytest.mark.parametrize("kind", ["EFFICIENT_ATTENTION", "FLASH_ATTENTION", "CUDNN_ATTENTION"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "others"), [(8, 8), (8, 16), (16, 8)])
def test_on_cuda(kind: str, causal: bool, length: int, others: int) -> None:
    attention = torch.nn.functional.scaled_dot_product_attention
    shapes = (1, 2, length, 8), (1, 2, others, 8), (1, 2, others, 8)
    inputs = [torch.randn(s, dtype=torch.float16, device="cuda") for s in shapes]
    with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, kind)):
        found, truth, names = captured_pattern(lambda *x: attention(*x, is_causal=causal), *inputs)
    assert any("attention" in name for name in names)
    assert not (truth & ~found).any()
