"""torch.func transforms that are running, and tensors inside them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode


def running_transform() -> str | None:
    """``grad``, ``vmap``, ``jvp``... when called inside a torch.func transform, else None."""
    interpreter = torch._C._functorch.peek_interpreter_stack()
    return None if interpreter is None else str(interpreter.key()).rpartition(".")[2].lower()


def is_transform_tensor(tensor: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


@contextmanager
def outside_transforms() -> Iterator[None]:
    """As if no torch.func transform were running: for work on plain tensors of our own."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    if torch._C._functorch.peek_interpreter_stack() is None:
        yield
    else:
        with temporarily_clear_interpreter_stack():
            yield


def plain_copy(value: Any) -> Any:
    """A copy of an inference tensor that autograd may record; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def plain_sample(tensor: Tensor) -> Tensor:
    """A plain tensor of the shape that a transform shows: of a batch, its first entry."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        batched = functorch.is_batchedtensor(tensor)
        place = functorch.maybe_get_bdim(tensor) if batched else 0
        tensor = functorch.get_unwrapped(tensor)
        if batched:
            with outside_transforms():
                tensor = tensor.select(place, 0)
    return tensor


def plain_autograd_sees_everything() -> bool:
    """Whether ``torch.autograd.grad`` is the outermost differentiation running here."""
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and not torch.is_inference_mode_enabled()
        and not torch.compiler.is_compiling()
    )


_BATCHING = ("_vmap_increment_nesting", "_vmap_decrement_nesting", "_add_batch_dim",
             "_remove_batch_dim")  # fmt: skip


can_map = all(hasattr(torch._C._functorch, name) for name in _BATCHING)


def mapped(
    function: Callable[[Sequence[Tensor]], Sequence[Tensor | None]], batch: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """``torch.func.vmap`` over the first dim, with one draw for all, for flat sequences of tensors:
    without its search through nested arguments, which takes longer than small products."""
    from torch._functorch.vmap import lazy_load_decompositions  # type: ignore[attr-defined]

    lazy_load_decompositions()
    functorch, size = torch._C._functorch, batch[0].shape[0]
    level = functorch._vmap_increment_nesting(size, "same")
    try:
        found = function([functorch._add_batch_dim(t, 0, level) for t in batch])
        return tuple(
            None if t is None else functorch._remove_batch_dim(t, level, size, 0) for t in found
        )
    finally:
        functorch._vmap_decrement_nesting()


def gradient_transform_is_running() -> bool:
    """Whether a reverse-mode torch.func transform runs here, at any level."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(str(level.key()).endswith("Grad") for level in levels)


@cache
def load_forward_mode() -> None:
    """Load what torch loads at the first forward-mode product, without its own deprecation warning.

    torch 2.13 calls its deprecated ``torch.jit.script`` there, so ``torch.func.jvp`` raises in a
    process that turns warnings into errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def top_function_mode() -> TorchFunctionMode | None:
    """The mode that sees a torch call of this thread first."""
    depth = torch._C._len_torch_function_stack()
    return torch._C._get_function_stack_at(depth - 1) if depth else None


def take_off(mode: TorchFunctionMode) -> None:
    """End ``mode``, and leave those that were entered after it as they are.

    torch ends whichever is on top: where ``mode`` is gone, the end of another one has taken it in
    place of its own, and that other one goes now.
    """
    on = [torch.overrides._pop_mode() for _ in range(torch._C._len_torch_function_stack())]
    gone = mode if mode in on else next(iter(on), None)
    for each in reversed(on):
        if each is not gone:
            torch.overrides._push_mode(each)


def function_modes_off() -> AbstractContextManager[None]:
    """Inside, torch calls are made as if no function mode were on."""
    return torch._C.DisableTorchFunction()
