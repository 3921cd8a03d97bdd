"""What to write instead: a rewrite that was tried, or in words where none is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..draw.numbers import number
from .birth import Proof
from .events import UserCall
from .local import Rerun, kept_text, prove
from .operations import Guard
from .userwords import rewrite_of


class Fix(NamedTuple):
    """``text`` for a reader; ``lines`` of code, if the rewrite held when it was tried."""

    text: str = ""
    proof: Proof | None = None
    lines: tuple[str, ...] = ()


def fix_of(rerun: Rerun | None, upstream: Tensor, position: int, call: UserCall | None,
           wording: str = "of this pass") -> Fix:  # fmt: skip
    """The rewrite of one operation, tried on its operands with ``upstream``."""
    tried = None if rerun is None else prove(rerun, upstream, position, wording)
    if rerun is None or tried is None:
        return Fix()
    guard, proof = tried
    if not proof.holds:
        return Fix("", proof)
    saved = {**rerun.saved, "limit": rerun.scope["limit"]}
    found = rewrite_of(rerun.operation, guard, kept_text(guard, rerun), call, saved)
    where = "" if found.users else " (x and y stand for its operands)"
    lead = (
        f"Let the operation see a harmless number where its derivative does not exist, and take "
        f"its result only where it does. In place of {found.replaces}{where} write"
    )
    rest = f"{proof.text} {_stand_in(guard)}"
    code = "\n".join(f"    {line}" for line in found.lines)
    return Fix(f"{lead}\n{code}\n{rest}", proof, found.lines)


def _stand_in(guard: Guard) -> str:
    if guard.otherwise == "0.0":
        return "The 0.0 stands where the derivative does not exist; its gradient there is 0."
    return "Where the derivative does not exist the value stays, and its gradient is 0."


_REPEATED = (
    "Where two of the values are equal, the single vectors have no derivative: they may turn into "
    "each other. Use what does not depend on the choice (the values, or projectors onto a group of "
    "vectors), or add a small perturbation that sets them apart."
)
_IN_WORDS = {
    "LinalgEighBackward0": _REPEATED,
    "LinalgEigBackward0": _REPEATED,
    "LinalgSvdBackward0": _REPEATED,
    "StdBackward0": (
        "A deviation of a single entry with correction 1 is 0 / 0: pass correction=0, or leave "
        "such slices out."
    ),
    "VarBackward0": (
        "A variance of a single entry with correction 1 is 0 / 0: pass correction=0, or leave such "
        "slices out."
    ),
    "NativeLayerNormBackward0": (
        "A row of equal entries has variance 0; eps=1e-5 (torch's default) keeps its root off 0."
    ),
    "MeanBackward0": "A mean of no entries is 0 / 0: check that the selection is not empty.",
    "MeanBackward1": "A mean of no entries is 0 / 0: check that the selection is not empty.",
}


def in_words(node: str) -> str:
    return _IN_WORDS.get(node, "")


def for_overflow(dtype: torch.dtype, halvings: int) -> str:
    """How much smaller a cotangent comes through, as was tried at this node."""
    name = str(dtype).removeprefix("torch.")
    parts = [f"The largest number of {name} is {number(torch.finfo(dtype).max)}."]
    if halvings:
        parts.append(
            f"Backward is linear in v: with 2**-{halvings} times as large a v (a loss scale that "
            f"much smaller) this node sends finite numbers, as was tried; multiply the gradients "
            f"by 2**{halvings} afterwards, in a wider dtype. A larger loss scale makes it worse."
        )
    wider = "float32" if dtype in (torch.float16, torch.bfloat16) else "float64"
    if dtype not in (torch.float64, torch.complex128):
        parts.append(f"This part kept in {wider} would have room for it.")
    return " ".join(parts)
