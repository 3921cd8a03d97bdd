"""What a stepper shows: the nodes of a pass, and what each step did."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from torch import Tensor

from ..draw.numbers import count, number, shape
from .events import Key, UserCall
from .passlog import Gradients, owned
from .stats import Stats, stats_of


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the pass: ``index`` is its turn, from 0 on, as in a record of the same pass.

    ``leaf`` is the key of the leaf whose deposit arrives there, None at every other node.
    """

    index: int
    name: str
    slots: int
    call: UserCall | None = None
    leaf: Key | None = None

    @property
    def label(self) -> str:
        """``PowBackward0 #1``, ``w (leaf) #4``."""
        if self.leaf is None:
            return f"{self.name} #{self.index}"
        name = self.leaf if isinstance(self.leaf, str) else f"leaf {self.leaf}"
        return f"{name} (leaf) #{self.index}"

    @property
    def line(self) -> str:
        """``model.py:12``, or nothing where the node was not made under ``pb.trace()``."""
        return "" if self.call is None else f"{PurePath(self.call.file).name}:{self.call.line}"


class Contribution:
    """What one edge carried: from ``source`` (None: the cotangent of an output) to a slot of
    ``target``. ``position`` is the place among what the source sent, or among the outputs."""

    __slots__ = ("_tensor", "position", "slot", "source", "target")

    def __init__(
        self, source: Place | None, position: int, target: Place, slot: int, tensor: Tensor | None
    ) -> None:
        self.source, self.position, self.target, self.slot = source, position, target, slot
        self._tensor = tensor

    @property
    def tensor(self) -> Tensor | None:
        """A copy; None where nothing was sent, an undefined gradient, which is not a zero."""
        return None if self._tensor is None else owned(self._tensor)

    @property
    def stats(self) -> Stats | None:
        return None if self._tensor is None else stats_of(self._tensor)

    def keep(self, written: Tensor, copy: Tensor) -> None:
        """Hold ``copy`` instead of a tensor that somebody's hook has written to since."""
        if self._tensor is written:
            self._tensor = copy

    def __repr__(self) -> str:
        source = f"output {self.position}" if self.source is None else self.source.label
        carried = "nothing" if self._tensor is None else str(tuple(self._tensor.shape))
        return f"<Contribution {carried} from {source} to {self.target.label}>"


class Step:
    """One step: the node that ran, what it had received, and what it sent.

    - ``node``: a `Place`. ``edited``: whether an edit had replaced some of what it received.
    - ``upstream``: copies of what it received, one entry per slot, before the user's hooks on it;
      None where nothing arrived.
    - ``contributions``: what it sent, a `Contribution` for each edge that leads to a node.
    - ``deposit``: at a leaf, or an input that was asked for, a copy of what the pass leaves there.
    """

    __slots__ = ("_deposit", "_upstream", "contributions", "edited", "node")

    def __init__(
        self,
        node: Place,
        upstream: Gradients,
        contributions: tuple[Contribution, ...],
        deposit: Tensor | None,
        edited: bool,
    ) -> None:
        self.node, self.contributions, self.edited = node, contributions, edited
        self._upstream, self._deposit = upstream, deposit

    @property
    def upstream(self) -> Gradients:
        return tuple(None if value is None else owned(value) for value in self._upstream)

    @property
    def deposit(self) -> Tensor | None:
        return None if self._deposit is None else owned(self._deposit)

    @property
    def received_stats(self) -> tuple[Stats | None, ...]:
        return tuple(None if value is None else stats_of(value) for value in self._upstream)

    @property
    def nonfinite(self) -> int:
        """How many entries that it received or sent are infinite or nan."""
        return sum(stats.nonfinite for stats in self._all_stats())

    @property
    def norm_ratio(self) -> float:
        """The largest norm among its contributions over the norm of what it received; nan where it
        sent nothing."""
        sent = [c.stats.norm for c in self.contributions if c.stats is not None]
        received = math.hypot(*(s.norm for s in self.received_stats if s is not None))
        if not sent:
            return math.nan
        if received == 0:
            return math.nan if max(sent) == 0 else math.inf
        return max(sent) / received

    @property
    def nbytes(self) -> int:
        """The bytes of all the tensors that the step holds."""
        held = [*self._upstream, *(c._tensor for c in self.contributions), self._deposit]
        seen = {id(t): t.numel() * t.element_size() for t in held if t is not None}
        return sum(seen.values())

    def _all_stats(self) -> Iterator[Stats]:
        found = (*self.received_stats, *(c.stats for c in self.contributions))
        yield from (stats for stats in found if stats is not None)

    def __repr__(self) -> str:
        return f"<Step {self.node.label}>"

    def __str__(self) -> str:
        lines = [f"{self.node.label}  {place_text(self.node.call)}".rstrip()]
        for slot, value in enumerate(self._upstream):
            where = f" in slot {slot}" if len(self._upstream) > 1 else ""
            edited = " (edited)" if self.edited else ""
            lines.append(f"  received {cotangent_text(value)}{where}{edited}")
        for c in self.contributions:
            where = f" slot {c.slot}" if c.target.slots > 1 else ""
            lines.append(f"  sent {cotangent_text(c._tensor)} to {c.target.label}{where}")
        if self._deposit is not None:
            lines.append(f"  deposit {cotangent_text(self._deposit)}")
        return "\n".join(lines)


def cotangent_text(tensor: Tensor | None) -> str:
    """``(4, 5), norm 11.31``, and how many entries are not finite, if any."""
    if tensor is None:
        return "nothing"
    stats = stats_of(tensor)
    bad = stats.nonfinite
    told = f", {count(bad)} of {count(tensor.numel())} not finite" if bad else ""
    return f"{shape(tuple(tensor.shape))}, norm {number(stats.norm)}{told}"


def place_text(call: UserCall | None) -> str:
    """``model.py:12  x.exp()``, cut where it is long."""
    if call is None:
        return ""
    text = call.code if len(call.code) <= 50 else call.code[:47] + "..."
    return f"{PurePath(call.file).name}:{call.line}  {text or call.function}"
