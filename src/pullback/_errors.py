"""The exceptions of pullback. Each is also the builtin kind a caller would expect to catch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PullbackError(Exception):
    """Base of every error that pullback raises on purpose."""


class ArgumentError(PullbackError, ValueError):
    """An argument has a value that the function cannot use."""


class CotangentError(ArgumentError):
    """A cotangent is missing, or does not pair entry by entry with its output."""


class TreeError(PullbackError, TypeError):
    """A pytree has the wrong structure, or holds something that is not a tensor."""


class GraphError(PullbackError, RuntimeError):
    """A tensor has no autograd graph, or its graph has been freed."""


class UnsupportedError(PullbackError, NotImplementedError):
    """torch itself refuses the operation here; the message says what to do instead."""


class RecordFormatError(PullbackError, ValueError):
    """A saved record cannot be read."""


class GradientAssertionError(PullbackError, AssertionError):
    """A contract about gradients does not hold.

    ``verdicts`` says why: a `Verdict` for each tensor, or each place in the program, that broke it.
    """

    def __init__(self, message: str, verdicts: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.verdicts = dict(verdicts)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.verdicts)
