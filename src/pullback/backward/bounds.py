"""How far sums of answers may be from a pass by rounding alone.

A quantity is rounded by its own dtype and by those it was computed from. Where it cancels to next
to nothing (the bias before a normalisation) all that is left is the rounding of its sources, so
their size counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from .events import Cotangent, PassData
from .quantities import Place, Quantities
from .responses import Vector

_FROM_SOURCES = 16
_TINY = 1e-300


class Bounds:
    def __init__(self, record: PassData, known: Quantities) -> None:
        self._sources = _sources(record, known)
        self._eps: list[float] = []
        for item, sources in zip(known.items, self._sources, strict=True):
            behind = [self._eps[number] for number in sources if number < len(self._eps)]
            self._eps.append(max(_eps(item), *behind, 0.0))

    def of(self, number: int, size: float, values: Mapping[int, Vector]) -> float:
        """Of a quantity whose terms have the size ``size``, where its sources are ``values``."""
        eps = self._eps[number]
        norms = [float(np.linalg.norm(values[k])) for k in self._sources[number] if k in values]
        relative = 2048 * eps if eps < 1e-6 else 32 * eps
        return relative * size + _FROM_SOURCES * eps * max(norms, default=0.0) + _TINY


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


def _eps(cotangent: Cotangent) -> float:
    return float(torch.finfo(getattr(torch, cotangent.dtype)).eps)
