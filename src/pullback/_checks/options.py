"""Options and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import ArgumentError


def one_of(caller: str, argument: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        choices = " or ".join(repr(choice) for choice in allowed)
        raise ArgumentError(f"{caller}: `{argument}` is {value!r}; it must be {choices}.")


def chunk_size(caller: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ArgumentError(
            f"{caller}: `chunk_size` is {value!r}; it must be a positive whole number, or None for "
            f"all products at once."
        )


def known_name(caller: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        listed = ", ".join(map(repr, known))
        raise ArgumentError(f"{caller}: no cotangent is named {name!r}; there are {listed}.")


def flag(caller: str, argument: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ArgumentError(f"{caller}: `{argument}` is {value!r}; it must be True or False.")


def positive(caller: str, argument: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(
            f"{caller}: `{argument}` is {value!r}; it must be a positive whole number."
        )
