"""Where gradients stop: values computed from a tensor that requires a gradient, and that do not.

Noted for the tensors that carry such a value on, so that whatever is computed from them later can
be asked what it does not depend on any more. No tensor is held: a cut knows where its source came
from by an `Origin`, and only the latest cuts of each place in the program keep theirs.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from weakref import ref

from torch import Tensor

from .. import _torch
from .events import UserCall
from .origins import AnyOrigin, Cut, Place, origin_of_tensor, walk_to

_MOST_CUTS = 16
_MOST_PLACES = 512
_KEPT_PER_PLACE = 2


class _Places:
    """The latest sources at each place of the program, the places used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, deque[tuple[Cut, AnyOrigin]]] = OrderedDict()

    def keep(self, cut: Cut, source: AnyOrigin) -> None:
        kept = self._kept.setdefault(cut.place, deque(maxlen=_KEPT_PER_PLACE))
        kept.append((cut, source))
        self._kept.move_to_end(cut.place)
        if len(self._kept) > _MOST_PLACES:
            self._kept.popitem(last=False)

    def __iter__(self) -> Iterator[Cut]:
        for kept in list(self._kept.values()):
            yield from (cut for cut, _ in list(kept))


_values = _Places()
_reads = _Places()
_of_tensor: dict[int, tuple[ref[Tensor], tuple[Cut, ...]]] = {}


def cuts_of(tensor: Tensor) -> tuple[Cut, ...]:
    """What stands between ``tensor``, which requires no gradient, and tensors that do."""
    found = _of_tensor.get(id(tensor))
    return () if found is None or _is_of_function(tensor) else found[1]


def _is_of_function(tensor: Tensor) -> bool:
    """An ``autograd.Function`` runs its forward without gradients, and gives the result a graph."""
    return tensor.grad_fn is not None and _torch.custom_function(tensor.grad_fn) is not None


def any_noted() -> bool:
    return bool(_of_tensor)


def carries(tensor: Tensor) -> bool:
    """Whether ``tensor`` requires a gradient, or was computed from one that does."""
    return id(tensor) in _of_tensor or tensor.requires_grad


def latest(cuts: Iterable[Cut]) -> tuple[Cut, ...]:
    """As many of these as are kept behind one value: one of each reason, and the latest."""
    found = tuple({each.key: each for each in cuts}.values())
    if len(found) <= _MOST_CUTS:
        return found
    kept = {each.reason: each for each in found}
    chosen = set(map(id, kept.values()))
    chosen.update(
        [id(each) for each in reversed(found) if id(each) not in chosen][: _MOST_CUTS - len(kept)]
    )
    return tuple(each for each in found if id(each) in chosen)


def may_lack_some(cuts: Sequence[Cut]) -> bool:
    """Whether these are as many as are kept behind one value."""
    return len(cuts) >= _MOST_CUTS


def cut(reason: str, call: UserCall, sources: Iterable[Tensor]) -> tuple[Cut, ...]:
    """The cuts behind a value that ``call`` computed from ``sources``, without a graph."""
    found: list[Cut] = []
    for source in sources:
        if source.requires_grad:
            origin = origin_of_tensor(source)
            made = Cut(reason, call, origin)
            _values.keep(made, origin)
            found.append(made)
        else:
            found.extend(cuts_of(source))
    return latest(found)


def note(tensor: Tensor, cuts: tuple[Cut, ...]) -> None:
    """``tensor`` carries values that were cut off."""
    key = id(tensor)
    _of_tensor[key] = (
        ref(tensor, lambda _: _of_tensor.pop(key, None)),
        latest((*cuts_of(tensor), *cuts)),
    )


def forget(tensor: Tensor) -> None:
    """``tensor`` carries other values now, in every entry."""
    _of_tensor.pop(id(tensor), None)


def note_read(call: UserCall, source: Tensor) -> None:
    """``source`` was read out as plain numbers: what they went into cannot be known."""
    origins = [found for each in cuts_of(source) if (found := each.source()) is not None]
    if source.requires_grad:
        origins = [origin_of_tensor(source)]
    for origin in origins:
        _reads.keep(Cut("read", call, origin), origin)


def reads_of(target: AnyOrigin) -> list[Cut]:
    """The latest reads of values that came from ``target``, by their place in the program."""
    found: dict[Place, Cut] = {}
    for read in _reads:
        source = read.source()
        if source is not None and path_of_cuts([source], (), target) is not None:
            found[read.place] = read
    return list(found.values())


def path_of_cuts(
    origins: Iterable[AnyOrigin], cuts: Iterable[Cut], target: AnyOrigin
) -> list[Cut] | None:
    """The fewest cuts between these and ``target``, the last of them first; empty if it is
    reached without one, None if it is not reached."""
    queue: deque[tuple[AnyOrigin, list[Cut]]] = deque((origin, []) for origin in origins)
    queue.extend((source, [c]) for c in cuts if (source := c.source()) is not None)
    seen: set[int] = set()
    while queue:
        origin, path = queue.popleft()
        found, met = walk_to(target, origin, seen)
        if found:
            return path
        for each in met:
            source = each.source()
            if source is not None:
                queue.append((source, [*path, each]))
    return None
