"""Who wrote to which memory in place: the latest writes, in order, with their lines."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from torch import Tensor

from .. import _torch
from .events import UserCall

_MOST_MEMORIES = 8192
_KEPT_WRITES = 16


@dataclass(frozen=True, slots=True)
class Mutation:
    """One write in place: the version before and after, and the call.

    ``behind`` says that the tensor through which it was written counts its own versions, as
    ``x.data`` does: autograd did not hear of the write. ``view`` says that it was a view of other
    memory, so that whoever wrote may have meant to write there.
    """

    before: int
    after: int
    call: UserCall
    behind: bool = False
    view: bool = False


class _Writes:
    __slots__ = ("key", "writes")

    def __init__(self, key: _torch.StorageKey) -> None:
        self.key = key
        self.writes: deque[Mutation] = deque(maxlen=_KEPT_WRITES)


_log: OrderedDict[int, _Writes] = OrderedDict()


def note(tensor: Tensor, before: int, call: UserCall, *, behind: bool = False) -> None:
    """``call`` has written to ``tensor``, whose version was ``before``."""
    number, after = _torch.storage_number(tensor), _torch.version_of(tensor)
    if number is None or (after == before and not behind):
        return
    found = _log.get(number)
    if found is None or found.key.freed:
        found = _log[number] = _Writes(_torch.StorageKey(tensor))
        if len(_log) > _MOST_MEMORIES:
            _log.popitem(last=False)
    found.writes.append(
        Mutation(before, _torch.version_of(tensor), call, behind, _torch.is_view(tensor))
    )


def mutations_of(tensor: Tensor) -> tuple[Mutation, ...]:
    """The latest writes to the memory of ``tensor``, oldest first."""
    number = _torch.storage_number(tensor)
    found = None if number is None else _log.get(number)
    return () if found is None or found.key.freed else tuple(found.writes)
