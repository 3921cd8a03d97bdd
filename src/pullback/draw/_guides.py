"""The rails of an outline: which piece of line stands before each row, level by level."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Guide: TypeAlias = Literal["rail", "gap", "tee", "elbow"]

# A chain nested n deep would hold n * n / 2 pieces: past this depth a number stands for them.
MAX_GUIDES = 32


def guides(depths: Sequence[int]) -> list[tuple[Guide, ...]]:
    """Return for each row one guide per level from 1 to its depth, at most MAX_GUIDES.

    Rows are read from the last to the first, for a rail is drawn where a sibling follows below.
    """
    follows: list[bool] = []
    found: list[tuple[Guide, ...]] = []
    for depth in reversed(depths):
        del follows[depth + 1 :]
        follows.extend([False] * (depth + 1 - len(follows)))
        found.append(_row_guides(follows, depth))
        follows[depth] = True
    found.reverse()
    return found


def _row_guides(follows: list[bool], depth: int) -> tuple[Guide, ...]:
    if depth == 0:
        return ()
    above = follows[1 : min(depth, MAX_GUIDES)]
    rails: list[Guide] = ["rail" if below else "gap" for below in above]
    rails.append("tee" if follows[depth] else "elbow")
    return tuple(rails)
