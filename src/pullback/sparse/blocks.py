"""Loops over values shared among the threads that torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

# Entries that one thread gets through in the time that handing work to others takes.
BLOCK = 400_000


def in_blocks(count: int, run: Callable[[int, int], None], share: int = BLOCK) -> None:
    """``run(first, last)`` over ``range(count)``, on as many threads as torch may use."""
    threads = min(torch.get_num_threads(), max(1, count // share))
    if threads == 1:
        run(0, count)
        return
    cuts = [count * k // threads for k in range(threads + 1)]
    pool = _pool(threads)
    for future in [pool.submit(run, first, last) for first, last in pairwise(cuts)]:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="pullback")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork inherits no threads
