"""Random draws of a recorded program: told apart, and told from draws made again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree


@dataclass
class Draw:
    """One random operator: the generator's state before and after, and the node of its result."""

    func: OpOverload
    before: bytes
    after: bytes
    node: fx.Node | None = None
    others: list[fx.Node] = field(default_factory=list)


class Draws:
    """Runs the operators of a tape and follows the default generators.

    A checkpoint restores an earlier state and draws the same numbers again: such a draw is
    answered with the first one. ``problems`` says what a replay could not repeat.
    """

    def __init__(self) -> None:
        self.made: list[Draw] = []
        self.problems: list[str] = []
        self._state: dict[str, bytes] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Leaves every generator as it was."""
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        python, legacy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=devices):
            self._state = {}
            self._begin = _state("cpu")
            try:
                yield
            finally:
                if random.getstate() != python:
                    self.problems.append("it draws from Python's `random`")
                    random.setstate(python)
                if not _same_state(np.random.get_state(), legacy):
                    self.problems.append("it draws from `numpy.random`")
                    np.random.set_state(legacy)
                if _state("cpu") != self._state.get("cpu", self._begin):
                    self.problems.append("it seeds or restores a random generator")

    def run(self, func: OpOverload, args: Any, kwargs: Any) -> tuple[Any, Draw | None]:
        """Call ``func``; with the draw if it is one. A draw with a node is a repeated one."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs), None
        if any(isinstance(a, torch.Generator) for a in pytree.tree_leaves((args, kwargs))):
            self.problems.append("it draws from a generator of its own")
        device = next(
            (str(a.device) for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)),
            str(kwargs.get("device") or "cpu"),
        )
        before = _state(device)
        result = func(*args, **kwargs)
        after = _state(device)
        if before == after:  # dropout with p = 0 and the like draw nothing
            return result, None
        last = self._state.get(device)
        if last is None:
            last = self._begin if device == "cpu" else before
        if before != last:
            for draw in self.made:
                if draw.func is func and draw.before == before and draw.after == after:
                    return result, draw
            self.problems.append("it seeds or restores a random generator")
        self._state[device] = after
        draw = Draw(func, before, after)
        self.made.append(draw)
        return result, draw


def _state(device: str) -> bytes:
    if device.startswith("cuda"):
        return torch.cuda.get_rng_state(device).numpy().tobytes()
    return torch.get_rng_state().numpy().tobytes()


def _same_state(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
