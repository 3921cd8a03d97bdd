"""Single products: ``vjp``, ``jvp`` and the pullback object that ``vjp`` returns.

Plain autograd is used wherever it is the outermost differentiation; inside a transform, under
forward-mode AD, in inference mode and under a compiler the work goes to ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node
from torch.utils import _pytree as pytree

from . import _checks, _torch
from ._engines import Batch, Source, batched_gradients, climb_down, gradients
from ._trees import Tree

_BARE = pytree.tree_structure(0)


class Products(Protocol):
    """A linear map, given by its products: one at a time, or a batch along a leading axis."""

    def one(
        self, cotangents: Sequence[Tensor], retain_graph: bool, create_graph: bool | None
    ) -> tuple[Tensor, ...]: ...

    def many(self, batch: Sequence[Tensor], chunk_size: int | None) -> Batch: ...


class GraphProducts:
    """The map from cotangents at ``outputs`` to gradients at ``inputs`` along one autograd graph.

    ``private`` are the leaves that only this graph owns; ``outside`` says whether it has others,
    whose derivatives the caller may still want.
    """

    def __init__(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Source],
        like: Sequence[Tensor],
        private: Sequence[Tensor],
        outside: bool,
    ) -> None:
        self.outputs = outputs
        self.nodes = [output.grad_fn for output in outputs] if outside else None
        self.inputs = inputs
        self.like = like
        self.private = private
        self.outside = outside

    def one(
        self,
        cotangents: Sequence[Tensor],
        retain_graph: bool = True,
        create_graph: bool | None = None,
    ) -> tuple[Tensor, ...]:
        deeper = self._is_differentiated(cotangents, create_graph)
        found = gradients(
            self._sources(),
            self.inputs,
            cotangents,
            create_graph=deeper,
            retain_graph=retain_graph,
        )
        return self._results(
            [
                torch.zeros_like(t) if gradient is None else gradient
                for t, gradient in zip(self.like, found, strict=True)
            ],
            deeper,
        )

    def many(self, batch: Sequence[Tensor], chunk_size: int | None = None) -> Batch:
        deeper = self._is_differentiated(batch, None)
        found = batched_gradients(
            self._sources(), self.inputs, batch, chunk_size, like=self.like, create_graph=deeper
        )
        return Batch(self._results(found.gradients, deeper), found.engine, found.reasons)

    def _sources(self) -> Sequence[Source]:
        """The outputs, or the edges they had: a caller may have changed an output in place."""
        if self.nodes is None:
            return self.outputs
        return [
            output
            if node is None or output.grad_fn is node
            else GradientEdge(node, output.output_nr)
            for output, node in zip(self.outputs, self.nodes, strict=True)
        ]

    def _is_differentiated(self, cotangents: Sequence[Tensor], wanted: bool | None) -> bool:
        if not (torch.is_grad_enabled() if wanted is None else wanted):
            return False
        return (
            self.outside
            or any(cotangent.requires_grad for cotangent in cotangents)
            or _torch.gradient_transform_is_running()
        )

    def _results(self, found: Sequence[Tensor], deeper: bool) -> tuple[Tensor, ...]:
        if not deeper or _torch.running_transform() is not None:
            return tuple(found)
        reach = Reach(self.private)
        return tuple(reach.visible(t) for t in found)


class Reach:
    """Tells which tensors depend on a leaf that is not one of ``private``."""

    def __init__(self, private: Sequence[Tensor]) -> None:
        self._private = {id(t) for t in private}
        self._inside: set[Node] = set()

    def outside(self, tensor: Tensor) -> bool:
        if tensor.grad_fn is None:
            return tensor.requires_grad and id(tensor) not in self._private
        seen: set[Node] = set()
        stack: list[Node] = [tensor.grad_fn]
        while stack:
            node = stack.pop()
            if node in seen or node in self._inside:
                continue
            seen.add(node)
            following = node.next_functions
            if not following:
                leaf = _torch.leaf_of(node)
                if leaf is not None and id(leaf) not in self._private:
                    return True
            stack.extend(child for child, _ in following if child is not None)
        self._inside |= seen
        return False

    def visible(self, tensor: Tensor) -> Tensor:
        """``tensor`` as the caller may see it: without a graph that leads to private leaves only."""
        return tensor if not tensor.requires_grad or self.outside(tensor) else tensor.detach()
