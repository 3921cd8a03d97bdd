"""Recorded graphs freed of writes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx import traceback

from .. import _checks, _settings, _torch
from .._tracing import recorded_functional
from .arguments import devices_of, fresh
from .captured import NotCaptured, without_autocast
from .graph import HIDDEN_WRITERS, drop_detaches, packet_name


def without_writes(raw: fx.GraphModule, tensors: Sequence[Tensor]) -> fx.GraphModule:
    """The same program of functional calls alone, its identities left out.

    A graph that writes nowhere is taken as it is; any other is traced once more, on copies of
    ``tensors``. Raises ``NotCaptured`` where torch cannot.
    """
    if all(map(_is_pure, raw.graph.nodes)):
        # Anew, since ``raw`` holds on to tensors that are inputs by now.
        pure = _torch.graph_module(raw, raw.graph)
    else:
        pure = _traced_again(raw, tensors)
    drop_detaches(pure)
    return pure


def _is_pure(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is operator.getitem:
        return True
    if not isinstance(node.target, OpOverload):
        return False
    return not node.target._schema.is_mutable and packet_name(node) not in HIDDEN_WRITERS


def _traced_again(raw: fx.GraphModule, tensors: Sequence[Tensor]) -> fx.GraphModule:
    def run(*inputs: Tensor) -> Any:
        return fx.Interpreter(raw).run(*inputs)

    try:
        with (
            without_autocast(),
            traceback.preserve_node_meta(),
            _settings.one_fake_mode(),
            torch.random.fork_rng(devices=devices_of(tensors)),
        ):
            return recorded_functional(run, *map(fresh, tensors))
    except Exception as error:  # torch fails here in many ways, INTERNAL ASSERT among them
        raise NotCaptured(f"torch cannot free it of writes: {_checks.first_line(error)}") from None
