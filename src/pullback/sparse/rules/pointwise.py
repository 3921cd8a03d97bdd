"""Operators whose result at one place reads their (broadcast) arguments at that place alone.

Membership is by this list and never by shape or name: pooling with equal shapes is no member.
"""

from __future__ import annotations

import numpy as np
from torch import fx

from ..dependence import Dependence, union
from .base import Declined, Result, Step, rule

# Operator: the arguments in which it is linear. Products read the zeros of a fixed factor.
_SUMS = {
    "add": "self other",
    "sub": "self other",
    "rsub": "self other",
    "neg": "self",
    "clone": "self",
    "alias": "self",
    "detach": "self",
    "_to_copy": "self",
    "contiguous": "self",
    "_conj": "self",
    "_conj_physical": "self",
    "conj_physical": "self",
    "resolve_conj": "self",
    "resolve_neg": "self",
    "_neg_view": "self",
    "_neg_view_copy": "self",
    "_conj_copy": "self",
    "positive": "self",
    "real": "self",
    "imag": "self",
    "deg2rad": "self",
    "rad2deg": "self",
    "lift_fresh": "self",
    "lift_fresh_copy": "self",
    "lift": "self",
    "nan_to_num": "self",
    "complex": "real imag",
    "lerp": "self end | weight",
    "addcmul": "self | tensor1 | tensor2 | self tensor1 | self tensor2",
    "addcdiv": "self tensor1",
}
_PRODUCTS = {
    "mul": "self | other",
    "div": "self",
    "true_divide": "self",
    "xlogy": "self",
    "special_xlog1py": "self",
    "ldexp": "self",
    "polar": "abs",
    "_masked_scale": "self",
    "threshold_backward": "grad_output",
    "tanh_backward": "grad_output",
    "sigmoid_backward": "grad_output",
    "logit_backward": "grad_output",
    "elu_backward": "grad_output",
    "gelu_backward": "grad_output",
    "silu_backward": "grad_output",
    "mish_backward": "grad_output",
    "softplus_backward": "grad_output",
    "hardtanh_backward": "grad_output",
    "hardswish_backward": "grad_output",
    "hardsigmoid_backward": "grad_output",
    "hardshrink_backward": "grad_out",
    "softshrink_backward": "grad_output",
    "leaky_relu_backward": "grad_output",
    "log_sigmoid_backward": "grad_output",
    "rrelu_with_noise_backward": "grad_output",
    "native_dropout_backward": "grad_output",
    "mse_loss_backward": "grad_output",
    "smooth_l1_loss_backward": "grad_output",
    "huber_loss_backward": "grad_output",
    "soft_margin_loss_backward": "grad_output",
    "binary_cross_entropy_backward": "grad_output",
}
# Not linear anywhere; torch's own formulas use them in pairs that are linear together.
_CURVED = """
    exp exp2 log log1p log2 log10 expm1 abs sign sgn angle sqrt rsqrt square reciprocal pow
    sigmoid tanh gt ge lt le eq ne maximum minimum fmax fmin clamp clamp_min clamp_max isnan isinf
    isfinite logical_not logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or
    signbit
"""


def _at_its_place(step: Step) -> Result:
    return union(step.inputs, step.out.shape)


def _scaled(step: Step) -> Result:
    if step.get("rounding_mode") is not None:
        raise Declined("it rounds")
    shape = step.out.shape
    found = union(step.inputs, shape)
    if step.name != "mul":
        return found
    for factor in (step["self"], step["other"]):
        if isinstance(factor, fx.Node) and factor not in step.graph.linear:
            nonzero = step.nonzero(factor)
            if nonzero is not None and not nonzero.all():
                found = found.where(np.broadcast_to(nonzero, shape))
        elif isinstance(factor, (int, float)) and factor == 0:
            return step.nothing()
    return found


@rule("where", "self other")
def _selected(step: Step) -> Result:
    return _chosen(step, "condition", true="self", false="other")


@rule("masked_fill", "self value")
def _filled(step: Step) -> Result:
    return _chosen(step, "mask", true="value", false="self")


def _chosen(step: Step, selector: str, *, true: str, false: str) -> Dependence:
    """Place by place one of two arguments; which of them is known where the selector is fixed."""
    shape = step.out.shape
    taken = step.nonzero(selector)
    parts = [step.nothing()]
    for name, wanted in ((true, True), (false, False)):
        found = step.dep(name)
        if found is not None:
            found = found.broadcast(shape)
            parts.append(
                found if taken is None else found.where(np.broadcast_to(taken, shape) == wanted)
            )
    # A selector that depends on a cotangent is not linear; torch's formulas may hold one.
    chooser = step.dep(selector)
    return union(parts if chooser is None else [*parts, chooser], shape)


@rule("copy", "self src")
def _copied(step: Step) -> Result:
    found = step.dep("src")
    return step.nothing() if found is None else found.broadcast(step.out.shape)


@rule("fill", "self value")
def _uniform(step: Step) -> Result:
    found = step.dep("value")
    return step.nothing() if found is None else found.broadcast_all(step.out.shape)


@rule("zero", "self")
def _zeroed(step: Step) -> Result:
    return step.nothing()


@rule("_prelu_kernel_backward", "grad_output")
def _prelu(step: Step) -> Result:
    _, found = step.only("grad_output")
    return [None if meta is None else found.broadcast(meta.shape) for meta in step.outs]


PLACEWISE = frozenset(_SUMS) | frozenset(_PRODUCTS)

for _name, _linear in _SUMS.items():
    rule(_name, _linear)(_at_its_place)
for _name, _linear in _PRODUCTS.items():
    rule(_name, _linear)(_scaled)
rule(_CURVED, "")(_at_its_place)
