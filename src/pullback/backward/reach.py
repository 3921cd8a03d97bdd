"""Where rows of an output land in a leaf: found by products of row masks, never by names of ops.

Row ``i`` of the output is weighed with random numbers and every other row with 0; the entries of
the leaf that then receive something are those that row ``i`` depends on at this point. Random
weights make an accidental cancellation between the entries of a row improbable; a derivative that
is exactly 0 here (a relu that is off) is not seen, and the words say "at this point".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .. import _torch
from .._engines import batched_gradients
from .graph import Graph, Port
from .regions import Region, region_of

_MOST_ROWS = 64
_MOST_ENTRIES = 20_000_000


@dataclass(frozen=True)
class Reach:
    """``regions[k]`` is what row ``rows[k]`` of the output depends on in one leaf.

    ``told`` is False where a product held nan, which hides what depends on what.
    """

    rows: tuple[int, ...]
    all_rows: bool
    regions: tuple[Region, ...]
    told: bool


def reach_of_rows(
    output: Tensor, leaves: Sequence[Tensor], ports: Sequence[Port], graph: Graph
) -> tuple[list[Reach], str]:
    """One `Reach` per leaf, and the engine that computed the products.

    ``output`` has at least one axis; its rows are its slices along the first.
    """
    rows = _chosen_rows(output, leaves)
    masks = torch.zeros(len(rows), *output.shape, dtype=output.dtype, device=output.device)
    for k, row in enumerate(rows):
        masks[k, row] = _weights(output, seed=k)
    edges = [GradientEdge(port.node, port.slot) for port in ports]
    with _torch.untouched(graph.children_of) as watched:
        order = ("loop",) if watched.see_each_pass(leaves) else None
        batch = batched_gradients([output], edges, [masks], like=leaves, order=order)
    reaches = []
    for gradient in batch.gradients:
        dense = gradient.to_dense() if gradient.layout is not torch.strided else gradient
        touched = (dense != 0).cpu().numpy()
        regions = tuple(region_of(touched[k]) for k in range(len(rows)))
        every = len(rows) == output.shape[0]
        reaches.append(Reach(tuple(rows), every, regions, not bool(dense.isnan().any())))
    return reaches, batch.engine


def _weights(output: Tensor, seed: int) -> Tensor:
    """Numbers of size 0.5 to 1.5 and of any sign, or phase, for one row of ``output``."""
    generator = torch.Generator("cpu").manual_seed(seed)
    size = torch.rand(output.shape[1:], generator=generator, dtype=torch.float64, device="cpu")
    turn = torch.rand(output.shape[1:], generator=generator, dtype=torch.float64, device="cpu")
    if output.is_complex():
        return torch.polar(size + 0.5, turn * 2 * math.pi).to(output.device, output.dtype)
    signed = torch.where(turn < 0.5, -(size + 0.5), size + 0.5)
    return signed.to(output.device, output.dtype)


def _chosen_rows(output: Tensor, leaves: Sequence[Tensor]) -> list[int]:
    """All rows where that is cheap; else some of them, spread evenly."""
    count = output.shape[0]
    per_row = output.numel() + sum(leaf.numel() for leaf in leaves)
    most = max(1, min(_MOST_ROWS, _MOST_ENTRIES // max(per_row, 1)))
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / max(most - 1, 1)) for k in range(most)})
