"""Everything that outputs were computed from, across the places where gradients stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .cuts import cuts_of, may_lack_some
from .origins import AnyOrigin, Cut, LeafOrigin, Origin, origin_of_tensor


@dataclass
class Way:
    """What lies behind some values. ``crowded``: the cuts of values that may have had more."""

    origins: dict[int, Origin] = field(default_factory=dict)
    leaves: set[int] = field(default_factory=set)
    cuts: list[Cut] = field(default_factory=list)
    crowded: list[tuple[Cut, ...]] = field(default_factory=list)

    def leads_to(self, target: AnyOrigin) -> bool:
        if isinstance(target, LeafOrigin):
            return id(target.leaf()) in self.leaves
        return id(target) in self.origins

    @property
    def untraced(self) -> list[Origin]:
        """Nodes of torch's own that no traced call made; torch shows no call of other ones."""
        return [
            origin
            for origin in self.origins.values()
            if origin.call is None and (origin.name[-1:].isdigit() or origin.name == "CopySlices")
        ]


def way_to(outputs: Sequence[Tensor]) -> Way:
    """The way to ``outputs``, from as far back as is known."""
    starts = [origin_of_tensor(output) for output in outputs if output.requires_grad]
    return _followed(starts, [cuts_of(output) for output in outputs])


def way_before(cut: Cut) -> Way | None:
    """The way to the value that was cut off; None where it is not known any more."""
    source = cut.source()
    return None if source is None else _followed([source], ())


def _followed(starts: Iterable[AnyOrigin], cut_off: Iterable[tuple[Cut, ...]]) -> Way:
    way = Way()
    seen: set[int] = set()
    stack = list(starts)
    waiting = list(cut_off)
    while stack or waiting:
        if waiting:
            stack.extend(_across(waiting.pop(), way, seen))
            continue
        origin = stack.pop()
        if isinstance(origin, LeafOrigin):
            way.leaves.add(id(origin.leaf()))
        elif id(origin) not in way.origins:
            way.origins[id(origin)] = origin
            stack.extend(origin.parents)
            waiting.append(origin.cuts)
    way.leaves.discard(id(None))
    return way


def _across(cuts: tuple[Cut, ...], way: Way, seen: set[int]) -> list[AnyOrigin]:
    if may_lack_some(cuts):
        way.crowded.append(cuts)
    new = [cut for cut in cuts if id(cut) not in seen]
    seen.update(map(id, new))
    way.cuts.extend(new)
    return [source for cut in new if (source := cut.source()) is not None]
