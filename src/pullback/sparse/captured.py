"""A captured function, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .._trees import Structure
from .arguments import in_layout
from .graph import Meta, PullbackGraph
from .tape import Tape


class NotCaptured(Exception):  # noqa: N818 - it is no error: another engine takes over
    """Why no graph stands for the function.

    ``graph`` is what was recorded at the sample, where it could be: not to be replayed, but its
    pattern may hold elsewhere.
    """

    def __init__(self, reason: str, graph: PullbackGraph | None = None) -> None:
        super().__init__(reason)
        self.graph = graph


@dataclass
class Captured:
    """A pullback graph of one function, and what a later call must find unchanged.

    ``guards`` are the names of owned tensors and arguments whose content was baked in or relied
    on; ``out`` and ``aux`` rebuild what the function returned; ``batches`` says whether torch's
    rules for batching the linear part give what it gives one by one. ``cuts`` is a call by which
    the function makes its backward another one than the derivative of its values, in words.
    """

    graph: PullbackGraph
    forward: fx.GraphModule
    linear: fx.GraphModule
    handed: list[fx.Node]
    out: Structure
    returned: list[Meta]
    outputs: list[Meta]
    aux: Structure | None
    aux_leaves: list[Any]
    guards: set[str]
    owned: list[str]
    batches: bool = True
    in_where_form: bool = False
    cuts: str = ""

    def inputs(
        self, owned: Sequence[Tensor], primals: Sequence[Tensor], others: Sequence[Tensor]
    ) -> list[Tensor]:
        """The inputs of the graph, cotangents left out, in the strides that it was captured at."""
        expected = self.graph.inputs[len(owned) :]
        laid_out = zip((*primals, *others), expected, strict=False)
        return [
            *map(_plain, owned),
            *(in_layout(_plain(t), i.meta.stride) for t, i in laid_out),
        ]

    def run_forward(self, tensors: Sequence[Tensor]) -> tuple[list[Any], list[Tensor]]:
        """What the linear part needs, and the outputs (with the tensors of aux after them).

        Gradients are enabled, though nothing requires one: some operators (the fused LSTM) keep
        what their backward needs in that mode alone.
        """
        with without_autocast(), _gradients_enabled():
            results = self.forward.forward(*tensors)
        cut = len(self.handed)
        return list(results[:cut]), list(results[cut:])

    def run_linear(
        self, handed: Sequence[Any], cotangents: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        with without_autocast():
            found: tuple[Tensor | None, ...] = self.linear.forward(*handed, *cotangents)
        return found


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor


_NOTHING = nullcontext()


def _gradients_enabled() -> AbstractContextManager[None]:
    return _NOTHING if torch.is_grad_enabled() else torch.enable_grad()


def without_autocast() -> AbstractContextManager[None]:
    """A graph holds the casts that autocast made; it must not be cast again."""
    running = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return _switched_off(running) if running else _NOTHING


@contextmanager
def _switched_off(running: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for kind in running:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@dataclass
class Recorded:
    """One run under the tape: the raw graph, and the tensors at its ends."""

    tape: Tape
    module: fx.GraphModule
    outputs: list[Tensor]
    cotangents: list[Tensor]
    gradients: tuple[Tensor | None, ...]
    out: Structure
    returned: list[Meta]
    aux_leaves: list[Any]
    aux: Structure | None
