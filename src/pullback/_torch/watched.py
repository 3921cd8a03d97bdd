"""What a backward pass would leave behind on tensors that watch it, found and undone."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

# Classes of torch whose instances no operation returns to a user's program with a graph.
_NEVER_COMPUTED = (
    "torch.nn.parameter",
    "torch._subclasses",
    "torch.testing",
    "torch.sparse.semi_structured",
)


def _tensor_types() -> list[type[Any]]:
    """Tensor and its subclasses. Compared by identity: hashing a class may run a user's code."""
    found: dict[int, type[Any]] = {id(Tensor): Tensor}
    stack: list[type[Any]] = [Tensor]
    while stack:
        for child in type.__subclasses__(stack.pop()):
            if id(child) not in found:
                found[id(child)] = child
                stack.append(child)
    return [t for t in found.values() if not str(t.__module__).startswith(_NEVER_COMPUTED)]


def _live_tensors() -> list[Tensor]:
    """Every tensor in Python's reach that may have been computed; a node holds its own weakly.

    Found as what refers to the classes of tensors, as every instance does. ``gc.get_objects()``
    would also hand out the half-built tuples of other threads, whose construction fails while
    somebody else refers to them.
    """
    types = _tensor_types()
    known = set(map(id, types))
    return [found for found in gc.get_referrers(*types) if id(type(found)) in known]


def _attribute(tensor: Tensor, name: str) -> Any:
    try:
        return getattr(tensor, name)
    except Exception:  # a subclass may refuse any attribute, with any exception
        return None


class Watched(NamedTuple):
    """The tensors of a graph on which a backward pass has an effect of the user's making."""

    retaining: list[tuple[Tensor, Tensor | None]]
    hooked: list[Tensor]

    def see_each_pass(self, inputs: Sequence[Tensor]) -> bool:
        """Whether somebody looks at single cotangents on the way, who must not meet a batch.

        A batched tensor is dead after its batch: a hook that keeps it cannot read it, and a
        tensor that retains its gradient cannot add to it.
        """
        return bool(self.retaining or self.hooked or any(t._backward_hooks for t in inputs))


def watched_tensors(nodes: Container[Node]) -> Watched:
    """Non-leaf tensors made by ``nodes``: those that retain their gradient (with it), and those
    that carry hooks."""
    retaining: list[tuple[Tensor, Tensor | None]] = []
    hooked: list[Tensor] = []
    for tensor in _live_tensors():
        has_hooks = bool(_attribute(tensor, "_backward_hooks"))
        retains = bool(_attribute(tensor, "retains_grad"))
        if not (has_hooks or retains) or tensor.grad_fn is None or tensor.grad_fn not in nodes:
            continue
        if has_hooks:
            hooked.append(tensor)
        if retains:
            retaining.append((tensor, tensor.grad))
    return Watched(retaining, hooked)


def frozen_objects() -> int:
    """How many objects ``gc.freeze()`` has put out of the sight of ``watched_tensors``."""
    return gc.get_freeze_count()


@contextmanager
def untouched(nodes: Container[Node]) -> Iterator[Watched]:
    """Undo what a look would leave behind: ``.grad`` of retaining tensors, and the random state.

    ``autograd.grad`` fills the ``.grad`` of every tensor with ``retain_grad()`` on its way. The
    generators belong to the whole process: they are put back only if the pass has drawn.
    """
    watched = watched_tensors(nodes)
    cuda = torch.cuda.is_initialized()
    state = torch.get_rng_state()
    states = torch.cuda.get_rng_state_all() if cuda else []
    try:
        yield watched
    finally:
        if not torch.equal(state, torch.get_rng_state()):
            torch.set_rng_state(state)
        if cuda:
            torch.cuda.set_rng_state_all(states)
        for tensor, grad in watched.retaining:
            if tensor.grad is not grad:
                tensor.grad = grad


def computed_tensors() -> list[Tensor]:
    """Every tensor in Python's reach that has a graph behind it."""
    return [t for t in _live_tensors() if _attribute(t, "grad_fn") is not None]
