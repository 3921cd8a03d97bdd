"""Which rows of a Jacobian, and which places of the tensors on the way, belong to one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from .dependence import Dependence
from .detect import push, starts
from .graph import PullbackGraph, ancestors

Ints = npt.NDArray[np.int64]
Place = tuple[fx.Node, tuple[int, ...]]


@dataclass
class Samples:
    """``rows[i, o]`` is row ``o`` of sample ``i``; ``places[node, axes][i, l]`` are the places,
    along these axes of the node, that depend on rows of sample ``i`` alone. Others depend on none.
    """

    rows: Ints
    places: dict[Place, Ints]

    @property
    def in_order(self) -> bool:
        return bool((self.rows.reshape(-1) == np.arange(self.rows.size)).all())


def samples_of(
    caller: str, graph: PullbackGraph, wanted: Sequence[Place], *, of_one_point: bool
) -> Samples | None:
    """The finest cut into samples of one form; one sample where there is no other. None where
    the cut would rest on the content of tensors, unless it is ``of_one_point``."""
    width = sum(i.meta.numel for i in graph.cotangents)
    deps, relied = _dependences(caller, graph, {node for node, _ in wanted})
    if deps is None or (relied and not of_one_point):
        return None
    ids = {(node, axes): _by_place(deps[node], axes) for node, axes in wanted}
    labels = _labels([(deps[node], found) for (node, _), found in ids.items()], width)
    if labels is None:
        return _whole(graph, wanted, width)
    rows = _grouped(labels, labels.max(initial=0) + 1)
    if rows is None:
        return _whole(graph, wanted, width)
    places: dict[Place, Ints] = {}
    for node, axes in wanted:
        owners = _owners(deps[node], ids[node, axes], labels)
        found = _grouped(owners, len(rows))
        if found is None:
            return _whole(graph, wanted, width)
        places[node, axes] = found
    return Samples(rows, places)


def numbered(samples: Samples, graph: PullbackGraph) -> Samples:
    """The same for any graph of one structure: nodes are named by their numbers."""
    number = {node: k for k, node in enumerate(graph.nodes)}
    places: Any = {(number[node], axes): found for (node, axes), found in samples.places.items()}
    return Samples(samples.rows, places)


def renamed(samples: Samples, graph: PullbackGraph) -> Samples:
    """What ``numbered`` has numbered, for the nodes of ``graph``."""
    nodes = graph.nodes
    places: Any = {(nodes[k], axes): found for (k, axes), found in samples.places.items()}  # type: ignore[call-overload]
    return Samples(samples.rows, places)


def _dependences(
    caller: str, graph: PullbackGraph, wanted: set[fx.Node]
) -> tuple[dict[fx.Node, Dependence] | None, set[str]]:
    known: dict[fx.Node, Any] = dict(starts(graph))
    relied: set[str] = set()
    inside = ancestors(list(wanted), graph.linear)
    calls = [n for n in graph.linear if n.op == "call_function" and n in inside]
    push(caller, graph, calls, known, {*known, *wanted}, relied, {})
    found = {node: known[node] for node in wanted}
    sound = all(isinstance(d, Dependence) for d in found.values())
    return found if sound else None, relied


def _whole(graph: PullbackGraph, wanted: Sequence[Place], width: int) -> Samples:
    """All rows as those of one sample."""
    places: dict[Place, Ints] = {}
    for node, axes in wanted:
        shape = graph.metas[node].shape
        count = int(np.prod([shape[a] for a in axes], dtype=np.int64))
        places[node, axes] = np.arange(count)[None]
    return Samples(np.arange(width)[None], places)


def _labels(places: Sequence[tuple[Dependence, Ints]], width: int) -> Ints | None:
    """For every row the number of its sample, counted in the order of the rows.

    Rows that meet at a place are of one sample.
    """
    left, right, count = [], [], width
    for dep, ids in places:
        table = dep.table
        used = np.zeros(table.count, dtype=bool)
        used[ids.reshape(-1)] = True
        used[0] = False
        owner = np.repeat(np.arange(table.count), table.sizes)
        keep = used[owner]
        left.append(table.indices[keep].astype(np.int64))
        right.append(owner[keep] + count)
        place = np.repeat(np.arange(len(ids)), ids.shape[1]) + count + table.count
        some = ids.reshape(-1) > 0
        left.append(place[some])
        right.append(ids.reshape(-1)[some].astype(np.int64) + count)
        count += table.count + len(ids)
    if not sum(part.size for part in left):
        return None
    one, two = np.concatenate(left), np.concatenate(right)
    edges = coo_array((np.ones(one.size, dtype=np.int8), (one, two)), shape=(count, count))
    _, found = connected_components(edges, directed=False)
    _, first, labels = np.unique(found[:width], return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return np.asarray(order[labels], dtype=np.int64)


def _by_place(dep: Dependence, axes: tuple[int, ...]) -> Ints:
    """The ids of a tensor's sets, a row for every place along ``axes``."""
    rest = [a for a in range(len(dep.shape)) if a not in axes]
    count = int(np.prod([dep.shape[a] for a in axes], dtype=np.int64))
    return dep.grid.transpose([*axes, *rest]).reshape(count, -1).astype(np.int64)


def _owners(dep: Dependence, ids: Ints, labels: Ints) -> Ints:
    """The sample that each place belongs to, or -1."""
    some = ids.max(axis=1, initial=0)
    table = dep.table
    first = np.minimum(table.indptr[:-1], max(table.indices.size - 1, 0))
    owner = labels[table.indices[first]] if table.indices.size else np.zeros(table.count, int)
    return np.where(some > 0, owner[some], -1).astype(np.int64)


def _grouped(owners: Ints, count: int) -> Ints | None:
    """The places of each owner, if all have equally many."""
    sizes = np.bincount(owners[owners >= 0], minlength=count)
    if sizes.size != count or not count or (sizes != sizes[0]).any():
        return None
    order = np.argsort(owners, kind="stable")
    found: Ints = order[owners.size - int(sizes.sum()) :].reshape(count, int(sizes[0]))
    return found
