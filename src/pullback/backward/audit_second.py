"""Derivatives of a backward: are they there, refused, or silently those of a constant?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from ..draw.numbers import number
from .audit_call import Call, as_tuple, call_of
from .audit_forward import Forward
from .audit_state import Cotangents, normal_like, rounding
from .verdict import Verdict

_REFUSED = "second derivatives through it are refused (once_differentiable)"


def second(forward: Forward, v: Cotangents, made: torch.Generator) -> Iterator[Verdict]:
    """Findings from differentiating ``<J' v, u>``, in ``v`` and in the arguments.

    In ``v`` the derivative is ``J u``; in the arguments it is compared with differences of J' v.
    """
    call = forward.call
    u = [normal_like(a.value, made) if a.needs_gradient else None for a in call.arguments]
    turned = [normal_like(a.value, made) if a.needs_gradient else None for a in call.arguments]
    try:
        weight, given, points = _weighed(call, v, u)
    except RuntimeError as error:
        call.notes.append(
            f"second derivatives could not be tried ({type(error).__name__}: {error})"
        )
        return
    if weight is None:
        call.notes.append(_REFUSED)
        return
    in_v, in_x = _derivatives(weight, given, points)
    missing = []
    by_differences = _slope_in_v(call, v, u)
    if _differ(_along(in_v, given), by_differences, call):
        missing.append(("its cotangent", _along(in_v, given), by_differences))
    found = _along(in_x, turned)
    wanted = _slope_in_arguments(call, v, u, turned)
    if wanted is not None and _differ(found, wanted, call):
        missing.append(("its inputs", found, wanted))
    for of, by_graph, by_steps in missing:
        yield _constant(call, of, by_graph, by_steps)


def _weighed(
    call: Call, v: Cotangents, u: Sequence[Tensor | None]
) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
    """``<J' v, u>`` with its graph, on arguments that are leaves; None where that is refused."""
    fresh = rebuilt(call, [a.value for a in call.arguments])
    given = [None if t is None else t.clone().requires_grad_() for t in v]
    with torch.enable_grad():
        passed = [None if t is None else t * 1 for t in given]
        filled = tuple(g if t is None else t for t, g in zip(passed, call.given, strict=True))
        found = as_tuple(_torch.run_backward(fresh.node, filled), len(call.arguments))
        grads = [g if isinstance(g, Tensor) and a.needs_gradient else None
                 for g, a in zip(found, fresh.arguments, strict=True)]  # fmt: skip
        if any(g is not None and _torch.refuses_twice(g) for g in grads):
            return None, given, []
        total = torch.zeros((), dtype=torch.float64)
        for g, w, a in zip(grads, u, fresh.arguments, strict=True):
            if g is not None and w is not None and a.expected is not None:
                total = (
                    total + (g.sum_to_size(a.expected.shape).conj() * w).real.sum().double().cpu()
                )
    return total, given, [a.value if a.needs_gradient else None for a in fresh.arguments]


def rebuilt(call: Call, values: Sequence[Any]) -> Call:
    """The same call once more, at ``values``, whose tensors become leaves of their own."""
    own = [
        value.detach().clone().requires_grad_(argument.needs_gradient)
        if isinstance(value, Tensor)
        else value
        for value, argument in zip(values, call.arguments, strict=True)
    ]
    with torch.enable_grad():
        # A leaf may not be written to: what forward gets is another tensor.
        passed = [t * 1 if isinstance(t, Tensor) and t.requires_grad else t for t in own]
        outputs = call.applied(passed)
    node = next(t.grad_fn for t in outputs if isinstance(t, Tensor) and t.grad_fn is not None)
    if _torch.custom_function(node) is not call.function:
        raise RuntimeError("its output is a view that something else has written to")
    made = call_of(node, call.function)
    arguments = tuple(
        type(a)(a.place, a.name, a.expected, a.port, value)
        for a, value in zip(made.arguments, own, strict=True)
    )
    return Call(node, call.function, arguments, call.given, draws=call.draws)


def _derivatives(
    weight: Tensor, given: Sequence[Tensor | None], points: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    leaves = [t for t in (*given, *points) if t is not None]
    if not weight.requires_grad:
        return [None] * len(given), [None] * len(points)
    found = iter(torch.autograd.grad(weight, leaves, allow_unused=True))
    spread = [None if t is None else next(found) for t in (*given, *points)]
    return spread[: len(given)], spread[len(given) :]


def _along(grads: Sequence[Tensor | None], directions: Sequence[Tensor | None]) -> float:
    pairs = zip(grads, directions, strict=True)
    return sum(
        float((g.detach().conj() * d.detach()).real.sum())
        for g, d in pairs
        if g is not None and d is not None
    )


def _pulled(call: Call, v: Cotangents, u: Sequence[Tensor | None]) -> float:
    return _along(call.pull(v), u)


def _slope_in_v(call: Call, v: Cotangents, u: Sequence[Tensor | None]) -> float:
    """J' is linear, so its derivative along v itself is its value there."""
    return _pulled(call, v, u)


def _slope_in_arguments(
    call: Call, v: Cotangents, u: Sequence[Tensor | None], turned: Sequence[Tensor | None]
) -> float | None:
    """How ``<J' v, u>`` changes along ``turned``, by differences; None where they are coarse."""
    dtype = next(t.dtype for t in turned if t is not None)
    steps = [float(torch.finfo(dtype).eps ** power) for power in (1 / 4, 1 / 3)]
    slopes = []
    for h in steps:
        sides = [_pulled(rebuilt(call, _moved(call, turned, s * h)), v, u) for s in (1, -1)]
        slopes.append((sides[0] - sides[1]) / (2 * h))
    sure = abs(slopes[1] - slopes[0]) <= 0.1 * abs(slopes[1]) + 1e-3 * abs(_pulled(call, v, u))
    return slopes[1] if sure else None


def _moved(call: Call, turned: Sequence[Tensor | None], step: float) -> list[Any]:
    return [
        a.value if t is None else a.value.detach() + step * t
        for a, t in zip(call.arguments, turned, strict=True)
    ]


def _differ(found: float, wanted: float, call: Call) -> bool:
    dtypes = [a.expected.dtype for a in call.arguments if a.expected is not None]
    if found and any(dtype.itemsize <= 2 for dtype in dtypes):
        return False  # differences are too coarse to tell more than whether it is a constant
    eps = max(map(rounding, dtypes), default=0.0)
    return abs(found - wanted) > (0.05 + eps) * abs(wanted) + 1e-4


def _constant(call: Call, of: str, by_graph: float, by_steps: float) -> Verdict:
    silent = f"is {'a constant' if by_graph == 0 else 'another function'} to torch"
    return Verdict(
        "second_derivative",
        f"{call.name}.backward {silent} in {of}: differentiated once more (create_graph=True, a "
        f"Hessian, a gradient penalty), it gives {number(by_graph)} where {number(by_steps)} is "
        "right, and nothing is said.",
        (("by torch", number(by_graph)), ("by differences of backward", number(by_steps))),
        "Save inputs or outputs, and compute the slope in backward with torch's operators; or "
        "refuse:\n    @staticmethod\n    @once_differentiable\n    def backward(ctx, v):",
    )
