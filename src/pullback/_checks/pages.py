"""Pages of a record: how they are made, and what they ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .._errors import ArgumentError, UnsupportedError
from .words import article


def page_options(caller: str, editable: object, budget: object) -> None:
    if editable is not None and not isinstance(editable, bool):
        raise ArgumentError(
            f"{caller}: `editable` is {editable!r}; it must be True, False, or None to ask the "
            f"graph unless the user's own hooks would run again."
        )
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
        raise ArgumentError(
            f"{caller}: `budget` is {budget!r}; it must be a whole number of bytes, from 0 on."
        )


def page_question(caller: str, question: object, sizes: Sequence[int]) -> list[list[float]]:
    """A cotangent that a page sends: a list of finite numbers for each output."""
    parts = question.get("v") if isinstance(question, Mapping) else None
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        form = '{"v": [[...], ...]}'
        raise ArgumentError(f"{caller}: a question is {form}, with a list for each output.")
    found = [len(part) for part in parts]
    if found != list(sizes):
        raise ArgumentError(
            f"{caller}: `v` has {found} entries, but the outputs have {list(sizes)}."
        )
    for part in parts:
        for entry in part:
            if not _is_finite(entry):
                raise ArgumentError(
                    f"{caller}: `v` holds {entry!r}; its entries are finite numbers."
                )
    return parts


def _is_finite(entry: object) -> bool:
    if isinstance(entry, bool) or not isinstance(entry, (int, float)):
        return False
    try:
        return math.isfinite(entry)
    except OverflowError:  # an integer beyond the floats
        return False


def not_installed(caller: str, package: str, extra: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: {package} is not installed; pip install 'pullback[{extra}]' brings it."
    )


def port_taken(caller: str, port: int, detail: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: --port {port} cannot be used ({detail}); name another, or leave it out for a "
        f"free one."
    )


def no_tensor_output(caller: str, found: object) -> ArgumentError:
    return ArgumentError(
        f"{caller}: the function returned {article(found)}, and no tensor; return the tensors "
        f"whose backward is to be seen."
    )
