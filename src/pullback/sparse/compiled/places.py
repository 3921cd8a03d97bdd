"""Where a program's first results go: pieces of one tensor, written as they are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

aten = torch.ops.aten


class Strided(NamedTuple):
    """The elements ``start + sum(steps[d] * k[d])`` for ``k[d] < shape[d]``, of a flat tensor."""

    start: int
    steps: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Placed:
    """A flat tensor of ``size`` elements that pieces make up: each has a place of its own, strided
    or listed, and together they are all of it. ``scratch`` results after the pieces are handed out
    for no other reason than that the pieces are read from them: they are in memory then."""

    size: int
    dtype: torch.dtype
    device: torch.device
    places: tuple[Strided | Tensor, ...]
    scratch: int = 0

    @property
    def indices(self) -> list[Tensor]:
        return [p for p in self.places if isinstance(p, Tensor)]


def write_pieces(module: fx.GraphModule, placed: Placed, mode: Any) -> None:
    """Write the first results to their places. The last inputs are the lists of places, and then
    for each piece the tensor to write to, which is the same one: places are apart, and the compiler
    that takes it for several writes all pieces in one loop.
    """
    graph = module.graph
    inputs = graph.find_nodes(op="placeholder")
    last = inputs[-1] if inputs else None
    given = []
    for k, index in enumerate(placed.indices):
        last = _placeholder(graph, last, f"places_{k}", mode.from_tensor(index))
        given.append(last)
    end = graph.output_node()
    results: Any = end.args[0]
    cut = len(placed.places)
    lists = iter(given)
    for k, (place, piece) in enumerate(zip(placed.places, results[:cut], strict=True)):
        with mode:
            into = torch.empty(placed.size, dtype=placed.dtype, device=placed.device)
        last = _placeholder(graph, last, f"into_{k}", into)
        with graph.inserting_before(end):
            if isinstance(place, Tensor):
                _called(graph, aten.index_put_.default, last, [next(lists)], piece)
            else:
                shape, steps = [*place.shape], [*place.steps]
                view = _called(graph, aten.as_strided.default, last, shape, steps, place.start)
                _called(graph, aten.copy_.default, view, piece)
    end.args = (tuple(results[cut:]),)
    module.recompile()


def _placeholder(graph: fx.Graph, last: fx.Node | None, name: str, fake: Tensor) -> fx.Node:
    with graph.inserting_after(last) if last is not None else graph.inserting_before(None):
        node = graph.placeholder(name)
    node.meta["val"] = fake
    return node


def _called(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    node = graph.call_function(target, args)
    fakes = fx.node.map_arg(args, lambda n: n.meta["val"])
    node.meta["val"] = target(*fakes)
    return node
