"""How often tensors were written to, as autograd counts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter


@contextmanager
def versions_kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """For a look that puts back what it wrote: graphs that hold ``tensors`` may be run after it."""
    counted = tuple(t for t in tensors if not t.is_inference())
    with _unsafe_preserve_version_counter(counted):
        yield
