"""Hooks on the node that writes one ``.grad``: what comes in, and what is there afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from .. import _torch
from .graph import port_of

Gradients = tuple[Tensor | None, ...]
_NOTE = "pullback.deposits"
_numbers = itertools.count(1)


class DepositHooks:
    """``before`` is told what a backward brings, ``after`` that it and its hooks are done.

    The hooks are on the node, not on the tensor: there they run last before the write, first after
    it, and only in passes that write. A node that nothing holds goes with its graph, and torch
    makes another one: ``hold`` keeps it, and with it the tensor.
    """

    def __init__(
        self,
        tensor: Tensor,
        before: Callable[[Tensor], None],
        after: Callable[[], None],
        *,
        hold: bool,
    ) -> None:
        node = port_of(tensor).node
        self._held = node if hold else None
        self._number = next(_numbers)
        _numbers_on(node).add(self._number)

        def prehook(received: Gradients) -> None:
            if received[0] is not None:
                before(received[0])

        def posthook(sent: Gradients, received: Gradients) -> None:
            after()

        self._handles: tuple[RemovableHandle, ...] = (
            node.register_prehook(prehook),
            node.register_hook(posthook),
        )

    def sits_on(self, tensor: Tensor) -> bool:
        """Whether torch still writes through this node: ``tensor.data = ...`` may bring another."""
        return self._number in _numbers_on(port_of(tensor).node)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _numbers_on(node: Node) -> set[int]:
    """Which of these hooks a node carries; numbers, since what they tell would hold the node."""
    found: set[int] = _torch.notes_of(node).setdefault(_NOTE, set())
    return found
