"""What lies in memory before a module's tests is put out of the collector's sight.

A look searches all that the collector knows for tensors that retain their gradient. Thousands of
collected tests and all that torch imports for them make that search the larger part of most tests;
none of it can be such a tensor of a test's own. So each module of tests begins with a frozen heap,
of which records say nothing, unless a test asks for ``frozen_objects_count``.
"""

from __future__ import annotations

import gc

import pytest

from pullback import _torch

_counted = _torch.frozen_objects
_torch.frozen_objects = lambda: 0  # and the count itself walks the whole heap
_seen: list[object] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    module = item.getparent(pytest.Module)
    if _seen[-1:] != [module]:
        _seen[:] = [module]
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)  # of so little, the collector looks through all too often


@pytest.fixture
def frozen_objects_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is frozen, and what the test freezes counts."""
    gc.unfreeze()
    monkeypatch.setattr(_torch, "frozen_objects", _counted)
