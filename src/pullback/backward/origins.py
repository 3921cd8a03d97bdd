"""Where a tensor comes from, without holding any tensor: the graph's shape, with the user's calls.

An `Origin` stands for one autograd node. It lives in the notes of the node, and in whatever still
asks where something came from after the node itself is gone: a value that was detached, a
backward that freed its graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias
from weakref import ref

from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .depth import STRETCH, latch
from .events import UserCall

_NOTE = "pullback.origin"


class Origin:
    """One node: its name, the call that made it (where that was traced), and what it came from.

    ``level`` is the longest way to a leaf; ``cuts`` stand between the node and what went into it
    without a graph.
    """

    __slots__ = ("__weakref__", "_name", "call", "cuts", "level", "parents")

    def __init__(self, node: Node, call: UserCall | None, parents: Sequence[AnyOrigin]) -> None:
        self._name = node.name()
        self.call = call
        self.parents = tuple(parents)
        self.level: int = 1 + max([parent.level for parent in parents], default=0)
        self.cuts: tuple[Cut, ...] = ()

    @property
    def name(self) -> str:
        return self._name.rpartition("::")[2]


class LeafOrigin:
    """A leaf of a graph; ``leaf()`` is None once it is gone."""

    __slots__ = ("__weakref__", "leaf")
    level = 0

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = ref(leaf)


class Cut:
    """One value that lost its graph: why, in which call, and what it had been computed from."""

    __slots__ = ("call", "reason", "source")

    def __init__(self, reason: str, call: UserCall, source: AnyOrigin) -> None:
        self.reason = reason
        self.call = call
        # The origin of a leaf holds nothing; another would hold all that it came from.
        self.source: Callable[[], AnyOrigin | None] = (
            ref(source) if isinstance(source, Origin) else lambda: source
        )

    @property
    def place(self) -> Place:
        return (self.call.file, self.call.line, self.call.code, self.reason)

    @property
    def key(self) -> tuple[Place, int]:
        """Tells it from the cuts at the same place that were made of other leaves."""
        source = self.source()
        leaf = source.leaf() if isinstance(source, LeafOrigin) else None
        return self.place, 0 if leaf is None else id(leaf)


# Called with every leaf that a graph is first seen to be made of.
on_new_leaf: list[Callable[[Tensor], None]] = []
AnyOrigin: TypeAlias = Origin | LeafOrigin
Place: TypeAlias = tuple[str, int, str, str]


def noted_origin(node: Node) -> AnyOrigin | None:
    found: AnyOrigin | None = _torch.notes_of(node).get(_NOTE)
    return found


def call_of(node: Node) -> UserCall | None:
    """The user call that made ``node``, if it was made under ``trace``."""
    found = noted_origin(node)
    return found.call if isinstance(found, Origin) else None


def children_of(node: Node) -> list[Node]:
    return [child for child, _ in node.next_functions if child is not None]


def note_origin(node: Node, call: UserCall | None, children: Sequence[Node]) -> Origin:
    """Note that ``call`` made ``node``, and hold what lies in another stretch below it."""
    parents = [noted_origin(child) or origin_of(child) for child in children]
    origin = Origin(node, call, parents)
    _torch.notes_of(node)[_NOTE] = origin
    stretch = origin.level // STRETCH
    if any(parent.level // STRETCH != stretch for parent in parents):
        latch(node, origin.level, [(c, o.level) for c, o in zip(children, parents, strict=True)])
    return origin


def origin_of(node: Node) -> AnyOrigin:
    """The origin of ``node``; that of nodes which no traced call made is noted without a call."""
    stack = [node]
    while stack:
        top = stack[-1]
        if noted_origin(top) is not None:
            stack.pop()
            continue
        children = children_of(top)
        open_ones = [child for child in children if noted_origin(child) is None]
        if open_ones:
            stack.extend(open_ones)
            continue
        stack.pop()
        leaf = _torch.leaf_of(top)
        if leaf is None:
            note_origin(top, None, children)
        else:
            _torch.notes_of(top)[_NOTE] = LeafOrigin(leaf)
            for told in on_new_leaf:
                told(leaf)
    found = noted_origin(node)
    assert found is not None
    return found


def origin_of_tensor(tensor: Tensor) -> AnyOrigin:
    """Of a tensor that requires a gradient."""
    return LeafOrigin(tensor) if tensor.grad_fn is None else origin_of(tensor.grad_fn)


def is_own_leaf(tensor: Tensor) -> bool:
    """Whether a tensor is the leaf of a graph that is nothing but itself.

    Setting ``loss.requires_grad = True`` makes one: its backward runs, deposits 1 in ``loss.grad``
    and reaches no parameter.
    """
    return tensor.requires_grad and tensor.is_leaf


def walk_to(target: AnyOrigin, start: AnyOrigin, seen: set[int]) -> tuple[bool, list[Cut]]:
    """Whether ``start`` came from ``target``, and the cuts met on the way; ``seen`` is left out."""
    leaf = target.leaf() if isinstance(target, LeafOrigin) else None
    cuts: list[Cut] = []
    stack = [start]
    while stack:
        found = stack.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Origin):
            if found is target:
                return True, cuts
            cuts.extend(found.cuts)
            stack.extend(found.parents)
        elif leaf is not None and found.leaf() is leaf:
            return True, cuts
    return False, cuts


def reaches(start: AnyOrigin, target: AnyOrigin) -> bool:
    """Whether ``start`` came from ``target``, with gradients all the way."""
    return walk_to(target, start, set())[0]
