"""A ledger in words: what every ``.grad`` is made of, who emptied it, who never wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor

from .. import draw
from ..draw.numbers import count, number, shape
from .accounts import Account
from .enginecalls import EngineCall
from .entries import KINDS, Entry, place_text
from .events import UserCall

_TOLD_NAMES = 6
_TOLD_ENTRIES = 12
_TOLD_PLACES = 4
_TOLD_KINDS = ("clip", "unscale", "hook", "reduce", "write", "unlogged")


def page_of(
    accounts: Sequence[Account], calls: Sequence[EngineCall], unlogged: Sequence[Entry]
) -> draw.Page:
    """Tensors with the same story are told together."""
    blocks: list[draw.Block] = []
    if unlogged:
        many = times(len(unlogged), "change")
        text = f"Out of balance: {many} of .grad that nobody was seen to make."
        blocks.append(draw.Sentence(text, tuple((e.tensor, e.note) for e in unlogged[:8])))
    else:
        total = sum(sum(a.counts.values()) for a in accounts)
        blocks.append(
            draw.Sentence(
                f"In balance: {times(total, 'entry', 'entries')} over "
                f"{times(len(accounts), 'tensor')} explain what every .grad holds."
            )
        )
    groups: dict[tuple[str, ...], list[Account]] = {}
    for account in accounts:
        groups.setdefault(_likeness(account, calls), []).append(account)
    for members in groups.values():
        blocks.append(draw.Heading(_names([account.name for account in members]), 2))
        blocks += [draw.Sentence(text) for text in story_of(members[0], calls)]
        if members[0].entries:
            blocks.append(_table(members[0], alone=len(members) == 1))
    return draw.Page("Ledger", tuple(blocks))


def story_of(account: Account, calls: Sequence[EngineCall]) -> list[str]:
    """Sentences on one ``.grad``: what it holds and why, or why it holds nothing."""
    if account.grad() is None:
        return [_why_empty(account, calls)]
    return [_what_it_holds(account), *_what_else(account)]


def _why_empty(account: Account, calls: Sequence[EngineCall]) -> str:
    if account.counts["deposit"]:
        emptied = _latest(account, ("none",))
        by = "" if emptied is None else f", by {by_words(emptied.call)}"
        return (
            f".grad is None: it was set to None{by}, after "
            f"{times(account.counts['deposit'], 'deposit')}."
        )
    tensor = account.tensor()
    if tensor is None:
        return "The tensor is gone, and no backward wrote its .grad before."
    return f".grad was never written: {why_never(tensor, calls)}."


def why_never(tensor: Tensor, calls: Sequence[EngineCall]) -> str:
    """Why none of these engine calls wrote to ``tensor``; a clause without a full stop."""
    if not tensor.requires_grad:
        return "it does not require a gradient"
    writing = [call for call in calls if call.writes and not call.error]
    if not calls:
        return "no backward ran in the block"
    if not writing:
        failed = [call for call in calls if call.error]
        if failed:
            return f"{by_words(failed[-1].call)} raised: {failed[-1].error}"
        return (
            f"only autograd.grad ran ({by_words(calls[-1].call)}), which hands gradients back and "
            f"writes none"
        )
    left_out = [call for call in writing if not call.asked_for(tensor)]
    if len(left_out) == len(writing):
        return f"inputs= of {by_words(left_out[-1].call)} left it out"
    none = "the backward that ran did not reach it"
    if len(writing) > 1:
        none = f"none of the {times(len(writing), 'backward')} that ran reached it"
    return f"{none} (pb.why, with the output, says why)"


def _what_it_holds(account: Account) -> str:
    deposits = [entry for entry in account.since_empty if entry.kind == "deposit"]
    total = account.deposits_since_empty
    emptied = next((e for e in account.since_empty if e.kind in ("zero", "none", "set")), None)
    start = "the ledger began" if emptied is None else f"{by_words(emptied.call)}"
    if total == 0:
        if emptied is None:
            return ".grad holds what it held when the ledger began: nothing was added to it."
        what = "zeros" if emptied.kind == "zero" else "what was put there"
        return f".grad holds {what}, by {start}; nothing was added since."
    text = f".grad holds {times(total, 'deposit')} since {start}: {_places(deposits)}."
    if total > 1:
        text += " Nothing emptied it in between"
        if not _others(account):
            text += ", so it is their sum"
        amounts = {entry.amount for entry in deposits}
        if len(amounts) == 1 and None not in amounts and len(deposits) == total:
            text += f"; each has norm {number(amounts.pop() or 0.0)}"
        text += "."
    if emptied is None and account.had_grad_at_start:
        text += " It is added to what .grad held when the ledger began."
    return text


def _what_else(account: Account) -> list[str]:
    """What happened to it besides deposits."""
    latest = {entry.kind: entry for entry in _others(account)}
    kinds = Counter(e.kind for e in account.since_empty)
    last_deposit = max((e.number for e in account.since_empty if e.kind == "deposit"), default=0)
    sentences = []
    for entry in sorted(latest.values(), key=lambda e: e.number):
        when = "Then" if entry.number > last_deposit else "Before the last deposit"
        more = f" ({kinds[entry.kind]} times)" if kinds[entry.kind] > 1 else ""
        behind = " behind autograd's back" if entry.behind else ""
        by = "" if entry.kind == "unlogged" else f", by {by_words(entry.call)}"
        note = f": {entry.note}" if entry.note else ""
        sentences.append(f"{when} {KINDS[entry.kind]}{behind}{more}{by}{note}.")
    scale = next(
        (e.engine_call.scale for e in account.since_empty if e.engine_call is not None), None
    )
    if scale is not None and scale != 1 and not kinds["unscale"]:
        sentences.append(
            f"The outputs were multiplied by the loss scale {number(scale)}, which has not been "
            f"divided out: scaler.unscale_(optimizer) does that."
        )
    return sentences


def _others(account: Account) -> list[Entry]:
    """What else than deposits made ``.grad`` what it is."""
    return [entry for entry in account.since_empty if entry.kind in _TOLD_KINDS]


def _latest(account: Account, kinds: Iterable[str]) -> Entry | None:
    return next((e for e in reversed(account.entries) if e.kind in kinds), None)


def _places(deposits: Sequence[Entry]) -> str:
    """``backward() at train.py:12 (3 times), ...``."""
    found = Counter(by_words(entry.call) for entry in deposits)
    told = [
        place if many == 1 else f"{place} ({many} times)"
        for place, many in list(found.items())[:_TOLD_PLACES]
    ]
    if len(found) > _TOLD_PLACES:
        told.append(f"{len(found) - _TOLD_PLACES} more places")
    return ", ".join(told)


def by_words(call: UserCall) -> str:
    """``backward at train.py:12``."""
    place = place_text(call)
    return f"{call.function} at {place}" if place else call.function


def times(many: int, one: str, several: str = "") -> str:
    return f"{count(many)} {one if many == 1 else several or one + 's'}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_TOLD_NAMES])
    rest = len(names) - _TOLD_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown


def _likeness(account: Account, calls: Sequence[EngineCall]) -> tuple[str, ...]:
    """Equal for tensors to which the same happened, by the same lines."""
    if not account.entries:
        return tuple(story_of(account, calls))
    recent = list(account.entries)[-_TOLD_ENTRIES:]
    state = "None" if account.grad() is None else "held"
    return (
        state,
        str(account.dropped),
        *(f"{e.kind} {by_words(e.call)} {e.note} {e.behind}" for e in recent),
    )


def _table(account: Account, *, alone: bool) -> draw.Table:
    recent = list(account.entries)[-_TOLD_ENTRIES:]
    earlier = sum(account.counts.values()) - len(recent)
    columns = ("#", "what", "by", "of", *(("norm after",) if alone else ()))
    rows = []
    for entry in recent:
        what = entry.kind + (" (behind autograd)" if entry.behind else "")
        cells = [str(entry.number), what, by_words(entry.call), _of(entry)]
        if alone:
            cells.append("" if entry.norm is None else number(entry.norm))
        rows.append(tuple(cells))
    title = "Entries" if not earlier else f"The last {len(recent)} entries, after {earlier} others"
    return draw.Table(title, columns, tuple(rows))


def _of(entry: Entry) -> str:
    call = entry.engine_call
    if call is None:
        return entry.note or entry.call.code
    parts = []
    for root in call.roots[:2]:
        made = f" ({root.call.code})" if root.call is not None and root.call.code else ""
        weight = "" if root.cotangent is None else f", v is {root.cotangent.words}"
        parts.append(f"output {shape(root.shape)}{made}{weight}")
    if len(call.roots) > 2:
        parts.append(f"{len(call.roots) - 2} more outputs")
    if call.scale is not None:
        parts.append(f"loss scale {number(call.scale)}")
    return "; ".join(parts)
