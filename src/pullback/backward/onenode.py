"""torch's engine on one node of a graph: as much of a pass as a step is."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from .. import _torch
from .graph import Port
from .passlog import Gradients


class Ran(NamedTuple):
    """``sent``: an entry per edge. ``hooked``: what the node was given once the hooks on the
    tensors that it made had run."""

    sent: Gradients
    hooked: Gradients


class _Enough(Exception):  # noqa: N818 - the pass is over; nothing went wrong
    """Ends a pass after its first node: the nodes that this one sends to must not run, nor the
    hooks on their tensors, which the engine calls where it captures a gradient, too."""


def run_node(node: Node, received: Gradients, ports: Collection[Port]) -> Ran:
    """Run ``node`` with its hooks. It computes what it sends to ``ports``, if not more."""
    mine = _OwnPass(received)
    hooked: list[Gradients] = []
    sent: list[Gradients] = []
    nothing = all(value is None for value in received)

    def before(values: Gradients) -> Gradients | None:
        if mine() and not hooked:
            hooked.append(values)
            return (None,) * len(values) if nothing else None
        return None

    def after(values: Gradients, _: Gradients) -> None:
        if mine():
            sent.append(values)
            raise _Enough

    first = node.register_prehook(before)
    last = node.register_hook(after)
    _torch.run_first(first)
    roots, grads = _roots(node, _zero(node, len(received)) if nothing else received)
    try:
        with torch.autograd.set_detect_anomaly(False):  # it would report the end of the pass
            if not ports:
                torch.autograd.backward(roots, grads, retain_graph=True)
            else:
                ends = [GradientEdge(*port) for port in dict.fromkeys(ports)]
                torch.autograd.grad(roots, ends, grads, retain_graph=True, allow_unused=True)
    except _Enough:
        pass
    finally:
        first.remove()
        last.remove()
    return Ran(sent[0], (None,) * len(received) if nothing else hooked[0])


class _OwnPass:
    """Whether a hook is called by the pass that set it up, not by one of the user's over the same
    node: in another thread, or one that builds a graph."""

    def __init__(self, received: Gradients) -> None:
        # On other devices the engine runs hooks in threads of its own.
        on_cpu = all(value is None or value.device.type == "cpu" for value in received)
        self._thread = threading.get_ident() if on_cpu else None

    def __call__(self) -> bool:
        return not torch.is_grad_enabled() and self._thread in (None, threading.get_ident())


def capture(node: Node, received: Gradients, slots: Sequence[int]) -> dict[int, Tensor]:
    """What the hooks on the tensors that ``node`` made turn its cotangents in ``slots`` into, the
    node itself left alone: what a look finds at a leaf. Where nothing has arrived no hook runs."""
    given = [slot for slot in slots if received[slot] is not None]
    if not given:
        return {}
    roots, grads = _roots(node, received)
    ends = [GradientEdge(node, slot) for slot in given]
    found = torch.autograd.grad(roots, ends, grads, retain_graph=True, allow_unused=True)
    return {slot: value for slot, value in zip(given, found, strict=True) if value is not None}


def deposit(node: Node, leaf: Tensor, value: Tensor) -> None:
    """Add ``value``, which the hooks of ``leaf`` have seen, to its ``.grad`` as the engine does."""
    with _torch.without_tensor_hooks(leaf):
        torch.autograd.backward([GradientEdge(node, 0)], [value])


def _roots(node: Node, received: Gradients) -> tuple[list[GradientEdge], list[Tensor]]:
    given = [(slot, value) for slot, value in enumerate(received) if value is not None]
    return [GradientEdge(node, slot) for slot, _ in given], [value for _, value in given]


def _zero(node: Node, slots: int) -> Gradients:
    """Something to start the engine with where a node has received nothing."""
    first = _torch.slots(node)[0]
    zero = torch.zeros(first.shape, dtype=first.dtype, device=_torch.slot_device(node, 0))
    return (zero, *[None] * (slots - 1))
