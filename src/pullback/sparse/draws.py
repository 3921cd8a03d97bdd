"""Random draws of a recorded program: told apart, and told from draws made again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
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
        python, legacy = random.getstate(), np.random.get_state()
        with generators_kept():
            self._state = {}
            self._begin = _state("cpu")
            try:
                yield
            finally:
                if random.getstate() != python:
                    self.problems.append("it draws from Python's `random`")
                if not _same_state(np.random.get_state(), legacy):
                    self.problems.append("it draws from `numpy.random`")
                if _state("cpu") != self._state.get("cpu", self._begin):
                    self.problems.append("it seeds or restores a random generator")

    def run(self, func: OpOverload, args: Any, kwargs: Any) -> tuple[Any, Draw | None]:
        """Call ``func``; with the draw if it is one. A draw with a node is a repeated one."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs), None
        for owned in pytree.tree_leaves((args, kwargs)):
            if isinstance(owned, torch.Generator):
                self.problems.append("it draws from a generator of its own")
                break
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


@contextmanager
def generators_kept(func: object = None) -> Iterator[None]:
    """Put the global generators back, and those that ``func`` closes over or names."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, legacy = random.getstate(), np.random.get_state()
    owned = [(set_state, state) for set_state, state in map(_handle, _reachable(func)) if set_state]
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
            for set_state, state in owned:
                set_state(state)


def _reachable(func: object) -> list[object]:
    """What stands in the closure, the named globals and the attributes of ``func``'s owner."""
    inner = getattr(func, "__func__", func)
    code = getattr(inner, "__code__", None)
    found = list(vars(getattr(func, "__self__", func)).values()) if _has_vars(func) else []
    if code is not None:
        names = getattr(inner, "__globals__", {})
        found += [names[name] for name in code.co_names if name in names]
        for cell in getattr(inner, "__closure__", None) or ():
            with suppress(ValueError):
                found.append(cell.cell_contents)
    return found


def _has_vars(func: object) -> bool:
    return hasattr(getattr(func, "__self__", func), "__dict__")


def _handle(owned: object) -> tuple[Any, Any]:
    """How to put a generator back, and its state; (None, None) for anything else."""
    if isinstance(owned, torch.Generator):
        return owned.set_state, owned.get_state()
    if isinstance(owned, random.Random):
        return owned.setstate, owned.getstate()
    if isinstance(owned, np.random.Generator):
        bits: Any = owned.bit_generator
        return partial(setattr, bits, "state"), bits.state
    if isinstance(owned, np.random.RandomState):
        return owned.set_state, owned.get_state()
    return None, None


def _state(device: str) -> bytes:
    if device.startswith("cuda"):
        return torch.cuda.get_rng_state(device).numpy().tobytes()
    return torch.get_rng_state().numpy().tobytes()


def _same_state(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
