"""The summary of a whole program, on one screen: what happened to its gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .. import draw
from ..draw.numbers import count
from .accounts import Account
from .booktext import by_words, times
from .entries import place_text
from .overseer import Overseer
from .verdict import Verdict

_TOLD = 5


def report_of(seen: Overseer) -> draw.Page:
    sections = [
        *_missing(seen),
        *_none_reads(seen),
        *_unzeroed(seen.accounts),
        *_unlogged(seen.accounts),
        *_nonfinite(seen),
        *_growing(seen),
    ]
    return draw.Page("pullback: what happened to the gradients", (_totals(seen), *sections))


def _totals(seen: Overseer) -> draw.Block:
    calls, accounts = seen.calls_seen, seen.accounts
    deposits = sum(account.counts["deposit"] for account in accounts) + seen.gone["deposits"]
    leaves = len(accounts) + seen.gone["leaves"]
    text = (
        f"{times(calls, 'call')} of the engine, {times(deposits, 'deposit')} on "
        f"{times(leaves, 'leaf', 'leaves')}."
    )
    if not calls:
        text = "No backward ran."
    return draw.Sentence(text)


def _missing(seen: Overseer) -> Iterator[draw.Block]:
    found = {a: v for a, v in seen.seen.missing.items() if not a.counts["deposit"]}
    if not found:
        return
    yield draw.Heading(f"Never got a gradient: {times(len(found), 'leaf', 'leaves')}")
    groups: dict[tuple[str, str], list[Account]] = {}
    for account, verdict in found.items():
        where = next((value for name, value in verdict.evidence if name == "cut at"), "")
        groups.setdefault((verdict.code, where), []).append(account)
    for accounts in list(groups.values())[:_TOLD]:
        yield _told(", ".join(a.name for a in accounts[:_TOLD]), found[accounts[0]], len(accounts))
    yield from _rest(len(groups))


def _told(names: str, verdict: Verdict, many: int) -> draw.Block:
    more = f" and {many - _TOLD} more" if many > _TOLD else ""
    return draw.Sentence(f"{names}{more} [{verdict.code}]: {verdict.text}")


def _none_reads(seen: Overseer) -> Iterator[draw.Block]:
    found = list(seen.seen.none_reads.values())
    if not found:
        return
    yield draw.Heading(f"Read .grad and got None: {times(len(found), 'line')}")
    for call, verdict in found[:_TOLD]:
        text = f"{place_text(call)} (`{call.code}`) [{verdict.code}]: {verdict.text}"
        yield draw.Sentence(text)
    yield from _rest(len(found))


def _unzeroed(accounts: Sequence[Account]) -> Iterator[draw.Block]:
    """Deposits that were added to what an optimizer had used already."""
    found = [account for account in accounts if account.reused]
    if not found:
        return
    yield draw.Heading(f"Accumulated without zeroing: {times(len(found), 'leaf', 'leaves')}")
    names = ", ".join(account.name for account in found[:_TOLD])
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    entry = found[0].first_reuse
    assert entry is not None
    yield draw.Sentence(
        f"{names}{more}: {by_words(entry.call)} added to a gradient that a step had used already, "
        f"{times(found[0].reused, 'time')}. Call optimizer.zero_grad() before each backward that "
        f"should stand alone."
    )


def _unlogged(accounts: Sequence[Account]) -> Iterator[draw.Block]:
    found = [e for account in accounts for e in account.entries if e.kind == "unlogged"]
    if not found:
        return
    yield draw.Heading(f"Changed by somebody unseen: {times(len(found), 'change')}")
    for entry in found[:_TOLD]:
        yield draw.Sentence(f"{entry.tensor}: {entry.note}.")
    yield from _rest(len(found))


def _nonfinite(seen: Overseer) -> Iterator[draw.Block]:
    births, spoiled = seen.seen.births, seen.seen.nonfinite
    if not births and not spoiled:
        return
    yield draw.Heading("Not finite")
    for call, birth in births[:_TOLD]:
        yield draw.Sentence(f"In {by_words(call.call)} [{birth.code}]: {birth.text}")
        code = [line for line in birth.fix.splitlines() if line.startswith("    ")]
        if code:
            yield draw.Code("\n".join(line[4:] for line in code))
    if spoiled:
        names = ", ".join(list(spoiled)[:_TOLD])
        first = next(iter(spoiled.values()))
        yield draw.Sentence(
            f"{times(len(spoiled), 'leaf', 'leaves')} got a deposit that is not finite ({names}), "
            f"first by {by_words(first.call)}."
        )
    if not births and seen.seen.unasked:
        yield draw.Sentence(
            f"Where it was born was not asked: hooks, checkpoints or custom Functions in the graph "
            f"of {seen.seen.unasked} would have run once more. pb.find_nonfinite(out) asks."
        )


def _growing(seen: Overseer) -> Iterator[draw.Block]:
    if not seen.seen.holders:
        return
    yield draw.Heading("Graphs that stay")
    for call, after, holder in seen.seen.holders[:_TOLD]:
        if holder is None:
            text = (
                f"After each {by_words(call.call)} more nodes were alive than after the one before."
            )
        else:
            made = (
                "" if holder.call is None else f" ({by_words(holder.call)}: `{holder.call.code}`)"
            )
            text = (
                f"{holder.name}{made} held {times(holder.nodes, 'node')} from "
                f"{times(holder.passes, 'forward pass', 'forward passes')}, "
                f"{count(holder.size)} bytes of saved tensors, after {times(after, 'backward')}, "
                f"and grows. Add up numbers, not tensors with a graph: .item(), or .detach()."
            )
        yield draw.Sentence(text)


def _rest(many: int) -> Iterator[draw.Block]:
    if many > _TOLD:
        yield draw.Sentence(f"... and {many - _TOLD} more.")
