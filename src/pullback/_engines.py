"""The calls into ``torch.autograd``: one gradient, and the ladder of engines for a batch.

Only this module and the backward recorder differentiate. An engine that torch refuses is left
with a reason; the last one, a plain loop, refuses nothing, so an error of the user's own graph
comes out of it as torch words it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from . import _checks, _torch

Source = Tensor | GradientEdge
Gradients = tuple[Tensor | None, ...]

BYTES_AT_ONCE = 256 * 2**20
ORDER = ("vmap", "batched grads", "loop")
# Nodes for which torch's rule of batching gives other numbers than one product at a time, found by
# comparing both on samples of torch's own operators.
WRONGLY_BATCHED = frozenset({"AsStridedScatterBackward0", "CdistBackward0"})


def gradients(
    outputs: Sequence[Source],
    inputs: Sequence[Source],
    cotangents: Sequence[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool = True,
) -> Gradients:
    """The gradients at ``inputs`` of the outputs weighed with ``cotangents``.

    None stands where an input has no path to any output. Outputs without a graph are skipped.
    """
    return _grad(outputs, inputs, cotangents, create_graph, retain_graph, batched=False)


def _grad(
    outputs: Sequence[Source],
    inputs: Sequence[Source],
    cotangents: Sequence[Tensor],
    create_graph: bool,
    retain_graph: bool,
    batched: bool,
) -> Gradients:
    # torch takes tensors and edges side by side; its annotations do not say so.
    live: list[Any] = []
    sources: Any = inputs
    weights: list[Tensor] = []
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if isinstance(output, GradientEdge) or output.requires_grad:
            live.append(output)
            weights.append(cotangent)
    if not live:
        return (None,) * len(inputs)
    found: Gradients = torch.autograd.grad(
        live,
        sources,
        weights,
        retain_graph=retain_graph,
        create_graph=create_graph,
        allow_unused=True,
        is_grads_batched=batched,
    )
    return found


@dataclass(frozen=True)
class Batch:
    """Gradients of shape ``(B, *input.shape)``, the engine that ran, and why not a faster one."""

    gradients: tuple[Tensor, ...]
    engine: str
    reasons: tuple[str, ...]


def batched_gradients(
    outputs: Sequence[Source],
    inputs: Sequence[Source],
    batch: Sequence[Tensor],
    chunk_size: int | None = None,
    *,
    like: Sequence[Tensor] | None = None,
    create_graph: bool = False,
    order: Sequence[str] | None = None,
) -> Batch:
    """``B`` products at once: ``batch[k]`` has shape ``(B, *outputs[k].shape)``.

    ``like`` gives the shape and dtype of each input where ``inputs`` holds gradient edges;
    ``order`` are the engines to try, instead of all that can be believed along this graph.
    """
    wrong = wrongly_batched(outputs) if order is None else ""
    shapes = [t for t in inputs if isinstance(t, Tensor)] if like is None else list(like)

    def product(cotangents: Sequence[Tensor]) -> Gradients:
        return gradients(outputs, inputs, cotangents, create_graph=create_graph)

    def at_once(cotangents: Sequence[Tensor]) -> Gradients:
        return _grad(outputs, inputs, cotangents, create_graph, retain_graph=True, batched=True)

    return climb_down(product, batch, shapes, chunk_size, at_once, order, wrong)


def wrongly_batched(outputs: Sequence[Source]) -> str:
    """A node behind the outputs that torch batches wrongly, if there is one."""
    names = {_torch.node_name(node) for node in _torch.nodes_behind(outputs)}
    return min(names & WRONGLY_BATCHED, default="")


def climb_down(
    product: Callable[[Sequence[Tensor]], Gradients],
    batch: Sequence[Tensor],
    like: Sequence[Tensor],
    chunk_size: int | None = None,
    at_once: Callable[[Sequence[Tensor]], Gradients] | None = None,
    order: Sequence[str] | None = None,
    wrong: str = "",
) -> Batch:
    """Run ``product`` over a batch with the first engine that torch lets through; one by one where
    ``wrong`` names a node that torch batches wrongly."""
    if wrong:
        found = climb_down(product, batch, like, chunk_size, at_once, ("loop",))
        return replace(found, reasons=(_checks.wrongly_batched(wrong), *found.reasons))
    engines = {
        "batched grads": at_once,
        "vmap": lambda chunk: _vmapped(product, chunk),
        "loop": lambda chunk: _looped(product, chunk, like),
    }
    rungs = [(name, engine) for name in order or ORDER if (engine := engines[name])]
    size = batch[0].shape[0]
    if size == 0:
        return Batch(tuple(t.new_zeros((0, *t.shape)) for t in like), rungs[0][0], ())
    pieces: list[tuple[Tensor, ...]] = []
    reasons: list[str] = []
    for start, stop in chunks(size, chunk_size, _bytes_each(batch, like)):
        chunk = [t[start:stop] for t in batch]
        while len(rungs) > 1:
            name, engine = rungs[0]
            try:
                with _performance_drops(reasons):
                    pieces.append(_filled(engine(chunk), like, stop - start))
                break
            except Exception as error:  # torch and the user's Python refuse in many ways
                reasons.append(f"{name} was left: {_first_line(error)}")
                del rungs[0]
        else:
            pieces.append(_filled(rungs[0][1](chunk), like, stop - start))
    joined = tuple(map(torch.cat, zip(*pieces, strict=True))) if len(pieces) > 1 else pieces[0]
    return Batch(joined, rungs[0][0], tuple(dict.fromkeys(reasons)))


def _vmapped(
    product: Callable[[Sequence[Tensor]], Gradients], batch: Sequence[Tensor]
) -> Gradients:
    if batch and _torch.can_map:
        return _torch.mapped(product, batch)
    used: list[bool] = []

    def found(*cotangents: Tensor) -> tuple[Tensor, ...]:
        results = product(cotangents)
        used[:] = [result is not None for result in results]
        return tuple(result for result in results if result is not None)

    # "same": one draw of whatever the backward draws, or the rows would mix several Jacobians.
    results = iter(torch.func.vmap(found, randomness="same")(*batch) if batch else ())
    return tuple(next(results) if there else None for there in used)


def _looped(
    product: Callable[[Sequence[Tensor]], Gradients],
    batch: Sequence[Tensor],
    like: Sequence[Tensor],
) -> Gradients:
    rows = [product([t[k] for t in batch]) for k in range(batch[0].shape[0])]
    columns = zip(*rows, strict=True)
    return tuple(
        torch.stack([torch.zeros_like(t) if entry is None else entry for entry in column])
        for t, column in zip(like, columns, strict=True)
    )


def _bytes_each(batch: Sequence[Tensor], like: Sequence[Tensor]) -> int:
    cotangents = sum(t[0].numel() * t.element_size() for t in batch)
    return cotangents + sum(t.numel() * t.element_size() for t in like)


def chunks(size: int, chunk_size: int | None, bytes_each: int) -> Iterator[tuple[int, int]]:
    """Cut ``size`` products into runs of ``chunk_size``, or of what the byte budget holds."""
    step = chunk_size or max(1, BYTES_AT_ONCE // max(1, bytes_each))
    for start in range(0, size, step):
        yield start, min(start + step, size)


def _filled(piece: Gradients, like: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
    return tuple(
        t.new_zeros((size, *t.shape)) if gradient is None else gradient
        for gradient, t in zip(piece, like, strict=True)
    )


@contextmanager
def _performance_drops(reasons: list[str]) -> Iterator[None]:
    """Turn torch's warnings about slow batching rules into reasons; pass every other one on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = str(warning.message)
        if text.startswith("There is a performance drop"):
            operator = text.partition("batching rule for ")[2].partition(". ")[0]
            reasons.append(f"torch has no batching rule for {operator} and loops over it.")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
