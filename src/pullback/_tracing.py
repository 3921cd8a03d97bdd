"""Programs recorded as graphs of ATen operators, one at a time.

torch marks with one flag for all threads that it traces: of two traces that overlap, the one that
ends last would leave it set, and ``torch.compile`` refuses to run from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

# Held while a graph is recorded or compiled.
ONE_AT_A_TIME = threading.RLock()


def recorded(run: Callable[..., Any], *given: Any, table: Any = None) -> fx.GraphModule:
    """``run(*given)`` as a graph, in the operators that ``table`` decomposes others into."""
    with ONE_AT_A_TIME:
        return make_fx(run, decomposition_table=table)(*given)


def recorded_functional(run: Callable[..., Any], *given: Any) -> fx.GraphModule:
    """``run(*given)`` as a graph of operators that write nothing in place."""
    return recorded(torch.func.functionalize(run, remove="mutations"), *given)
