"""Pytrees of tensors: flattened, rebuilt, named by path, and seen as one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any


@dataclass(frozen=True)
class Structure:
    """How to rebuild a pytree from its leaves, and what to call each leaf.

    ``paths[k]`` is the Python subscript that reaches leaf ``k``: ``""`` for a bare tensor,
    ``"[0]"``, ``"['w']"`` and so on. ``names[k]`` is the same, but for a leaf under a string key,
    which is called by that key: ``w``, ``w[0]``.
    """

    spec: pytree.TreeSpec
    paths: tuple[str, ...]
    names: tuple[str, ...]

    def rebuild(self, leaves: Sequence[Any]) -> Tree:
        return pytree.tree_unflatten(list(leaves), self.spec)


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """Leaves in pytree order, and the structure that rebuilds the tree.

    >>> leaves, structure = flatten({"a": 1, "b": (2, 3)})
    >>> leaves, structure.paths
    ([1, 2, 3], ("['a']", "['b'][0]", "['b'][1]"))
    """
    keyed, spec = pytree.tree_flatten_with_path(tree)
    return [leaf for _, leaf in keyed], _structure(spec, [path for path, _ in keyed])


def flatten_each(trees: Sequence[Tree]) -> tuple[list[Any], Structure, list[Structure]]:
    """``flatten(tuple(trees))``, and the structure of every one of the trees."""
    keyed, spec = pytree.tree_flatten_with_path(tuple(trees))
    own: list[list[pytree.KeyPath]] = [[] for _ in trees]
    for path, _ in keyed:
        own[cast(pytree.SequenceKey[Any], path[0]).idx].append(path[1:])
    each = [_structure(child, paths) for child, paths in zip(spec.children(), own, strict=True)]
    leaves = [leaf for _, leaf in keyed]
    return leaves, _structure(spec, [path for path, _ in keyed]), each


def _structure(spec: pytree.TreeSpec, paths: Sequence[pytree.KeyPath]) -> Structure:
    return Structure(spec, tuple(map(pytree.keystr, paths)), tuple(map(_name, paths)))


def _name(path: pytree.KeyPath) -> str:
    if path and isinstance(path[0], pytree.MappingKey) and isinstance(path[0].key, str):
        return path[0].key + pytree.keystr(path[1:])
    return pytree.keystr(path)


def same_structure(left: Structure, right: Structure) -> bool:
    return bool(left.spec == right.spec)


def map_leaves(function: Callable[[Any], Any], tree: Tree) -> Tree:
    return pytree.tree_map(function, tree)


def total_numel(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def to_vector(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other in C order: shape ``(sum of numels,)``."""
    return torch.cat([t.reshape(-1) for t in tensors])


def from_vector(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut the last axis of ``vector`` into pieces shaped as ``like``; leading axes are kept."""
    lead = vector.shape[:-1]
    pieces = vector.split([t.numel() for t in like], dim=-1)
    return [
        piece.reshape((*lead, *t.shape)).to(t.dtype) for piece, t in zip(pieces, like, strict=True)
    ]
