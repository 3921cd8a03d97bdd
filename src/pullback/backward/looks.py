"""Looks: backward passes that leave no trace, one or a whole basis of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .. import _torch
from .outcome import Job, finished
from .passlog import Keeper
from .record import BackwardRecord
from .watch import Watcher


@contextmanager
def collector_paused() -> Iterator[None]:
    """A record makes many small objects that stay: each full collection would walk them all."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def look(job: Job, watcher: Watcher) -> None:
    """Run the pass of ``job`` once, without a deposit."""
    watcher.watch(leaves=False)
    ports = list(dict.fromkeys(job.targets.ports()))
    edges = [GradientEdge(port.node, port.slot) for port in ports]
    marker = watcher.marker
    copies = [value.clone() for value in job.values]  # a custom backward may write into its own
    grads = torch.autograd.grad(
        [marker.output, *job.out.tensors],
        [marker.edge, *edges],
        [marker.weight, *copies],
        retain_graph=job.retain,
        allow_unused=True,
    )
    for port, grad in zip(ports, grads[1:], strict=True):
        watcher.own.capture(port, grad)


def run_looks(
    job: Job, cotangents: Iterable[Sequence[Tensor]], take: Callable[[BackwardRecord], None]
) -> None:
    """Hand ``take`` the record of one look for each set of cotangents.

    What a look has to leave alone is searched for once: that costs more than a small pass.
    """
    with torch.no_grad(), collector_paused(), _torch.untouched(job.graph.children_of):
        for values in cotangents:
            each = job._replace(values=tuple(values))
            watcher = Watcher(job.graph, Keeper(job.keep))
            seeds = watcher.seed(each.values)
            try:
                look(each, watcher)
            finally:
                watcher.unwatch()
            take(finished(each, watcher, seeds, {}))
