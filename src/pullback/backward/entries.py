"""One line of a ledger: what happened to one ``.grad``, where, and what it left."""

from __future__ import annotations

from typing import NamedTuple

from .enginecalls import EngineCall
from .events import UserCall

KINDS = {
    "deposit": "a backward added to it",
    "zero": "it was filled with zeros",
    "none": "it was set to None",
    "set": "another tensor was put in its place",
    "clip": "it was clipped",
    "unscale": "a loss scale was divided out",
    "hook": "a hook changed it after a deposit",
    "reduce": "it was written once more before the backward returned",
    "write": "it was written to in place",
    "read": "an optimizer read it",
    "unlogged": "somebody unseen changed it",
}
# After these, what was there before does not count any more.
EMPTYING = ("zero", "none", "set")


class Entry(NamedTuple):
    """What happened to the ``.grad`` of one tensor.

    - ``number``: the place in the ledger, over all tensors.
    - ``kind``: one of ``KINDS``.
    - ``tensor``: the name of the tensor.
    - ``call``: the user's call behind it: function, file, line, code.
    - ``engine_call``: of a deposit, the backward: its outputs, cotangents, loss scale.
    - ``amount``: the norm of a deposit. ``norm``: that of ``.grad`` afterwards, None if unknown or
      ``.grad`` is None. ``version``: how often ``.grad`` had been written afterwards.
    - ``behind``: written through a tensor with versions of its own (``.data``): autograd did not
      hear of it.
    - ``note``: what else is known, such as the names of hooks.
    """

    number: int
    kind: str
    tensor: str
    call: UserCall
    engine_call: EngineCall | None = None
    amount: float | None = None
    norm: float | None = None
    version: int | None = None
    behind: bool = False
    note: str = ""

    @property
    def place(self) -> str:
        """``train.py:12``, or nothing where the line is not known."""
        return place_text(self.call)


def place_text(call: UserCall) -> str:
    name = call.file.rpartition("/")[2].rpartition("\\")[2]
    return f"{name}:{call.line}" if call.line else ""
