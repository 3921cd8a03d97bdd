"""Memory behind tensors, told apart for as long as somebody asks."""

from __future__ import annotations

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class StorageKey:
    """The memory of a tensor. While a key is held, no other memory gets the same ``number``."""

    __slots__ = ("_weak", "number")

    def __init__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.number = int(storage._cdata)
        self._weak = StorageWeakRef(storage)

    @property
    def freed(self) -> bool:
        return bool(self._weak.expired())


def storage_number(tensor: Tensor) -> int | None:
    """Equal for tensors that share memory; None for layouts that have none of their own."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):
        return None
