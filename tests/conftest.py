"""What lies in memory before a module's tests is put out of the collector's sight.

A look searches all that the collector knows for tensors that retain their gradient. Thousands of
collected tests and all that torch imports for them make that search the larger part of most tests;
none of it can be such a tensor of a test's own. Each module of tests therefore begins with a heap
that is frozen, and ``gc.freeze`` called by a test is told apart from that.
"""

from __future__ import annotations

import gc

import pytest

from pullback import _torch

_frozen_here = 0
_seen: list[object] = []


def _freeze() -> None:
    global _frozen_here
    gc.collect()
    gc.freeze()
    _frozen_here = gc.get_freeze_count()


def _frozen_by_others() -> int:
    return max(0, gc.get_freeze_count() - _frozen_here)


_torch.frozen_objects = _frozen_by_others


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    module = item.getparent(pytest.Module)
    if _seen[-1:] != [module]:
        _seen[:] = [module]
        _freeze()
