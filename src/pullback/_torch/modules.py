"""Graphs of torch.fx as modules, and the tensors that modules hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

Table = dict[str, Tensor | None]


def graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """``graph`` as a module whose code is generated when it is first called, and not before."""
    try:
        from torch.fx._lazy_graph_module import _LazyGraphModule
    except ImportError:
        return fx.GraphModule(root, graph)
    return _LazyGraphModule(root, graph)


def tensor_tables(part: torch.nn.Module) -> tuple[Table, ...]:
    """Where a module holds its own parameters and buffers, by name."""
    parameters: Any = part._parameters
    return parameters, part._buffers


def all_tables(part: torch.nn.Module) -> tuple[dict[str, Any], ...]:
    return part._parameters, part._buffers, part._modules


def settle(part: torch.nn.Module) -> None:
    """Let a recurrent layer list its weights anew: it keeps them in a list besides."""
    update: Callable[[], None] | None = getattr(part, "_update_flat_weights", None)
    if isinstance(part, torch.nn.RNNBase) and update is not None:
        update()
