"""Values of a function's state as comparable data.

A fact holds builtin values only, so comparing two of them never runs a user's ``__eq__``.
"""

from __future__ import annotations

import datetime
import hashlib
import pathlib
import re
import types
from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ... import _settings

_LONGEST_TEXT = 60


class Fact(NamedTuple):
    """``text`` is what a person reads; ``kind`` and ``token`` are equal where the values are."""

    kind: str
    token: Hashable
    text: str


class Place(NamedTuple):
    """``cfg.k`` of ``(closure of residual)``: an expression and the scope it is read in."""

    expr: str
    origin: str

    def attr(self, name: str) -> Place:
        return Place(f"{self.expr}.{name}" if self.expr else name, self.origin)

    def item(self, key: str) -> Place:
        return Place(f"{self.expr}[{key}]", self.origin)

    def __str__(self) -> str:
        if not self.origin:
            return self.expr
        return f"{self.expr} ({self.origin})" if self.expr else f"({self.origin})"


def quoted(path: str) -> str:
    """``dt (closure of f)`` as it stands in a sentence: `` `dt` (closure of f)``."""
    expr, bracket, origin = path.rpartition(" (")
    if not bracket:
        return path if path.startswith("(") else f"`{path}`"
    return f"`{expr}`{bracket}{origin}"


def shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."


def _integer(value: int) -> Fact:
    text = str(value) if value.bit_length() < 200 else f"an integer of {value.bit_length()} bits"
    return Fact("int", value, text)


def _complex(value: complex) -> Fact:
    return Fact("complex", (value.real.hex(), value.imag.hex()), repr(value))


def _by_text(value: Any) -> Fact:
    return Fact(type(value).__name__, repr(value), shortened(repr(value)))


def _pattern(value: re.Pattern[Any]) -> Fact:
    return Fact("pattern", (value.pattern, value.flags), shortened(repr(value.pattern)))


_PLAIN: dict[type[Any], Callable[[Any], Fact]] = {
    bool: lambda value: Fact("bool", value, repr(value)),
    int: _integer,
    float: lambda value: Fact("float", value.hex(), repr(value)),
    complex: _complex,
    str: lambda value: Fact("str", value, shortened(repr(value))),
    bytes: lambda value: Fact("bytes", value, shortened(repr(value))),
    torch.Size: lambda value: Fact("Size", tuple(value), str(tuple(value))),
    re.Pattern: _pattern,
}
for _type in (
    type(None),
    type(...),
    type(NotImplemented),
    range,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.finfo,
    torch.iinfo,
    Decimal,
    datetime.timedelta,
    datetime.date,
    types.GenericAlias,
    type(pathlib.Path()),
):
    _PLAIN[_type] = _by_text


def plain_fact(value: object) -> Fact | None:
    """A number, a string, a dtype... as a fact; None for anything that has parts or a state.

    ``0.0`` and ``-0.0``, ``1`` and ``1.0`` and ``True`` are different facts; nan is itself.
    """
    kind = type(value)
    if type(kind) is not type:  # a metaclass may define how its classes are hashed
        return None
    encode = _PLAIN.get(kind)
    if encode is not None:
        return encode(value)
    if issubclass(kind, np.generic):
        scalar = cast(np.generic, value)
        if not scalar.dtype.hasobject:
            return Fact("numpy scalar", (scalar.dtype.str, scalar.tobytes()), repr(value))
    return None


def dtype_fact(value: np.dtype[Any]) -> Fact:
    return Fact("numpy dtype", repr(value), repr(value))


def sequence_fact(kind: str, values: Sequence[object]) -> Fact | None:
    """One fact for a container that holds plain values only."""
    facts = []
    for value in values:
        fact = plain_fact(value)
        if fact is None:
            return None
        facts.append(fact)
    inner = shortened(", ".join(fact.text for fact in facts[:20]))
    return Fact(f"plain {kind}", tuple(facts), f"a {kind} of {len(facts)}: {inner}")


def array_fact(array: np.ndarray[Any, Any]) -> Fact:
    """The content of a NumPy array. It is hashed on every read: nothing counts its writes."""
    plain = np.asarray(array).view(np.ndarray)
    content = np.ascontiguousarray(plain)
    hasher = hashlib.blake2b(digest_size=16)
    if content.size:
        hasher.update(content.reshape(-1).view(np.uint8).data)
    digest = hasher.digest()
    text = f"a {plain.dtype} array of shape {plain.shape}"
    return Fact("array", (repr(plain.dtype), plain.shape, digest), text)


def buffer_fact(value: bytearray) -> Fact:
    return Fact("bytearray", bytes(value), f"a bytearray of {len(value)}")


class TensorForm(NamedTuple):
    """What a captured graph takes for granted of a tensor that it reads again at every call."""

    kind: str
    shape: tuple[Any, ...]
    strides: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    requires_grad: bool

    def __str__(self) -> str:
        return f"{self.shape} {str(self.dtype).removeprefix('torch.')}"


_PLAIN_TENSORS = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


def form_of(tensor: Tensor) -> TensorForm:
    kind = "Tensor" if type(tensor) in _PLAIN_TENSORS else type(tensor).__qualname__
    layout = tensor.layout
    strides = None
    if tensor.is_nested:
        shape: tuple[Any, ...] = tuple(tuple(part.shape) for part in tensor.detach().unbind())
    else:
        shape = tuple(tensor.shape)
        strides = tensor.stride() if layout is torch.strided else None
    return TensorForm(
        kind, shape, strides, tensor.dtype, tensor.device, layout, tensor.requires_grad
    )


def memory_of(tensor: Tensor) -> int:
    """Where the storage of ``tensor`` begins; 0 where it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, wrapped by a transform, ...
        return 0


_AUTOCAST_DEVICES = tuple(
    kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)
)


def torch_modes() -> tuple[object, ...]:
    """Everything below as one tuple, cheap to compare."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_deterministic_debug_mode(),
        *((torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in _AUTOCAST_DEVICES),
    )


class Modes:
    """The modes of one moment; ``hold()`` is quick to tell whether they are those of now.

    ``alone``: when last asked, no mode of torch function or dispatch ran that is not torch's own.
    """

    def __init__(self) -> None:
        self._seen = torch_modes()
        self._note()

    def _note(self) -> None:
        self._settings = _settings.settings_check()
        self._device = _settings.device_mode()
        self._inference = torch.is_inference_mode_enabled()

    @property
    def alone(self) -> bool:
        return self._device is not ...

    def hold(self) -> bool:
        if (
            self._settings is not None
            and self._settings()
            and (device := _settings.device_mode()) is self._device
            and device is not ...
            and torch.is_inference_mode_enabled() is self._inference
        ):
            return True
        if torch_modes() != self._seen:
            return False
        self._note()
        return True


def torch_facts() -> dict[str, Fact]:
    """The settings of torch that change what an operation does or records."""
    grad, inference, dtype, device, deterministic, *casts = torch_modes()
    found: dict[str, object] = {
        "torch.is_grad_enabled()": grad,
        "torch.is_inference_mode_enabled()": inference,
        "torch.get_default_dtype()": dtype,
        "torch.get_default_device()": device,
        "torch.get_deterministic_debug_mode()": deterministic,
    }
    for kind, setting in zip(_AUTOCAST_DEVICES, casts, strict=True):
        assert isinstance(setting, tuple)
        # The dtype of an autocast that is off changes nothing.
        found[f"torch.autocast({kind!r})"] = setting[1] if setting[0] else False
    return {path: fact for path, value in found.items() if (fact := plain_fact(value)) is not None}
