"""The tutorial's weighing exercise, for commands that were given no program."""

from __future__ import annotations

from torch import Tensor


def weighed(inp: Tensor) -> Tensor:
    return (inp + 10).pow(3).t()
