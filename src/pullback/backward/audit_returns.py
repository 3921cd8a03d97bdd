"""What a backward returned, against what torch expects: shapes, dtypes, devices, None."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .._checks import dtype_text
from .._torch import Expected
from ..draw.numbers import shape
from .audit_call import Argument, Call, as_tuple, fits
from .verdict import Verdict


def returns(call: Call) -> Iterator[Verdict]:
    """Findings in what one real pass got from the backward of ``call``."""
    if call.error is not None:
        text = f"{call.name}.backward raised {type(call.error).__name__}: {call.error}"
        yield Verdict("backward_raises", text, fix="Nothing else about it could be tried.")
        return
    yield from _count(call)
    found = as_tuple(call.returned, len(call.arguments))
    for grad, argument in zip(found, call.arguments, strict=True):
        if argument.expected is None:
            yield from _unneeded(call, argument, grad)
        elif isinstance(grad, Tensor):
            yield from _mismatch(call, argument, grad, argument.expected)
        elif grad is not None:
            yield _refused(call, argument, f"a {type(grad).__name__}", argument.expected)


def as_the_engine_wants(call: Call) -> tuple[Tensor | None, ...]:
    """The return of ``call`` with nothing in it that would end the pass."""
    found = as_tuple(call.returned, len(call.arguments))
    return tuple(
        grad if argument.expected is not None and fits(grad, argument.expected) else None
        for grad, argument in zip(found, call.arguments, strict=True)
    )


def _count(call: Call) -> Iterator[Verdict]:
    found = call.returned if isinstance(call.returned, tuple) else (call.returned,)
    wanted = len(call.arguments)
    extra = found[wanted:]
    if len(found) == wanted or (extra and all(grad is None for grad in extra)):
        return
    names = ", ".join(argument.name for argument in call.arguments)
    yield Verdict(
        "gradient_count",
        f"{call.name}.backward returns {len(found)} gradients where forward takes {wanted} "
        f"arguments; torch refuses that. One is due for each argument, in their order, None for "
        f"what needs none.",
        (("returned", str(len(found))), ("arguments of forward", names)),
        "Return one entry per argument:\n"
        + "    return "
        + ", ".join(
            f"grad_{k}" if a.needs_gradient else "None" for k, a in enumerate(call.arguments)
        ),
    )


def _unneeded(call: Call, argument: Argument, grad: Any) -> Iterator[Verdict]:
    if grad is None:
        return
    yield Verdict(
        "wasted_gradient",
        f"{call.name}.backward computes a gradient for `{argument.name}`, which needs none: the "
        f"work is thrown away. Where the argument is no tensor, torch refuses it.",
        (("ctx.needs_input_grad", f"False at {argument.place}"),),
        "Ask before computing it:\n"
        f"    grad = ... if ctx.needs_input_grad[{argument.place}] else None",
    )


def _mismatch(
    call: Call, argument: Argument, grad: Tensor, expected: Expected
) -> Iterator[Verdict]:
    if not fits(grad, expected):
        yield _refused(call, argument, _described(grad), expected)
        return
    if tuple(grad.shape) != expected.shape:
        axes = _summed_axes(tuple(grad.shape), expected.shape)
        yield Verdict(
            "gradient_summed",
            f"{call.name}.backward returns a gradient of shape {shape(grad.shape)} for "
            f"`{argument.name}`, which has shape {shape(expected.shape)}. torch sums it over "
            f"{_axes(axes)} and says nothing: right where forward broadcasts there, wrong "
            f"numbers anywhere else.",
            (("returned", shape(grad.shape)), ("expected", shape(expected.shape))),
            f"Sum in backward, over the axes that forward broadcasts, to shape "
            f"{shape(expected.shape)}.",
        )
    if grad.dtype != expected.dtype:
        yield Verdict(
            "gradient_cast",
            f"{call.name}.backward returns {dtype_text(grad.dtype)} for `{argument.name}`, "
            f"which is {dtype_text(expected.dtype)}. torch casts it and says nothing"
            + ("; the imaginary part is dropped." if _drops_imaginary(grad, expected) else "."),
            (("returned", dtype_text(grad.dtype)), ("expected", dtype_text(expected.dtype))),
            f"Compute it in the dtype of the input, or cast where it can be read:\n"
            f"    grad = grad.to(torch.{dtype_text(expected.dtype)})",
        )
    if grad.device != expected.device:
        yield Verdict(
            "gradient_moved",
            f"{call.name}.backward returns a number on {grad.device} for `{argument.name}`, "
            f"which is on {expected.device}. torch copies it at every pass.",
            (("returned", str(grad.device)), ("expected", str(expected.device))),
            f'Make it where it is needed:\n    grad = grad.to("{expected.device}")',
        )


def _refused(call: Call, argument: Argument, returned: str, expected: Expected) -> Verdict:
    return Verdict(
        "gradient_refused",
        f"{call.name}.backward returns {returned} for `{argument.name}`; torch refuses it. "
        f"The gradient of a tensor has that tensor's shape, {shape(expected.shape)}, on "
        f"{expected.device}.",
        (("returned", returned), ("expected", shape(expected.shape))),
        f"Return a tensor of shape {shape(expected.shape)} on {expected.device}, or None.",
    )


def _described(grad: Tensor) -> str:
    return f"a tensor of shape {shape(grad.shape)} on {grad.device}"


def _drops_imaginary(grad: Tensor, expected: Expected) -> bool:
    return grad.is_complex() and not expected.dtype.is_complex


def _summed_axes(had: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    lead = len(had) - len(wanted)
    inner = (lead + k for k, n in enumerate(wanted) if n == 1 and had[lead + k] != 1)
    return (*range(lead), *inner)


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
