"""Steps of optimizers: what they read, what they write, and which calls are made inside them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .. import _torch
from . import mutations
from .listeners import Listener
from .sites import call_at, site


class Steps:
    """Steps of optimizers in the thread that made this, from their beginnings to their ends."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._listeners = listeners
        self._thread = threading.get_ident()
        self._versions: list[tuple[Tensor, int]] = []
        self._handles = (
            register_optimizer_step_pre_hook(self._begin),
            register_optimizer_step_post_hook(self._end),
        )

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        with _torch.function_modes_off():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._versions = [(p, _torch.version_of(p)) for p in parameters]
            call = call_at(site(), f"{type(optimizer).__name__}.step")
            for listener in self._listeners:
                listener.step_begins(optimizer, call)
        if not _runs_code_of_the_user(optimizer, args, kwargs):
            self._pause()

    def _end(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._resume()
        with _torch.function_modes_off():
            call = call_at(site(), f"{type(optimizer).__name__}.step")
            for parameter, before in self._versions:
                if _torch.version_of(parameter) != before:
                    mutations.note(parameter, before, call)
            self._versions = []
            for listener in self._listeners:
                listener.step_ended(optimizer, call)


def _runs_code_of_the_user(optimizer: Optimizer, args: Sequence[Any], kwargs: Any) -> bool:
    """Whether a step may do more than compute new parameters: closures, hooks and steps that are
    not torch's own clip, empty and deposit as they like."""
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    step = inspect.unwrap(type(optimizer).step)
    return (
        closure is not None
        or not _torch.is_library_file(step.__code__.co_filename)
        or _torch.has_own_step_hooks(optimizer)
    )
