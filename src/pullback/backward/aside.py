"""What belongs to the user and a step would change: put aside while it runs."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch

Retained = tuple[tuple[Tensor, Tensor], ...]


class Random(NamedTuple):
    """The state of torch's generators."""

    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> Random:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(torch.get_rng_state(), cuda)

    def put(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)

    def same_as(self, other: Random) -> bool:
        pairs = zip(self.cuda, other.cuda, strict=False)
        return torch.equal(self.cpu, other.cpu) and all(torch.equal(a, b) for a, b in pairs)


class Aside:
    """A pass draws from generators, from where they stood when it began, and fills the ``.grad`` of
    tensors that retain theirs. ``random`` is where the pass has got to."""

    def __init__(self, nodes: Container[Node]) -> None:
        self.random = Random.now()
        self._retaining: dict[Node, list[Tensor]] = {}
        for tensor, _ in _torch.watched_tensors(nodes).retaining:
            assert tensor.grad_fn is not None
            self._retaining.setdefault(tensor.grad_fn, []).append(tensor)

    @contextmanager
    def running(self, node: Node) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Give the generators to the pass; the list is filled with what ``.grad`` of each retaining
        tensor of ``node`` was given."""
        grads = [(tensor, tensor.grad) for tensor in self._retaining.get(node, ())]
        theirs = Random.now()
        if not theirs.same_as(self.random):
            self.random.put()
        found: list[tuple[Tensor, Tensor]] = []
        try:
            for tensor, _ in grads:
                tensor.grad = None
            yield found
            found += [(tensor, tensor.grad) for tensor, _ in grads if tensor.grad is not None]
        except BaseException:
            self._give_back(theirs, grads)
            raise
        now = self._give_back(theirs, grads)
        if not now.same_as(self.random):
            self.random = now

    def _give_back(self, theirs: Random, grads: list[tuple[Tensor, Tensor | None]]) -> Random:
        now = Random.now()
        if not now.same_as(theirs):
            theirs.put()
        for tensor, grad in grads:
            tensor.grad = grad
        return now
