"""Zeros that a forward tensor has at all values of the arguments, by how it was made.

A Cholesky factor is triangular, ``diag_embed`` is diagonal, ``tril`` is zero above the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..graph import packet_name
from .base import Step

Mask = npt.NDArray[np.bool_]
_DEPTH = 20
_SAME = frozenset(
    "clone alias detach contiguous _to_copy neg _neg_view _conj _conj_physical conj_physical "
    "resolve_conj".split()
)
_MOVES = frozenset(
    "t transpose permute expand slice select squeeze unsqueeze diagonal tril triu "
    "diag_embed".split()
)
_RESHAPES = frozenset("view _unsafe_view reshape".split())


def nonzeros(step: Step, value: Any) -> Mask | None:
    """Where a tensor argument (a name or a node) may be nonzero; None if that is everywhere.

    Only what holds for all values of the arguments counts: fixed data, or structure.
    """
    node = step.arguments.get(value) if isinstance(value, str) else value
    if not isinstance(node, fx.Node):
        return None
    mask = step.nonzero(node)
    if mask is None and node not in step.graph.linear:
        mask = _by_structure(step, node, _DEPTH)
    return None if mask is None or mask.all() else mask


def _by_structure(step: Step, node: fx.Node, depth: int) -> Mask | None:
    if node.op != "call_function" or depth == 0:
        return None
    name, source = packet_name(node), node.args[0] if node.args else None
    if name == "getitem":
        return _factor(step, node)
    if name == "cholesky":
        return _cholesky(step, node, bool((*node.args[1:], *node.kwargs.values(), False)[0]))
    if name == "mul":
        masks = [_by_structure(step, n, depth - 1) for n in node.all_input_nodes]
        return _everywhere(step, node, [m for m in masks if m is not None])
    if not isinstance(source, fx.Node) or len(node.all_input_nodes) != 1:
        return None
    before = _by_structure(step, source, depth - 1)
    if before is None:
        if name not in ("tril", "triu", "diag_embed"):
            return None
        before = np.ones(step.meta_of(source).shape, dtype=bool)
    if name in _SAME:
        return before
    shape = step.meta_of(node).shape
    if name in _RESHAPES:
        return before.reshape(shape)
    return _run(node, source, before) if name in _MOVES else None


def _everywhere(step: Step, node: fx.Node, masks: list[Mask]) -> Mask | None:
    shape = step.meta_of(node).shape
    whole = [np.broadcast_to(m, shape) for m in masks]
    return np.logical_and.reduce(whole) if whole else None


def _run(node: fx.Node, source: fx.Node, mask: Mask) -> Mask:
    """A movement of elements, on the mask itself."""
    args, kwargs = pytree.tree_map(
        lambda a: torch.from_numpy(np.ascontiguousarray(mask)) if a is source else a,
        (node.args, dict(node.kwargs)),
    )
    target: Any = node.target
    found: Mask = target(*args, **kwargs).numpy()
    return found


def _cholesky(step: Step, node: fx.Node, upper: bool) -> Mask:
    whole = np.ones(step.meta_of(node).shape, dtype=bool)
    found: Mask = np.triu(whole) if upper else np.tril(whole)
    return found


def _factor(step: Step, node: fx.Node) -> Mask | None:
    """The triangles of matrix factorizations, which torch fills with exact zeros."""
    made, entry = node.args
    if not isinstance(made, fx.Node) or not isinstance(entry, int):
        return None
    half: Callable[..., Any] | None = None
    name = packet_name(made)
    if name == "linalg_cholesky_ex" and entry == 0:
        return _cholesky(step, node, bool(made.kwargs.get("upper", False)))
    if (name, entry) in (("linalg_lu", 1), ("lu_unpack", 1)):
        half = np.tril
    elif (name, entry) in (("linalg_lu", 2), ("lu_unpack", 2), ("linalg_qr", 1)):
        half = np.triu
    if half is None:
        return None
    found: Mask = half(np.ones(step.meta_of(node).shape, dtype=bool))
    return found
