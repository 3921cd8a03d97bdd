"""What one backward pass did, as plain data: no graph, no hooks, nothing alive.

The identity that the records keep: for every node ``n`` and slot ``s``,

    n.upstream[s] == sum of edge.contribution over all edges with (target, slot) == (n.index, s)

unless the user's own hooks changed it on the way; such nodes say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .stats import Stats, stats_of

Key = str | int


@dataclass(frozen=True, slots=True, eq=False)
class Cotangent:
    """A cotangent as it passed: its type, its statistics, and its values where they were kept."""

    shape: tuple[int, ...]
    dtype: str
    device: str
    measured: Stats | None
    values: Tensor | None = None

    @property
    def stats(self) -> Stats:
        """Measured when it passed, or read off the values that were kept."""
        if self.measured is not None:
            return self.measured
        assert self.values is not None
        return stats_of(self.values)


@dataclass(frozen=True, slots=True)
class UserCall:
    """The call in the user's program that made a node, and the module that it ran in, if any."""

    function: str
    file: str
    line: int
    code: str
    module: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """One contribution: what ``source`` sent to slot ``slot`` of ``target``.

    ``source`` is None where the contribution is the cotangent of ``outputs[position]``; otherwise
    ``position`` is the place among the source's gradients. ``contribution`` is None where the
    source sent nothing (an undefined gradient, which is not a zero).
    """

    source: int | None
    position: int
    target: int
    slot: int
    contribution: Cotangent | None


@dataclass(frozen=True, slots=True)
class PassNode:
    """One node that ran: ``upstream`` holds what it received, one entry per slot.

    ``hooks`` ran between the contributions and the node, and ``changed_by_hooks`` says whether the
    sum of contributions is something else than the upstream because of them. ``sending_hooks`` ran
    after the node; what is recorded as sent is what they made of it.
    """

    index: int
    name: str
    upstream: tuple[Cotangent | None, ...]
    edges: tuple[Edge, ...]
    conservation_error: float = 0.0
    hooks: tuple[str, ...] = ()
    changed_by_hooks: bool = False
    sending_hooks: tuple[str, ...] = ()
    call: UserCall | None = None
    leaf: Key | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """One differentiated output and the cotangent it was given.

    ``node`` is None where nothing ran for it: the inputs asked for are not behind it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    node: int | None
    slot: int
    cotangent: Cotangent
    values: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor that the pass reached (or was asked for): where its deposit is and what it is."""

    key: Key
    shape: tuple[int, ...]
    dtype: str
    node: int | None
    hooks: tuple[str, ...] = ()
    had_grad: bool = False

    @property
    def label(self) -> str:
        return self.key if isinstance(self.key, str) else f"leaf {self.key}"


class Deposits(Mapping[Key, Tensor]):
    """What the pass added to each leaf: by name where one is known, and always by position.

    >>> import torch
    >>> deposits = Deposits({"w": torch.ones(2)})
    >>> deposits["w"] is deposits[0], list(deposits)
    (True, ['w'])
    """

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[Key, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, key: Key) -> Tensor:
        if key in self._tensors:
            return self._tensors[key]
        keys = list(self._tensors)
        if isinstance(key, int) and -len(keys) <= key < len(keys):
            return self._tensors[keys[key]]
        known = ", ".join(map(repr, keys)) or "none"
        raise KeyError(f"no deposit {key!r}; the pass left deposits on: {known}")

    def __iter__(self) -> Iterator[Key]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        inner = ", ".join(f"{key!r}: {tuple(t.shape)}" for key, t in self._tensors.items())
        return f"Deposits({{{inner}}})"


@dataclass(frozen=True, eq=False)
class PassData:
    """Everything known about one backward pass."""

    outputs: tuple[Output, ...]
    seeds: tuple[Edge, ...]
    nodes: tuple[PassNode, ...]
    leaves: tuple[Leaf, ...]
    deposits: Deposits
    accumulate: bool
    retain_graph: bool
    keep: str
    torch_version: str
    notes: tuple[str, ...] = ()
    tolerance: float = field(default=0.0)

    @property
    def conservation_error(self) -> float:
        """The largest difference found between an upstream cotangent and its contributions.

        Relative to the largest entry of that upstream; 0.0 means equal to the last bit. Nodes
        whose cotangent the user's own hooks changed are left out: they are named in ``hooks``.
        """
        return max(
            (n.conservation_error for n in self.nodes if not n.changed_by_hooks), default=0.0
        )

    @property
    def conserved(self) -> bool:
        """Whether contributions sum to the upstream at every node, within ``tolerance``."""
        return self.conservation_error <= self.tolerance

    @property
    def hooks(self) -> tuple[str, ...]:
        """The user's hooks that ran, each with the place it is attached to."""
        return tuple(
            f"{hook} on {node.name if node.leaf is None else self.leaf(node.leaf).label}"
            for node in self.nodes
            for hook in (*node.hooks, *node.sending_hooks)
        )

    def leaf(self, key: Key) -> Leaf:
        return next(leaf for leaf in self.leaves if leaf.key == key)

    def incoming(self) -> dict[int, list[Edge]]:
        """The edges into each node, in the order in which they arrived."""
        found: dict[int, list[Edge]] = {node.index: [] for node in self.nodes}
        for edge in self.seeds:
            found[edge.target].append(edge)
        for node in self.nodes:
            for edge in node.edges:
                found[edge.target].append(edge)
        return found
