"""Hooks on the node that writes one ``.grad``: what comes in, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from .graph import port_of

Gradients = tuple[Tensor | None, ...]


class DepositHooks:
    """``before`` is told what a backward brings, ``after`` that it and its hooks are done.

    The hooks are on the node, not on the tensor: there they run last before the write, first after
    it, and only in passes that write.
    """

    def __init__(
        self, tensor: Tensor, before: Callable[[Tensor], None], after: Callable[[], None]
    ) -> None:
        self.node: Node = port_of(tensor).node  # kept, or torch would make another one

        def prehook(received: Gradients) -> None:
            if received[0] is not None:
                before(received[0])

        def posthook(sent: Gradients, received: Gradients) -> None:
            after()

        self._handles: tuple[RemovableHandle, ...] = (
            self.node.register_prehook(prehook),
            self.node.register_hook(posthook),
        )

    def sits_on(self, tensor: Tensor) -> bool:
        """Whether torch still writes through this node: ``tensor.data = ...`` may bring another."""
        return port_of(tensor).node is self.node

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
