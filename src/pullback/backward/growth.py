"""Graphs that stay: how many traced nodes are alive, and which tensor holds the most of them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .enginecalls import EngineCall
from .events import UserCall
from .graph import walk
from .origins import call_of
from .statements import statement_of

_SAMPLES = 8
_MOST_NODES = 50_000
_NOTE = "pullback.alive"


class _Alive:
    """In the notes of a node: goes when the node goes."""

    __slots__ = ()
    count = 0

    def __init__(self) -> None:
        _Alive.count += 1

    def __del__(self) -> None:
        _Alive.count -= 1


def count_in(node: Node) -> None:
    """Count ``node`` as long as it is alive."""
    _torch.notes_of(node)[_NOTE] = _Alive()


def nodes_alive() -> int:
    return _Alive.count


@dataclass(frozen=True, slots=True)
class Holder:
    """A tensor that holds the graphs of several forward passes.

    ``name`` is what the program calls it, where the line that made it says so; ``size`` is in
    bytes, of what the nodes have saved.
    """

    name: str
    call: UserCall | None
    nodes: int
    passes: int
    size: int


class Growth:
    """Watches the number of nodes that are still alive after each backward of one line.

    ``grown`` says once, for each line, that there were more after every one of several backwards
    in a row.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._told: set[tuple[str, int]] = set()

    def grown(self, call: EngineCall) -> bool:
        place = (call.call.file, call.call.line)
        counts = self._counts[place]
        counts.append(nodes_alive())
        del counts[:-_SAMPLES]
        grows = len(counts) == _SAMPLES and all(
            later > earlier for earlier, later in itertools.pairwise(counts)
        )
        if not grows or place in self._told:
            return False
        self._told.add(place)
        return True


def largest_holder() -> Holder | None:
    """The tensor in reach with the graph of the most forward passes; None if each has one."""
    found = [_holder(tensor) for tensor in _torch.computed_tensors()]
    several = [holder for holder in found if holder is not None and holder.passes > 1]
    return max(several, key=lambda holder: (holder.passes, holder.nodes), default=None)


def _holder(tensor: Tensor) -> Holder | None:
    if tensor.grad_fn is None or _torch.is_transform_tensor(tensor):
        return None
    graph = walk([tensor])
    nodes = list(graph.nodes)[:_MOST_NODES]
    places = Counter(
        (call.file, call.line, call.code, _torch.node_name(node))
        for node in nodes
        if (call := call_of(node)) is not None
    )
    memory = {}
    lasting = {_torch.storage_number(leaf) for _, leaf in graph.leaves()}
    for node in nodes:
        for saved in _torch.plainly_saved(node).values():
            number = _torch.storage_number(saved)
            if number is not None and number not in lasting:
                memory[number] = saved.untyped_storage().nbytes()
    call = call_of(tensor.grad_fn)
    statement = None if call is None else statement_of(call)
    name = statement.targets[0] if statement is not None and statement.targets else "a tensor"
    passes = max(places.values(), default=1)
    return Holder(name, call, len(nodes), passes, sum(memory.values()))
