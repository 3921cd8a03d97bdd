"""Graphs of torch.fx as modules."""

from __future__ import annotations

import torch
from torch import fx


def graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """``graph`` as a module whose code is generated when it is first called, and not before."""
    try:
        from torch.fx._lazy_graph_module import _LazyGraphModule
    except ImportError:
        return fx.GraphModule(root, graph)
    return _LazyGraphModule(root, graph)
