"""How far sums of answers may be from a pass by rounding alone.

A quantity is rounded by its own dtype and by those it was computed from. Where it cancels to next
to nothing (the bias before a normalization) all that is left is the rounding of its sources, so
their size counts as well. Where it vanishes below the normal numbers of a dtype (the first steps of
a long recurrence) its rounding no longer shrinks with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from .events import PassData
from .quantities import Place, Quantities
from .responses import Vector

_FROM_SOURCES = 16


class Bounds:
    def __init__(self, record: PassData, known: Quantities) -> None:
        self._sources = _sources(record, known)
        infos = [torch.finfo(getattr(torch, item.dtype)) for item in known.items]
        self._eps = self._coarsest([info.eps for info in infos])
        self._step = self._coarsest([info.eps * info.tiny for info in infos])

    def _coarsest(self, own: list[float]) -> list[float]:
        """Of each quantity and all that it was computed from."""
        found: list[float] = []
        for value, sources in zip(own, self._sources, strict=True):
            behind = [found[number] for number in sources if number < len(found)]
            found.append(max(value, *behind, 0.0))
        return found

    def of(self, number: int, size: float, values: Mapping[int, Vector]) -> float:
        """Of a quantity whose terms have the size ``size``, where its sources are ``values``."""
        eps = self._eps[number]
        norms = [float(np.linalg.norm(values[k])) for k in self._sources[number] if k in values]
        steps = 2048 if eps < 1e-6 else 32
        of_sources = _FROM_SOURCES * eps * max(norms, default=0.0)
        return steps * (eps * size + self._step[number]) + of_sources


def _sources(record: PassData, known: Quantities) -> list[list[int]]:
    """For each quantity the numbers of what it was computed from."""
    into: dict[int, list[Place]] = {}
    for k, edge in enumerate(record.seeds):
        into.setdefault(edge.target, []).append(Place("seed", k, 0))
    for node in record.nodes:
        for k, edge in enumerate(node.edges):
            into.setdefault(edge.target, []).append(Place("edge", node.index, k))

    def behind(place: Place) -> list[Place]:
        if place.kind == "upstream":
            return into.get(place.at, [])
        node = record.leaves[place.at].node if place.kind == "deposit" else place.at
        if place.kind == "seed" or node is None:
            return []
        return [Place("upstream", node, k) for k in range(len(record.nodes[node].upstream))]

    numbers = known.number_at
    return [[numbers[p] for p in behind(place) if p in numbers] for place in known.first]
