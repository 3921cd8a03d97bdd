"""Tensors whose content a plan relies on: indices, masks, frozen values."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ... import _torch
from .facts import TensorForm, form_of, quoted

# From this many elements on, NumPy compares faster than torch, which takes bytes one by one.
_MANY = 2_048
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class TensorGuard:
    """A private copy of a tensor's content, compared bit by bit.

    Two NaNs of the same bits are equal, ``0.0`` and ``-0.0`` are not. Neither identity nor the
    version counter proves that a content is unchanged: writes through ``.data`` and through the
    memory behind ``torch.from_numpy`` are not counted.
    """

    def __init__(self, path: str, tensor: Tensor) -> None:
        self.path = path
        self._form = _form(tensor)
        self._parts = [part.clone() for part in _parts(tensor)]
        self._known = (weakref.ref(tensor), _torch.version_of(tensor))

    @classmethod
    def of(cls, path: str, tensor: Tensor) -> TensorGuard:
        """Guard ``tensor``, which stands at ``path``, with the content that it has now."""
        return cls(path, tensor)

    def holds(self, tensor: Tensor, trust: bool = False) -> bool:
        """Whether ``tensor`` has the guarded content.

        ``trust``: take the very same tensor at the same version for unchanged, unread.
        """
        if trust and self._is_untouched(tensor):
            return True
        return _form(tensor) == self._form and self._has_parts(tensor)

    def has_content(self, tensor: Tensor, trust: bool = False) -> bool:
        """``holds`` for a tensor that is known to have the guarded form."""
        return (trust and self._is_untouched(tensor)) or self._has_parts(tensor)

    def _is_untouched(self, tensor: Tensor) -> bool:
        reference, version = self._known
        return reference() is tensor and _torch.version_of(tensor) == version

    def _has_parts(self, tensor: Tensor) -> bool:
        parts = _parts(tensor)
        return len(parts) == len(self._parts) and all(map(_equal_bits, parts, self._parts))

    def difference(self, tensor: Tensor) -> str:
        """Where ``tensor`` differs from the guarded content, in words; empty where it does not."""
        if self.holds(tensor):
            return ""
        name = f"{self._noun()} {quoted(self.path)}"
        form = _form(tensor)
        if form != self._form:
            return f"{name} changed: {self._form} before, {form} now"
        if tensor.layout is not torch.strided or tensor.is_nested:
            return f"{name} changed its content"
        before, now = self._parts[0], _parts(tensor)[0]
        first = int((_bits(before) != _bits(now)).any(dim=1).nonzero()[0])
        values = f"{_entry(before, first)} before, {_entry(now, first)} now"
        return f"{name} changed at [{_index(first, tuple(before.shape))}]: {values}"

    def _noun(self) -> str:
        dtype = self._form.dtype
        if dtype is torch.bool:
            return "mask"
        return "tensor" if dtype.is_floating_point or dtype.is_complex else "index"


def _form(tensor: Tensor) -> TensorForm:
    """What belongs to the content: neither the strides nor who asks for gradients."""
    return form_of(tensor)._replace(kind="Tensor", strides=None, requires_grad=False)


def _parts(tensor: Tensor) -> list[Tensor]:
    """Strided tensors that hold the whole content."""
    tensor = tensor.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout is torch.sparse_coo:
        whole = tensor.coalesce()
        return [whole.indices(), whole.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.is_quantized:
        return [tensor.dequantize()]
    return [tensor if tensor.layout is torch.strided else tensor.to_dense()]


def _bits(part: Tensor) -> Tensor:
    """One row of bytes for each entry."""
    flat = part.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), flat.element_size())


def _equal_bits(now: Tensor, before: Tensor) -> bool:
    if now.shape != before.shape or now.dtype != before.dtype:
        return False
    if now.is_meta:
        return True
    if now.numel() >= _MANY and _lies_plain(now) and _lies_plain(before):
        return np.array_equal(_memory(now), _memory(before))
    if now.dtype in _INTEGERS:  # equal numbers are equal bits
        return torch.equal(now, before)
    return torch.equal(_bits(now), _bits(before))


def _lies_plain(part: Tensor) -> bool:
    lazy = part.is_conj() or part.is_neg()
    return part.device.type == "cpu" and part.is_contiguous() and not lazy


def _memory(part: Tensor) -> npt.NDArray[Any]:
    """The bytes, eight at a time where they can be counted so."""
    flat = part.reshape(-1).view(torch.uint8).numpy()
    return flat.view(np.uint64) if flat.nbytes % 8 == 0 else flat


def _entry(part: Tensor, position: int) -> str:
    return str(part.reshape(-1)[position].item())


def _index(position: int, shape: tuple[int, ...]) -> str:
    index = []
    for size in reversed(shape):
        position, remainder = divmod(position, size)
        index.append(str(remainder))
    return ", ".join(reversed(index))
