"""What an exception still tells of the program that raised it: its lines, its tensors, its call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from ... import _torch
from ...draw.numbers import shape
from ..calls import CallMode
from ..events import UserCall
from ..graph import Graph, Port, port_of, walk_from
from ..noting import tensors_in
from ..origins import call_of
from ..provenance import parameter_name
from ..sites import call_in

_MOST_ITEMS = 64


class SceneNames:
    """What the user's frames call tensors: variables, the innermost first, then globals."""

    def __init__(self, frames: list[_torch.TracedFrame]) -> None:
        self._tensors: dict[int, str] = {}
        self._memories: dict[int, list[str]] = {}
        self.modules: dict[str, nn.Module] = {}
        inner = [traced.frame for traced in reversed(frames)]
        found = [
            (name, value)
            for space in (*(f.f_locals for f in inner), *(f.f_globals for f in inner))
            for name, value in list(space.items())
            if not name.startswith("_")
        ]
        for name, value in sorted(found, key=lambda pair: not isinstance(pair[1], Tensor)):
            self._take(name, value)

    def _take(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            self.modules.setdefault(name, value)
        for inner, tensor in _tensors_of(name, value):
            known = self._tensors.setdefault(id(tensor), inner)
            number = None if _torch.is_transform_tensor(tensor) else _torch.storage_number(tensor)
            if number is not None and known == inner:
                self._memories.setdefault(number, []).append(inner)

    def of(self, tensor: Tensor) -> str | None:
        """The variable, ``model.head.weight`` or ``losses[0]``, or what ``trace`` has seen."""
        return self._tensors.get(id(tensor)) or parameter_name(tensor)

    def of_memory(self, tensor: Tensor) -> list[str]:
        """Everything by which the memory of ``tensor`` can be reached."""
        number = _torch.storage_number(tensor)
        return [] if number is None else self._memories.get(number, [])

    def is_state(self, name: str) -> bool:
        """Whether a name is one of a parameter or a buffer of a module."""
        return any(name.startswith(module + ".") for module in self.modules)


def _tensors_of(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        for inner, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield f"{name}.{inner}", tensor
    elif isinstance(value, (list, tuple)):
        for k, item in enumerate(value[:_MOST_ITEMS]):
            if isinstance(item, Tensor):
                yield f"{name}[{k}]", item
    elif type(value) is dict:
        for key, item in list(value.items())[:_MOST_ITEMS]:
            if isinstance(item, Tensor) and isinstance(key, (str, int)):
                yield f"{name}[{key!r}]", item


@dataclass(frozen=True)
class Scene:
    """An exception with its traceback, read once.

    ``given`` are outputs that the caller of ``diagnose`` named.
    """

    error: BaseException
    given: tuple[Tensor, ...] = ()

    @property
    def text(self) -> str:
        return str(self.error)

    @cached_property
    def frames(self) -> list[_torch.TracedFrame]:
        return _torch.traced_frames(self.error)

    @cached_property
    def _own_frames(self) -> list[_torch.TracedFrame]:
        """The user's: outside of torch, of pullback and of what is installed, if there are any."""
        outside = [f for f in self.frames if not _torch.is_library_file(f.code.co_filename)]
        own = [f for f in outside if not _torch.is_installed_file(f.code.co_filename)]
        return own or outside

    @cached_property
    def names(self) -> SceneNames:
        return SceneNames(self._own_frames)

    @cached_property
    def engine(self) -> _torch.EngineArguments | None:
        return _torch.engine_arguments(self.frames)

    @cached_property
    def place(self) -> UserCall | None:
        """The innermost line of the user's."""
        return _call_in(self._own_frames[-1]) if self._own_frames else None

    @cached_property
    def engine_place(self) -> UserCall | None:
        """The line of the user's that called the engine."""
        if self.engine is None:
            return self.place
        called = [self.frames.index(f) for f in self._own_frames]
        before = [depth for depth in called if depth < self.engine.depth]
        return _call_in(self.frames[before[-1]]) if before else None

    @cached_property
    def traced(self) -> bool:
        """Whether the failing call, or a part of its graph, was made under ``trace``."""
        if any(f.code is CallMode.__torch_function__.__code__ for f in self.frames):
            return True
        return self.graph is not None and any(map(call_of, self.graph.nodes))

    @cached_property
    def arguments(self) -> tuple[Tensor, ...]:
        """The tensors given to the torch call that raised, as ``trace`` saw it."""
        for traced in reversed(self.frames):
            if traced.code is CallMode.__torch_function__.__code__:
                return tuple(tensors_in(tuple(traced.frame.f_locals.get("args", ()))))
        return ()

    def variable(self, name: str) -> Any:
        """The value of a plain or dotted name in the innermost frame of the user's; None if it
        cannot be read without running code."""
        if not self._own_frames:
            return None
        frame = self._own_frames[-1].frame
        first, *rest = name.split(".")
        value = frame.f_locals.get(first, frame.f_globals.get(first))
        for part in rest:
            if isinstance(value, nn.Module):
                held = {**vars(value), **value._parameters, **value._buffers, **value._modules}
            else:
                held = getattr(value, "__dict__", {})
            value = held.get(part)
        return value

    def local_of(self, kind: type[Any], name: str) -> Any:
        """The innermost variable ``name`` of this kind in any frame, torch's own included."""
        for traced in reversed(self.frames):
            value = traced.frame.f_locals.get(name)
            if isinstance(value, kind):
                return value
        return None

    @cached_property
    def outputs(self) -> tuple[Any, ...]:
        """What was differentiated: tensors, or gradient edges."""
        if self.given:
            return self.given
        return () if self.engine is None else self.engine.outputs

    @cached_property
    def graph(self) -> Graph | None:
        """The graph behind the outputs."""
        ports = [port for port in map(_port, self.outputs) if port is not None]
        return walk_from(ports) if ports else None

    def name(self, tensor: Tensor, otherwise: str = "") -> str:
        """What the program calls a tensor, else its shape."""
        known = self.names.of(tensor)
        return f"`{known}`" if known else otherwise or f"a tensor of shape {shape(tensor.shape)}"

    def output_name(self, position: int = 0) -> str:
        output = self.outputs[position] if position < len(self.outputs) else None
        known = self.names.of(output) if isinstance(output, Tensor) else None
        return f"`{known}`" if known else "the output" if position == 0 else f"output {position}"


def _call_in(traced: _torch.TracedFrame) -> UserCall:
    return call_in(traced.code, traced.instruction, traced.line)


def _port(output: Any) -> Port | None:
    if isinstance(output, GradientEdge):
        return Port(output.node, output.output_nr)
    if isinstance(output, Tensor) and output.requires_grad:
        return None if _torch.is_transform_tensor(output) else port_of(output)
    return None
