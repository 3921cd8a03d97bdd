"""The state of a function at one moment, and what has changed since an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .facts import Fact, TensorForm, form_of, memory_of, quoted


class Owned(NamedTuple):
    """A tensor that a function reads besides its arguments, and where it stands."""

    path: str
    tensor: Tensor


@dataclass(frozen=True, eq=False)
class Reading:
    """``tensors``: path -> tensor. ``facts``: path -> everything that is no tensor, as data.

    ``forms[k]``, ``same[k]`` and ``memory[k]`` belong to the k-th path of ``paths``: shape, dtype
    and so on; the first path that holds the same tensor; the first path in the same memory.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Fact]
    paths: tuple[str, ...]
    forms: tuple[TensorForm, ...]
    same: tuple[int, ...]
    memory: tuple[int, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Fact]) -> Reading:
        found = tensors.values()
        return cls(
            tensors,
            facts,
            tuple(tensors),
            tuple(map(form_of, found)),
            _first_of_each(list(map(id, found))),
            _first_of_each([memory_of(t) or -k for k, t in enumerate(found, 1)]),
        )

    def without_tensors(self) -> Reading:
        """The same for comparing, without keeping any tensor alive."""
        return Reading({}, self.facts, self.paths, self.forms, self.same, self.memory)

    def changes(self, earlier: Reading) -> tuple[str, ...]:
        """What is no longer as it was, in words; empty where a graph captured then still holds.

        Tensors are compared by what a graph takes for granted: shape, strides, dtype, device,
        layout, ``requires_grad``, and which paths share a tensor or memory. Neither by content
        nor by identity: the graph reads them from their owners at every call.
        """
        return tuple(dict.fromkeys((*self._changed_values(earlier), *self._changed_ties(earlier))))

    def _changed_values(self, earlier: Reading) -> Iterator[str]:
        if self.facts is earlier.facts and (self.paths, self.forms) == (
            earlier.paths,
            earlier.forms,
        ):
            return
        before, now = earlier._everything(), self._everything()
        for path in {**before, **now}:
            old, new = before.get(path), now.get(path)
            if old != new:
                yield from _difference(path, old, new)

    def _everything(self) -> dict[str, Fact | TensorForm]:
        return {**self.facts, **dict(zip(self.paths, self.forms, strict=True))}

    def _changed_ties(self, earlier: Reading) -> Iterator[str]:
        if self.paths != earlier.paths:
            return
        pairs = (
            ("same", "are one tensor", "are different tensors", self.same, earlier.same),
            ("memory", "share memory", "no longer share memory", self.memory, earlier.memory),
        )
        for _, tied, untied, now, before in pairs:
            for k, (new, old) in enumerate(zip(now, before, strict=True)):
                if new != old:
                    together, other = (tied, new) if new != k else (untied, old)
                    names = f"{quoted(self.paths[other])} and {quoted(self.paths[k])}"
                    yield f"{names} {together} now"


def _first_of_each(keys: Sequence[int]) -> tuple[int, ...]:
    first: dict[int, int] = {}
    return tuple(first.setdefault(key, k) for k, key in enumerate(keys))


def _difference(
    path: str, old: Fact | TensorForm | None, new: Fact | TensorForm | None
) -> Iterator[str]:
    name = quoted(path)
    if isinstance(old, TensorForm) and isinstance(new, TensorForm):
        yield f"{name} is another tensor: {_forms_apart(old, new)}"
    elif old is None:
        yield f"{name} is new: {_text(new)}"
    elif new is None:
        yield f"{name} is gone: it was {_text(old)}"
    elif isinstance(old, Fact) and isinstance(new, Fact):
        yield from _fact_difference(path, old, new)
    else:
        yield f"{name} was {_text(old)} and is {_text(new)}"


def _fact_difference(path: str, old: Fact, new: Fact) -> Iterator[str]:
    name = quoted(path)
    both = isinstance(old.token, tuple) and isinstance(new.token, tuple)
    if old.kind == new.kind and old.kind.startswith("plain ") and both:
        entries_before, entries_now = list(old.token), list(new.token)  # type: ignore[call-overload]
        if len(entries_before) == len(entries_now):
            for k, (before, now) in enumerate(zip(entries_before, entries_now, strict=True)):
                if before != now:
                    expr, bracket, origin = path.rpartition(" (")
                    where = f"{expr}[{k}]{bracket}{origin}" if expr else f"{path}[{k}]"
                    yield from _fact_difference(where, before, now)
            return
    if old.text != new.text:
        yield f"{name} was {old.text} and is {new.text}"
    elif old.kind == "function":
        yield f"{name} was defined anew: its code is another"
    else:
        yield f"{name} changed its content: {new.text}, with other values"


def _forms_apart(old: TensorForm, new: TensorForm) -> str:
    if str(old) != str(new):
        return f"{old} before, {new} now"
    for field in TensorForm._fields:
        before, now = getattr(old, field), getattr(new, field)
        if before != now:
            return f"{field} {before} before, {now} now"
    return f"{new}"


def _text(value: Fact | TensorForm | None) -> str:
    if isinstance(value, TensorForm):
        return f"a tensor {value}"
    return "nothing" if value is None else value.text
