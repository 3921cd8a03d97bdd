"""Data that leaves the tensors of a recorded program: what it follows from, how it is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .. import _torch
from .._adjoint import python_written

# Reads of a tensor's data that reach no ATen operator.
_SILENT_READS: dict[Any, str] = {
    Tensor.numpy: ".numpy()",
    Tensor.tolist: ".tolist()",
    Tensor.__array__: "numpy.asarray()",
    Tensor.data_ptr: ".data_ptr()",
    Tensor.untyped_storage: ".untyped_storage()",
    Tensor.__dlpack__: ".__dlpack__()",
    Tensor.__repr__: "repr()",
    Tensor.__format__: "format()",
}
_FROM_OUTSIDE = (torch.from_numpy, torch.as_tensor, torch.asarray, torch.frombuffer, torch.tensor)
_SIZES = (
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.size,
    Tensor.numel,
    Tensor.nelement,
    Tensor.__len__,
    Tensor.__iter__,
)
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_BACKWARDS = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
_PRINTING = (Tensor.__repr__, Tensor.__format__)
# What makes a backward another one than the derivative of the values.
CUTS: dict[Any, str] = {
    Tensor.detach: "detaches a tensor",
    Tensor.detach_: "detaches a tensor",
    Tensor.data.__get__: "takes .data of a tensor",  # type: ignore[attr-defined]
    _SET_DATA: "sets .data of a tensor",
    Tensor.register_hook: "hooks a tensor",
    Tensor.grad_fn.__get__: "takes the node of a tensor",  # type: ignore[union-attr]
    Tensor.requires_grad_: "sets requires_grad of a tensor",
    Tensor.requires_grad.__set__: "sets requires_grad of a tensor",  # type: ignore[attr-defined]
}


@dataclass(frozen=True)
class Taint:
    """What a tensor's data follows from: ``varies`` with an argument or a draw; and ``sources``,
    the names of the constants that it was made of."""

    varies: bool = False
    sources: frozenset[str] = frozenset()

    def __or__(self, other: Taint) -> Taint:
        if self is other or other is LITERAL:
            return self
        if self is LITERAL:
            return other
        return Taint(self.varies or other.varies, self.sources | other.sources)


LITERAL = Taint()
VARYING = Taint(varies=True)
COTANGENT = Taint(varies=True, sources=frozenset({"cotangent"}))


@dataclass(frozen=True)
class Read:
    """Data that left the tensors: ``what`` was called on it, and where."""

    what: str
    where: str
    taint: Taint


class Recorder(Protocol):
    """What the interceptor needs of a tape."""

    reads: list[Read]
    cuts: list[Read]
    quiet: bool

    def taint_of(self, tensor: Tensor) -> Taint: ...

    def is_sized_by_data(self, tensor: object) -> bool: ...

    def knows(self, tensor: Tensor) -> bool: ...

    def literal(self, tensor: Tensor) -> None: ...

    def unwatched(self) -> AbstractContextManager[None]: ...


class Interceptor(TorchFunctionMode):
    """Notes the reads that no ATen operator shows, and tensors made of other libraries' arrays."""

    def __init__(self, tape: Recorder) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tape = self._tape
        if tape.quiet:
            return func(*args, **kwargs)
        self._note_silent_reads(func, args)
        self._note_cuts(func, args)
        if func in _PRINTING:
            with tape.unwatched():
                return func(*args, **kwargs)
        with self._also_in_backwards(func, args, kwargs):
            result = func(*args, **kwargs)
        made_outside = func in _FROM_OUTSIDE and isinstance(result, Tensor)
        if made_outside and not tape.knows(result):
            with tape.unwatched():
                tape.literal(result)
        return result

    def _note_silent_reads(self, func: Any, args: Any) -> None:
        what, read = _SILENT_READS.get(func), list(args[:1])
        if func in _FROM_OUTSIDE and args and isinstance(args[0], (list, tuple)):
            what, read = f"torch.{func.__name__}([...])", pytree.tree_leaves(args[0])
        if func is _SET_DATA:
            what, read = ".data = ...", list(args[:2])
        if func in _SIZES and self._tape.is_sized_by_data(args[0]):
            what = "the size of what a mask picked"
        if what is None:
            return
        for tensor in read:
            if isinstance(tensor, Tensor):
                with self._tape.unwatched():
                    taint = self._tape.taint_of(tensor)
                self._tape.reads.append(Read(what, _torch.user_line(), taint))

    def _note_cuts(self, func: Any, args: Any) -> None:
        what = CUTS.get(func)
        if what is None and not torch.is_grad_enabled():
            what = f"calls {getattr(func, '__name__', func)} while no graph is recorded"
        if what is None:
            return
        for tensor in pytree.tree_leaves(args):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                with self._tape.unwatched():
                    taint = self._tape.taint_of(tensor)
                if taint.varies:
                    self._tape.cuts.append(Read(what, _torch.user_line(), taint))
                    return

    @contextmanager
    def _also_in_backwards(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[None]:
        """Notes reads in backwards that are written in Python.

        torch takes a function mode off while it handles a call, so every such node puts this one on
        again as it starts. The engine restores the modes after each node.
        """
        if func not in _BACKWARDS:
            yield
            return
        outputs = pytree.tree_leaves(args[0] if args else kwargs.get("outputs"))

        def enter(*_: object) -> None:
            Interceptor(self._tape).__enter__()  # type: ignore[no-untyped-call]

        handles = [
            node.register_prehook(enter)
            for node in python_written([t for t in outputs if isinstance(t, Tensor)])
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
