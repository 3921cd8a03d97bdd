"""A cut in words: where it is, why it is one, and what to write instead."""

from __future__ import annotations

from .entries import place_text
from .events import UserCall
from .origins import Cut
from .verdict import Evidence

REASONS = {
    "detach": "detach() hands on the values without their graph",
    "data": ".data hands on the values without their graph",
    "copied": "it makes a new tensor of the values, without their graph",
    "no_grad": "it ran under torch.no_grad(), where no graph is built",
    "inference_mode": "it ran under torch.inference_mode(), where no graph is built",
    "not_differentiable": "its result has no derivative (an index, a comparison, an integer)",
    "read": "the values were read out as plain numbers",
}


def first_cut(cuts: tuple[Cut, ...]) -> Cut | None:
    return cuts[-1] if cuts else None


def cut_evidence(cut: Cut | None) -> Evidence:
    return () if cut is None else (("cut at", f"{at(cut.call)}, by {cut.reason}"),)


def in_words(cut: Cut | None) -> str:
    return "" if cut is None else f" in {at(cut.call)}"


def at(call: UserCall) -> str:
    """``train.py:12 (`x.detach()`)``."""
    place = place_text(call) or "an unknown line"
    return f"{place} (`{call.code}`)" if call.code else place


def fix_of_cut(cut: Cut) -> str:
    code = cut.call.code
    if cut.reason == "detach":
        return _leave_out("the detach", code, code.replace(".detach()", ""))
    if cut.reason == "data":
        return _leave_out(".data", code, code.removesuffix(".data"))
    if cut.reason in ("no_grad", "inference_mode"):
        return f"Move it out of the {cut.reason} block:\n    {code}"
    if cut.reason == "copied":
        return f"Use the tensor itself, or its .clone(), in place of\n    {code}"
    if cut.reason == "read":
        return "Stay with tensors: compute with the tensor itself instead of its numbers."
    return (
        "Use an operation with a derivative in its place (a soft version of an index or a "
        "comparison, a weight instead of a mask)."
    )


def _leave_out(what: str, code: str, without: str) -> str:
    if without == code:  # detach_(), torch.detach(x)
        return f"Leave {what} out of\n    {code}"
    return f"Leave {what} out; in place of {code} write\n    {without}"
