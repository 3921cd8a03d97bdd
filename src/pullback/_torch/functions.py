"""Nodes of custom ``torch.autograd.Function``s: what their backward returns before torch looks.

Like ``_torch``, this reads private parts of torch, tried by ``_capabilities``. The engine asks such
a node for its ``apply``; what that returns it sums, casts or refuses before any hook sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.autograd.graph import Node


class Expected(NamedTuple):
    """What the engine takes the gradient for one input to be."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def expected_at(node: Node, slot: int) -> Expected:
    known = node._input_metadata[slot]
    return Expected(tuple(known.shape), known.dtype, known.device)


def run_backward(node: Node, cotangents: tuple[Tensor | None, ...]) -> Any:
    """The ``backward`` that the user wrote, called once more; its return as it is."""
    return node.apply(*cotangents)  # type: ignore[attr-defined]


Heard = Callable[[tuple[Any, ...], Callable[[], Any]], Any]


@contextmanager
def overheard(node: Node, heard: Heard) -> Iterator[None]:
    """Within it a pass gets from ``node`` what ``heard(cotangents, run)`` returns."""
    apply = node.apply  # type: ignore[attr-defined]

    def instead(*cotangents: Any) -> Any:
        return heard(cotangents, lambda: apply(*cotangents))

    node.apply = instead  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del node.apply  # type: ignore[attr-defined]


@contextmanager
def unwritten(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """Undo what is written into ``tensors`` within, count of writes included.

    The list tells, afterwards, which of them were written to.
    """
    plain = [t.detach() for t in tensors]
    before, written = [t.clone() for t in plain], list[int]()
    with _unsafe_preserve_version_counter(tuple(tensors)):
        yield written
        for k, (now, then) in enumerate(zip(plain, before, strict=True)):
            if now.shape != then.shape or not same_value(now, then):
                written.append(k)
                now.copy_(then)


def same_value(a: Tensor, b: Tensor) -> bool:
    """Equal, where a number that is none equals itself."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def kept_as_attributes(node: Node) -> dict[str, Any]:
    """What forward hung on its ``ctx`` by name."""
    return dict(vars(node))


def saved_by(node: Node) -> tuple[Tensor | None, ...]:
    """What ``ctx.save_for_backward`` keeps, unpacked; RuntimeError where it is freed or stale."""
    return tuple(node.saved_tensors)  # type: ignore[attr-defined]


def needs_gradient(node: Node) -> tuple[bool, ...]:
    """For every argument of forward: does it need a gradient?"""
    return tuple(node.needs_input_grad)  # type: ignore[attr-defined]


def refuses_twice(grad: Tensor) -> bool:
    """Whether a gradient comes from a backward that is ``once_differentiable``."""
    return grad.grad_fn is not None and grad.grad_fn.name().endswith("::Error")
