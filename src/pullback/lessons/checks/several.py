"""What several lessons need: arguments made anew, answers of several parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ..checking import CrashedError, UnansweredError, is_open


def fresh(*args: Any) -> Callable[[], tuple[Any, ...]]:
    """For a `Case`: these arguments, tensors and arrays copied at each call."""
    return lambda: tuple(_copied(arg) for arg in args)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def given(answer: Any, *names: str) -> tuple[Any, ...]:
    """The parts of an answer such as ``lesson.check("mine", (my_f, my_x))``.

    Raises:
        UnansweredError: one of them is still the stub's.
        CrashedError: there are more or fewer of them than ``names``.
    """
    if not isinstance(answer, tuple) or len(answer) != len(names):
        wanted = ", ".join(names)
        raise CrashedError(TypeError(f"the answer is ({wanted})"), f"Taking ({wanted}) apart")
    if any(map(is_open, answer)):
        raise UnansweredError
    return answer
