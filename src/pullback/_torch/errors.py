"""What an exception still holds of the call that raised it: the frames of its traceback."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.optim import Optimizer

from .nodes import handed_to_hooks


class TracedFrame(NamedTuple):
    """One frame of a traceback, and the instruction at which it was left."""

    frame: FrameType
    instruction: int
    line: int

    @property
    def code(self) -> CodeType:
        return self.frame.f_code


class EngineArguments(NamedTuple):
    """What the engine was asked for. ``depth`` is the place of its frame in the traceback.

    ``outputs`` and ``inputs`` hold tensors or gradient edges.
    """

    function: str
    outputs: tuple[Any, ...]
    cotangents: tuple[Any, ...]
    inputs: tuple[Any, ...]
    depth: int


def traced_frames(error: BaseException) -> list[TracedFrame]:
    """The frames of an exception's traceback, outermost first."""
    found = []
    step = error.__traceback__
    while step is not None:
        found.append(TracedFrame(step.tb_frame, step.tb_lasti, step.tb_lineno))
        step = step.tb_next
    return found


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


_ENTRIES = {
    _code_of(torch.autograd.backward): ("backward", "tensors", "grad_tensors"),
    _code_of(torch.autograd.grad): ("grad", "outputs", "grad_outputs"),
}
_ENGINE = _code_of(torch.autograd.graph._engine_run_backward)


def engine_arguments(frames: list[TracedFrame]) -> EngineArguments | None:
    """Of the innermost call of the engine among these frames."""
    found: EngineArguments | None = None
    entered = False
    for depth, traced in enumerate(frames):
        values = traced.frame.f_locals
        if traced.code in _ENTRIES:
            function, outputs, cotangents = _ENTRIES[traced.code]
            asked = [_listed(values.get(name)) for name in (outputs, cotangents, "inputs")]
            found = EngineArguments(function, asked[0], asked[1], asked[2], depth)
            entered = True
        elif traced.code is _ENGINE:
            if not entered:  # a program that calls the engine itself
                arguments = values.get("args") or ()
                given = _listed(arguments[0]) if arguments else ()
                found = EngineArguments("engine", _listed(values["t_outputs"]), given, (), depth)
            entered = False
    return found


def _listed(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def refused_parameters(frames: list[TracedFrame]) -> list[Tensor]:
    """The tensors that an optimizer did not take, where it was being given its parameters."""
    code = _code_of(Optimizer.add_param_group)
    for traced in frames:
        group = traced.frame.f_locals.get("param_group") if traced.code is code else None
        if isinstance(group, dict):
            return [p for p in _listed(group.get("params")) if not (p.is_leaf or p.retains_grad)]
    return []


class Overwritten(NamedTuple):
    """A saved tensor whose memory was written to in place: its name at the node, its versions.

    ``message`` is what the engine says when it meets it.
    """

    name: str
    tensor: Tensor | None
    found: int
    expected: int
    message: str


_VERSIONS = re.compile(r"is at version (\d+); expected version (\d+)")


def overwritten(node: Node) -> list[Overwritten]:
    """What a node saved and cannot use any more. Nothing is unpacked by a user's hooks."""
    return list(_overwritten(node))


def _overwritten(node: Node) -> Iterator[Overwritten]:
    for attribute in dir(node):
        if not (attribute.startswith("_saved_") or attribute == "saved_tensors"):
            continue
        name = attribute.removeprefix("_saved_")
        try:
            parts = _listed(getattr(node, "_raw_saved_" + name.removeprefix("saved_"), None))
        except RuntimeError:  # freed
            continue
        if any(map(handed_to_hooks, parts)):
            continue
        try:
            getattr(node, attribute)
        except RuntimeError as error:
            versions = _VERSIONS.search(str(error))
            if versions is not None:
                found, expected = int(versions[1]), int(versions[2])
                yield Overwritten(name, _part(parts, found), found, expected, str(error))


def _part(parts: tuple[Any, ...], version: int) -> Tensor | None:
    """Of several saved tensors, one that was written as often."""
    tensors = [part.data for part in parts if isinstance(getattr(part, "data", None), Tensor)]
    same = [t for t in tensors if not t.is_inference() and t._version == version]
    return next(iter(same or tensors), None)


@contextmanager
def saved_tensors_kept() -> Iterator[None]:
    """Every node keeps a copy of what it saves, so that no write reaches it.

    torch's own mode for this misses writes through views that begin further on in memory than
    the saved tensor, and then computes with the new values.
    """
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        yield
