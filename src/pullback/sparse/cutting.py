"""Where no difference tells a derivative: gradients cut on purpose, and coarse arithmetic."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .. import _checks, _torch
from .reads import CUTS

_READS = (Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__float__, Tensor.__array__)
_APPLY = Function.apply.__func__.__code__  # type: ignore[attr-defined]


def cut_of(func: Callable[..., Any], primals: Sequence[Tensor]) -> str:
    """What ``func`` does to hide a part of itself from autograd, and where; or nothing.

    ``primals`` are leaves. What goes on inside a custom Function does not count: its backward is
    what it says the derivative is.
    """
    watch = _Watch(primals)
    with torch.enable_grad(), watch:
        func(*primals)
    return watch.found


def coarser_than(func: Callable[..., Any], primals: Sequence[Tensor]) -> str:
    """A dtype in which ``func`` computes that is less precise than its arguments, or nothing."""
    watch = _Precisions(max(torch.finfo(t.dtype).eps for t in primals))
    with torch.enable_grad(), watch:
        func(*primals)
    return watch.found


class _Precisions(TorchDispatchMode):
    def __init__(self, eps: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._eps, self.found = eps, ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in pytree.tree_leaves(result):
            smooth = isinstance(value, Tensor) and _checks.can_carry_gradients(value.dtype)
            if smooth and torch.finfo(value.dtype).eps > self._eps:
                self.found = _checks.dtype_text(value.dtype)
        return result


class _Watch(TorchFunctionMode):
    def __init__(self, primals: Sequence[Tensor]) -> None:
        super().__init__()
        self._primals = {id(t) for t in primals}
        self.found = ""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self.found:
            what = self._what(func)
            if what and any(map(self._follows, pytree.tree_leaves(args))) and not _in_apply():
                where = _torch.user_line()
                self.found = f"{what} at {where}" if where else what
        return func(*args, **(kwargs or {}))

    def _what(self, func: Any) -> str:
        name = getattr(func, "__name__", str(func))
        if func in _READS:
            return f"reads a tensor by .{name}()"
        if func in CUTS:
            return CUTS[func]
        if name == "__get__" or torch.is_grad_enabled():
            return ""
        return f"calls {name} while no graph is recorded"

    def _follows(self, value: object) -> bool:
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.requires_grad):
            return False
        if id(value) in self._primals:
            return True
        leaves = (_torch.leaf_of(node) for node in _torch.nodes_behind([value]))
        return any(id(leaf) in self._primals for leaf in leaves if leaf is not None)


def _in_apply() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _APPLY:
            return True
        frame = frame.f_back
    return False
