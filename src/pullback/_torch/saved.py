"""What autograd nodes have saved, and what one of them sends when it runs by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .nodes import custom_function, leaf_of, node_name, saved_tensors


def saved_values(node: Node) -> dict[str, Any]:
    """What a node keeps for its backward, by name: tensors, tuples of them, and numbers.

    Tensors that a hook has packed are unpacked, which may compute them again; freed ones are left
    out. Keep the node alive: what it saved is read through it.
    """
    found: dict[str, Any] = {}
    for attribute in dir(node):
        if attribute.startswith("_saved_"):
            name = attribute.removeprefix("_saved_")
            try:
                found[name] = _saved(node, name)
            except RuntimeError:  # freed, or modified since
                continue
    return found


def plainly_saved(node: Node) -> dict[str, Tensor]:
    """The tensors among ``saved_values`` that lie there as tensors: a checkpoint, which would
    compute them again, has put something else in their place."""
    found = {}
    for name in saved_tensors(node):
        raw = getattr(node, f"_raw_saved_{name}")
        if isinstance(raw, (tuple, list)) or not isinstance(getattr(raw, "data", None), Tensor):
            continue
        try:
            found[name] = _saved(node, name)
        except RuntimeError:  # modified since
            continue
    return found


def numbers_saved(node: Node) -> dict[str, Any]:
    """What a node keeps beside tensors: nothing is unpacked."""
    names = {a.removeprefix("_saved_") for a in dir(node) if a.startswith("_saved_")}
    tensors = {a.removeprefix("_raw_saved_") for a in dir(node) if a.startswith("_raw_saved_")}
    return {name: _saved(node, name) for name in names - tensors}


def _saved(node: Node, name: str) -> Any:
    kept = getattr(node, f"_saved_{name}")
    if isinstance(kept, int) and kept >= 1 << 63:  # a negative dim, read as unsigned
        kept -= 1 << 64
    if isinstance(kept, tuple):
        kept = tuple(k - (1 << 64) if isinstance(k, int) and k >= 1 << 63 else k for k in kept)
    return kept.detach() if isinstance(kept, Tensor) else kept


def run_alone(node: Node, received: Sequence[Tensor | None]) -> tuple[Tensor | None, ...] | None:
    """What a node of torch's own sends for ``received``, before the engine sums it to the shapes
    of its inputs; None where it cannot be called by itself. No hook runs, nothing is freed."""
    if custom_function(node) is not None or leaf_of(node) is not None or not callable(node):
        return None
    try:
        with torch.no_grad():
            sent = node(*received)
    except (RuntimeError, TypeError):
        return None
    return tuple(sent) if isinstance(sent, (tuple, list)) else (sent,)


def is_compiled_region(node: Node) -> bool:
    """Whether a node stands for all that ``torch.compile`` made one function of."""
    return node_name(node).startswith("CompiledFunction")
