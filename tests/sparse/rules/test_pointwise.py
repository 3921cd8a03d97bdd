"""Pointwise: a result reads its place alone, and nothing where a fixed mask or factor says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pullback._errors import UnsupportedError
from pullback.sparse.rules import RULES
from pullback.sparse.rules.pointwise import _CURVED, _PRODUCTS

from .harness import check, linear_tensors, rule_of

aten = torch.ops.aten
F64 = torch.float64
STRIDED = torch.empty(4, 3, dtype=F64).t()


def normal(*shape: int) -> Callable[[], list[Tensor]]:
    return lambda: [torch.randn(shape, dtype=F64)]


SUMS = {
    "add": (lambda v, w: v + 2 * w, [(3, 4), (4,)]),
    "add with alpha": (lambda v, w: torch.add(v, w, alpha=3), [(3, 1), (1, 4)]),
    "sub": (lambda v, w: v - w, [STRIDED, (3, 4)]),
    "rsub": (lambda v: aten.rsub(v, torch.zeros(3, 1, dtype=F64)), [(3, 4)]),
    "neg": (lambda v: -v, [STRIDED]),
    "where": (lambda v, w: torch.where(torch.tensor([True, False, True]), v, w), [(2, 3), (3,)]),
    "where with a scalar": (lambda v: torch.where(torch.eye(3).bool(), v, 0.0), [(3,)]),
    "masked_fill": (lambda v: v.masked_fill(torch.eye(3).bool(), 0), [(1, 3)]),
    "masked_fill with a tensor": (
        lambda v, w: v.masked_fill(torch.eye(3).bool(), w),
        [(3, 3), ()],
    ),
    "copy": (lambda v, w: aten.copy(v, w), [(3, 2), (2,)]),
    "copy over": (lambda v: aten.copy(v, torch.zeros(3)), [(3,)]),
    "fill": (lambda v, w: aten.fill(v, w), [(3,), ()]),
    "zero": (lambda v: aten.zero(v), [(3,)]),
    "lerp": (lambda v, w: torch.lerp(v, w, 0.3), [(3,), (3,)]),
    "complex": (lambda v, w: torch.complex(v, w), [(3,), (3,)]),
    "deg2rad": (lambda v: torch.deg2rad(v), [(2, 2)]),
    "nan_to_num": (lambda v: torch.nan_to_num(v), [(2,)]),
    "conj": (
        lambda v: torch.view_as_real(torch.conj_physical(v)),
        [torch.empty(2, dtype=torch.complex128)],
    ),
    "empty": (lambda v, w: v + w, [(0, 3), (3,)]),
    "number": (lambda v: v * 2, [()]),
    "times zero": (lambda v: v * 0, [(2,)]),
    "times fixed zeros": (lambda v: v * torch.tensor([0.0, 1, 2]).double(), [(2, 3)]),
    "times a fixed zero": (lambda v: v * torch.zeros(()), [(2,)]),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_and_choices_by_fixed_masks_are_exact(name: str) -> None:
    g, shapes = SUMS[name]
    check(g, shapes, draws=1)


def masks(*shape: int) -> Callable[[], list[Tensor]]:
    return lambda: [torch.rand(shape) > 0.5]


VARYING = {
    "where": (lambda v, w, m: torch.where(m, v, w), [(3, 4), (4,)], masks(3, 1)),
    "masked_fill": (lambda v, w, m: v.masked_fill(m, w), [(1, 4), ()], masks(3, 4)),
    "mul": (lambda v, a: v * a, [(3, 1)], normal(4)),
    "mul from the left": (lambda v, a: a * v, [STRIDED], normal(3, 4)),
    "div": (lambda v, a: v / a, [(1, 3)], normal(4, 1)),
    "addcmul": (lambda v, w, a: torch.addcmul(v, w, a, value=2), [(3,), (2, 3)], normal(3)),
    "addcdiv": (lambda v, w, a: torch.addcdiv(v, w, a), [(3,), (2, 3)], normal(3)),
    "lerp in its weight": (
        lambda v, a: torch.lerp(torch.zeros_like(a), a, v),
        [(3, 3)],
        normal(3),
    ),
    "polar": (lambda v, a: torch.view_as_real(torch.polar(v, a)), [(2, 3)], normal(3)),
    "xlogy": (lambda v, a: torch.xlogy(v, a.abs()), [(2, 3)], normal(3)),
    "xlog1py": (lambda v, a: torch.special.xlog1py(v, a.abs()), [(2, 3)], normal(3)),
}


@pytest.mark.parametrize("name", VARYING)
def test_with_operands_that_vary(name: str) -> None:
    g, shapes, others = VARYING[name]
    check(g, shapes, others, draws=8)


BACKWARDS = {
    "threshold_backward": lambda v, a: aten.threshold_backward(v, a, 0),
    "tanh_backward": lambda v, a: aten.tanh_backward(v, a.tanh()),
    "sigmoid_backward": lambda v, a: aten.sigmoid_backward(v, a.sigmoid()),
    "logit_backward": lambda v, a: aten.logit_backward(v, a.sigmoid()),
    "elu_backward": lambda v, a: aten.elu_backward(v, 1, 1, 1, False, a),
    "gelu_backward": lambda v, a: aten.gelu_backward(v, a, approximate="tanh"),
    "silu_backward": lambda v, a: aten.silu_backward(v, a),
    "mish_backward": lambda v, a: aten.mish_backward(v, a),
    "softplus_backward": lambda v, a: aten.softplus_backward(v, a, 1, 20),
    "hardtanh_backward": lambda v, a: aten.hardtanh_backward(v, a, -1, 1),
    "hardswish_backward": lambda v, a: aten.hardswish_backward(v, a),
    "hardsigmoid_backward": lambda v, a: aten.hardsigmoid_backward(v, a),
    "hardshrink_backward": lambda v, a: aten.hardshrink_backward(v, a, 0.5),
    "softshrink_backward": lambda v, a: aten.softshrink_backward(v, a, 0.5),
    "leaky_relu_backward": lambda v, a: aten.leaky_relu_backward(v, a, 0.1, False),
    "log_sigmoid_backward": lambda v, a: aten.log_sigmoid_backward(v, a, torch.zeros_like(a)),
    "rrelu_with_noise_backward": lambda v, a: aten.rrelu_with_noise_backward(
        v, a, torch.ones_like(a), 0.1, 0.3, False, False
    ),
    "native_dropout_backward": lambda v, a: aten.native_dropout_backward(v, a > 0, 2.0),
    "mse_loss_backward": lambda v, a: aten.mse_loss_backward(v, a, a / 2, 0),
    "smooth_l1_loss_backward": lambda v, a: aten.smooth_l1_loss_backward(v, a, a / 2, 0, 1.0),
    "huber_loss_backward": lambda v, a: aten.huber_loss_backward(v, a, a / 2, 0, 1.0),
    "soft_margin_loss_backward": lambda v, a: aten.soft_margin_loss_backward(v, a, a.sign(), 0),
    "binary_cross_entropy_backward": lambda v, a: aten.binary_cross_entropy_backward(
        v, a.sigmoid(), (a > 0).double(), None, 0
    ),
    "_prelu_kernel_backward": lambda v, a: aten._prelu_kernel_backward(v, a, a.flip(1)),
}
OTHERS_TESTED = {"mul", "div", "true_divide", "xlogy", "special_xlog1py", "ldexp", "polar"}
LOSSES = sorted(name for name in BACKWARDS if "loss" in name or "entropy" in name)


def test_every_backward_of_the_list_is_tried() -> None:
    assert set(_PRODUCTS) - OTHERS_TESTED - {"_masked_scale"} <= set(BACKWARDS)


@pytest.mark.parametrize("name", BACKWARDS)
@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (2, 1)])
def test_activations_read_their_place(name: str, shape: tuple[int, int]) -> None:
    check(BACKWARDS[name], [shape], normal(*shape), draws=12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_over_all_items_spreads_its_one_cotangent(name: str) -> None:
    backward = BACKWARDS[name]
    check(lambda v, a: backward(v.expand(a.shape), a), [()], normal(4, 2), draws=8)
    loss = getattr(aten, name)
    extra = {"smooth_l1_loss_backward": (1, 1.0), "huber_loss_backward": (1, 1.0)}
    more = {"binary_cross_entropy_backward": (None, 1)}
    options = extra.get(name) or more.get(name) or (1,)
    check(
        lambda v, a: loss(v, a.sigmoid(), (a.flip(0) > 0).double(), *options),
        [()],
        normal(4, 2),
        draws=8,
    )


@pytest.mark.parametrize("op", [torch.abs, torch.exp, torch.sign, lambda v: v.clamp(-1, 1)])
def test_a_backward_that_is_not_linear_is_refused(op: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedError, match="not linear in its cotangent at"):
        rule_of(op, linear_tensors([(3,)]))
    with pytest.raises(UnsupportedError, match="not linear in its cotangent at mul"):
        rule_of(lambda v: v * v, linear_tensors([(3,)]))


def test_torch_own_formulas_may_use_cotangents_in_ways_that_are_linear_together() -> None:
    def g(v: Tensor) -> Tensor:
        up, down = v.clamp(min=0).log().exp(), (-v).clamp(min=0).log().exp()
        return torch.where(v > 0, up, -down)

    assert rule_of(g, linear_tensors([(3,)]), formula="Logcumsumexp").matrix.sum() == 3


def test_a_mask_that_depends_on_a_cotangent_counts() -> None:
    def g(v: Tensor, w: Tensor) -> Tensor:
        return w.masked_fill(v > 0, 0.0)

    assert rule_of(g, linear_tensors([(3,), (3,)]), formula="Own").matrix.sum() == 6


def test_what_was_overwritten_does_not_count_as_a_cotangent() -> None:
    def g(v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        buffer = v * 2
        first = buffer + 1 * v
        buffer = aten.copy(buffer, a)
        return first, buffer.amax(0).exp() * v.sum(0)

    check(g, [(3, 2)], normal(3, 2))


def test_rounding_division_is_pessimistic() -> None:
    found = rule_of(lambda v: torch.div(v, 2, rounding_mode="floor"), linear_tensors([(3,)]))
    assert "div" in found.pessimistic


def test_zeros_of_numbers_that_may_change_tighten_nothing() -> None:
    zeros = torch.zeros(3, dtype=F64)
    assert rule_of(lambda v, a: v * a, linear_tensors([(3,)]), [zeros]).matrix.sum() == 3
    fixed = rule_of(lambda v, a: v * a, linear_tensors([(3,)]), [zeros], guarded=[0])
    assert fixed.matrix.sum() == 0
    assert fixed.relied == {"other0"}


def test_pooling_is_no_member() -> None:
    for name in ("avg_pool2d", "max_pool2d", "masked_scatter", "equal", "max", "min"):
        assert name not in {*_PRODUCTS, *_CURVED.split()}
        assert RULES.get(name) is None or name == "masked_scatter" or "pool" in name
