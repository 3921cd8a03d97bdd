"""Programs traced once, batches and seeds resolved, and trusted after they agreed with the program
itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from ... import _checks
from ..compiled.clean import lift_constants
from ..compiled.fold import fold_uniform
from ..graph import drop_detaches, merge_equal_calls, packet_name
from ..recording import recorded
from ..trial import in_its_layout, perturbed, same
from .line import generated, own_memory
from .tidy import tidy
from .units import fold_units

Run = Callable[..., tuple[Tensor, ...]]
Straight = Callable[..., tuple[Tensor, ...]]

# What these keep for their backward depends on whether gradients are enabled.
_BY_GRAD_MODE = frozenset(
    "_thnn_fused_lstm_cell _thnn_fused_gru_cell mkldnn_rnn_layer _cudnn_rnn miopen_rnn".split()
)
# Constants of more bytes are made in every call, not kept; of more, nobody looks what they hold.
_KEPT = 2**23
_LOOKED_AT = 2**28


class NotStraight(Exception):  # noqa: N818 - it is no error: the program itself goes on
    """Why there is no straight line for a program."""


def straightened(run: Run, tensors: Sequence[Tensor], *, loose: float) -> Straight:
    """``run`` as one function of tensors of the shapes, strides, dtypes and devices of ``tensors``.

    ``run(*tensors)`` returns a tuple of tensors, writes to nothing and draws no random numbers;
    tensors that it closes over keep their content. The result gives its values in C order, in
    memory of their own, under any gradient mode for tensors that require no gradient. A batch of
    unit vectors counts as an identity matrix: where a matrix holds inf or nan, entries that
    ``0 * inf`` would spoil are kept.

    Raises NotStraight where nothing can be traced, or where the line and ``run`` differ by more
    than ``loose`` at ``tensors`` or at a point near by.
    """
    try:
        with torch.inference_mode(False), torch.no_grad():
            return _tried(run, tensors, loose)
    except NotStraight:
        raise
    except Exception as error:  # tracing may fail in any way
        raise NotStraight(_checks.first_line(error)) from error


def _tried(run: Run, tensors: Sequence[Tensor], loose: float) -> Straight:
    run(*tensors)  # what it keeps for later calls must not be made of traced tensors
    graph, values = _traced(run, tensors)
    line = generated(graph, values)
    if own_memory(graph, line(*tensors), [*tensors, *values.values()]):
        line = generated(graph, values)
    for point in (tensors, [in_its_layout(perturbed, t) for t in tensors]):
        expected, found = run(*point), line(*point)
        if len(expected) != len(found) or not all(
            a.shape == b.shape and a.dtype == b.dtype and same(b, a, loose)
            for a, b in zip(expected, found, strict=True)
        ):
            raise NotStraight("it gives other values than the program")
    return line


def _traced(run: Run, tensors: Sequence[Tensor]) -> tuple[fx.Graph, dict[fx.Node, Tensor]]:
    """A tidy graph, and the values of those of its nodes that are the same at every point."""
    module = recorded(run, tensors)
    for node in module.graph.nodes:
        if node.op == "call_function" and packet_name(node) in _BY_GRAD_MODE:
            raise NotStraight(f"{packet_name(node)} is left as it is")
    (device,) = {t.device for t in tensors}
    drop_detaches(module)
    constants = lift_constants(module)
    _fill_on(module.graph, device)
    inputs = module.graph.find_nodes(op="placeholder")
    values = dict(zip(inputs[len(tensors) :], constants, strict=True))
    tidy(module)
    fold_units(module, _constants(module.graph, values, _LOOKED_AT))
    fold_uniform(module)
    _fill_on(module.graph, device)
    tidy(module)
    merge_equal_calls(module)
    return module.graph, _constants(module.graph, values, _KEPT)


def _fill_on(graph: fx.Graph, device: torch.device) -> None:
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.full.default):
        node.kwargs = {**node.kwargs, "device": device}


def _constants(graph: fx.Graph, given: dict[fx.Node, Tensor], most: int) -> dict[fx.Node, Tensor]:
    """``given`` and what follows from it alone, where that takes ``most`` bytes."""
    values = dict(given)
    for node in graph.nodes:
        like = node.meta.get("val")
        if node.op != "call_function" or not isinstance(like, Tensor):
            continue
        inputs = node.all_input_nodes
        if all(n in values for n in inputs) and like.numel() * like.element_size() <= most:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    return values
