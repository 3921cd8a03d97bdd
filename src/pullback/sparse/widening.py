"""Run a program of single precision in double precision, parameters and all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .._differences import WIDE


class Widening(TorchDispatchMode):
    """Every operator gets its tensors in double precision; those that it writes to stay.

    The tensors of a module need not be touched for it. A cast that the program asks for is made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        return func(*pytree.tree_map(_wide, args), **pytree.tree_map(_wide, kwargs or {}))


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in WIDE:
        return torch.ops.aten._to_copy.default(value, dtype=WIDE[value.dtype])
    return value
