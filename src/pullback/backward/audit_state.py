"""A backward as a map: linear in its cotangent, the same twice, and writing nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from ..draw.numbers import number
from .audit_call import Call, Gradients, kept_tensors
from .verdict import Verdict

Cotangents = tuple[Tensor | None, ...]
SCALES = (-1.0, 1e-3, 1e3)


def drawn_like(tensors: Sequence[Tensor | None], made: torch.Generator) -> Cotangents:
    """Standard normal numbers in place of every tensor."""
    return tuple(None if t is None else normal_like(t, made) for t in tensors)


def normal_like(tensor: Tensor, made: torch.Generator) -> Tensor:
    real = torch.empty(tensor.shape, dtype=tensor.dtype)  # drawn on the CPU: the same everywhere
    return real.normal_(generator=made).to(tensor.device)


def state(call: Call, v: Cotangents, w: Cotangents) -> Iterator[Verdict]:
    """Findings from a few calls of the backward, with ``v``, ``w`` and multiples of them."""
    yield from _kept(call)
    yield from _writes(call)
    first, second = call.pull(v), call.pull(v)
    if not all(map(_same, first, second)):
        yield _random(call, first, second)
        return
    yield from _linear(call, v, w, first)


def _kept(call: Call) -> Iterator[Verdict]:
    ports = {a.port: a for a in call.arguments if a.port is not None}
    values = {id(a.value): a for a in call.arguments if isinstance(a.value, Tensor)}
    for name, tensor in kept_tensors(call.node):
        if tensor.grad_fn is call.node:
            yield _kept_output(call, name)
            continue
        argument = values.get(id(tensor))
        if argument is None and tensor.requires_grad:
            argument = next((a for p, a in ports.items() if _leads_to(tensor, p)), None)
        if argument is not None:
            yield _kept_input(call, name, argument.name, tensor)


def _leads_to(tensor: Tensor, port: Any) -> bool:
    return tensor.grad_fn is port.node and tensor.output_nr == port.slot


def _kept_output(call: Call, name: str) -> Verdict:
    return Verdict(
        "output_kept_on_ctx",
        f"{call.name} keeps its own output as ctx.{name}: output, graph and ctx hold each other, "
        "and only the garbage collector frees them. A write into it before backward goes unseen.",
        (("attribute", f"ctx.{name}"),),
        "Save it:\n    ctx.save_for_backward(output)\nand in backward:\n"
        "    (output,) = ctx.saved_tensors",
    )


def _kept_input(call: Call, name: str, argument: str, tensor: Tensor) -> Verdict:
    return Verdict(
        "input_kept_on_ctx",
        f"{call.name} keeps its input `{argument}` as ctx.{name}. Whoever writes into it between "
        "forward and backward changes the gradient, and torch raises nothing; it also stays in "
        "memory after the graph was freed, as long as the output lives.",
        (("attribute", f"ctx.{name}"), ("times written to so far", str(tensor._version))),
        f"Save it:\n    ctx.save_for_backward({argument})\nand in backward:\n"
        f"    ({argument},) = ctx.saved_tensors",
    )


def _writes(call: Call) -> Iterator[Verdict]:
    for name in call.written:
        if name.startswith("cotangent"):
            yield Verdict(
                "writes_cotangent",
                f"{call.name}.backward writes into {name}, which others may still need: torch "
                "hands one tensor to all that it adds to.",
                (("written", name),),
                "Compute out of place, or on a copy:\n    grad = v.clone()",
            )
        else:
            yield Verdict(
                "writes_saved",
                f"{call.name}.backward writes into {name}: a second backward, with "
                f"retain_graph=True, gets other numbers or an error.",
                (("written", name),),
                "Compute out of place, or on a copy:\n    saved = saved.clone()",
            )


def _linear(call: Call, v: Cotangents, w: Cotangents, first: Gradients) -> Iterator[Verdict]:
    unused = any(g is not None and bool(g.any()) for g in first)
    if unused and all(map(_same, first, call.pull(w))):
        yield _without_cotangent(call)
        return
    for scale in SCALES:
        scaled = call.pull([None if t is None else scale * t for t in v])
        gap = _gap(scaled, [None if t is None else scale * t for t in first])
        if gap is not None:
            yield _nonlinear(
                call, f"backward({number(scale)} v) is not {number(scale)} backward(v)", gap
            )
            return
    added = call.pull(
        [None if a is None or b is None else a + b for a, b in zip(v, w, strict=True)]
    )
    parts = zip(first, call.pull(w), strict=True)
    gap = _gap(added, [a if b is None else b if a is None else a + b for a, b in parts])
    if gap is not None:
        yield _nonlinear(call, "backward(v + w) is not backward(v) + backward(w)", gap)


def _gap(found: Gradients, wanted: Sequence[Tensor | None]) -> tuple[float, float] | None:
    """The two entries that differ most, where they differ by more than rounding."""
    for a, b in zip(found, wanted, strict=True):
        if a is None or b is None or not a.numel():
            continue
        difference = (a - b).abs().reshape(-1).nan_to_num(0.0, 0.0, 0.0)  # where it overflows
        place = int(difference.argmax())
        largest = float(b.abs().nan_to_num(0.0, 0.0, 0.0).amax())
        least = torch.finfo(a.dtype).tiny  # below it digits are lost
        if float(difference[place]) > rounding(a.dtype) * largest + least:
            here, there = a.reshape(-1)[place], b.reshape(-1)[place]
            return float(here.real), float(there.real)
    return None


def rounding(dtype: torch.dtype) -> float:
    """What two ways to the same number may differ by, relative to the largest."""
    return float(torch.finfo(dtype).eps ** 0.5) if dtype.itemsize > 2 else 0.1


def _nonlinear(call: Call, law: str, gap: tuple[float, float]) -> Verdict:
    return Verdict(
        "not_linear",
        f"{call.name}.backward is not linear in its cotangent v: {law}. It clips, normalises or "
        "rounds v, and then no gradient behind it is a vector-Jacobian product: gradients of a "
        "sum are not the sum of gradients, and a loss scaled by 2 does not give twice the "
        "gradient.",
        (("found", number(gap[0])), ("a linear backward gives", number(gap[1]))),
        "Leave v as it is, and clip where all gradients have arrived:\n"
        "    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    )


def _without_cotangent(call: Call) -> Verdict:
    return Verdict(
        "not_linear",
        f"{call.name}.backward does not use its cotangent v: for another v it gives the same. It "
        "returns the derivative of forward, and v, the gradient that arrives at the output, is "
        "lost; the result is right only where v is all ones.",
        (("backward(v) and backward(w)", "the same"),),
        "Multiply by it:\n    return slope * v",
    )


def _random(call: Call, first: Gradients, second: Gradients) -> Verdict:
    pairs = zip(first, second, strict=True)
    gaps = [float((a - b).abs().amax()) for a, b in pairs if a is not None and b is not None]
    gap = max(gaps, default=float("nan"))
    return Verdict(
        "not_deterministic",
        f"{call.name}.backward gives another gradient when it is called again with the same "
        "cotangent, so what it draws or keeps count of is not what forward used.",
        (("largest difference", number(gap)),),
        "Draw in forward, and keep the draw:\n    mask = torch.rand_like(x) < p\n"
        "    ctx.save_for_backward(mask)",
    )


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else _torch.same_value(a, b)
