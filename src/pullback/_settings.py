"""What is in force in torch and of what form tensors are, at one quick look.

Like ``_torch``, this reads private parts of torch, tried by ``_capabilities``: where one is not
there, the answer is None and the caller looks at everything itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

_guards: Any = getattr(getattr(torch._C, "_dynamo", None), "guards", None)


_functions, _dispatches = torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack


def settings_check() -> Callable[[], bool] | None:
    """A quick call: are grad mode, autocast, the default dtype, determinism, the number of threads
    those of now? None where this torch has no such check."""
    return None if _guards is None else cast(Callable[[], bool], _guards.GlobalStateGuard().check)


def device_mode() -> object:
    """What ``torch.set_default_device`` has put in force, or None; ``...`` where other modes of
    torch function or dispatch run, too."""
    context: object = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    functions = _functions()
    if _dispatches() or functions != (context is not None):
        return ...
    return context if not functions or torch._C._get_function_stack_at(0) is context else ...


def forms_check(tensors: Sequence[Tensor]) -> Callable[..., bool] | None:
    """A quick call on as many tensors: are they distinct, and of the same classes, dispatch keys
    (layout, conjugate and negative bits, wrappers), dtypes, devices, shapes and strides?
    ``requires_grad`` counts under enabled gradients alone."""
    if _guards is None or any(t.layout is not torch.strided for t in tensors):
        return None
    dims = {"dynamic_dims_sizes": [list(t.shape) for t in tensors],
            "dynamic_dims_strides": [list(t.stride()) for t in tensors]}  # fmt: skip
    check: Callable[..., bool] = _guards.TensorGuards(*tensors, **dims).check
    return check if check(*tensors) is True else None


# A number that no two contents of dictionaries share. Python 3.12 and later keep none themselves.
dict_version: Callable[[Any], int] | None = (
    getattr(_guards, "dict_version", None) if sys.version_info < (3, 12) else None
)


@contextmanager
def one_fake_mode() -> Iterator[None]:
    """Graphs that ``make_fx`` records within describe all their tensors in one fake mode.

    By itself it makes a mode for every node, and each writes down the stack that it was made on:
    a third of the time that recording takes.
    """
    try:
        from torch._guards import TracingContext, tracing
        from torch._subclasses import FakeTensorMode
    except ImportError:
        yield
        return
    if TracingContext.try_get() is not None:
        yield
        return
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        yield
