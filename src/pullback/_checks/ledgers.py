"""Ledgers: what may be asked of them."""

from __future__ import annotations

from collections.abc import Sequence

from .._errors import ArgumentError
from .words import listed

_MOST_NAMES = 12


def entered_once(caller: str, is_open: bool) -> None:
    if is_open:
        raise ArgumentError(
            f"{caller}: this ledger is open already. Make another one for an inner block: "
            f"with {caller}(...) as inner."
        )


def not_in_ledger(names: Sequence[str]) -> ArgumentError:
    shown = listed(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return ArgumentError(
        f"book.account: no such tensor in this ledger, which watches {shown}. Pass "
        f"one of these names, or the tensor itself."
    )
