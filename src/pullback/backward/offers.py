"""What an output of several elements could have meant: shown when its cotangent is missing."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .. import _checks, _torch
from .._checks import Leaves, Offer
from .._names import Names
from ..draw.numbers import number, shape
from .events import Key
from .graph import walk
from .stats import stats_of
from .targets import find_targets

_SHOWN_LEAVES = 4


def refuse_missing(caller: str, out: Leaves, position: int, names: Names) -> NoReturn:
    """Refuse output ``position``, showing what ones, their mean and one row would have given."""
    name, output = out.names[position], out.tensors[position]
    _checks.no_cotangent(caller, name, output, offers_for(name, output, names))


def offers_for(name: str, output: Tensor, names: Names) -> list[Offer]:
    """Ones, their mean and one row, each with what it would give."""
    index = (0,) * output.ndim
    ones, one_hot = torch.ones_like(output), torch.zeros_like(output)
    if output.numel():
        one_hot[index] = 1
    choices = [
        (f"torch.ones_like({name})", f"the gradient of {name}.sum()", ones),
        (
            f"torch.ones_like({name}) / {output.numel()}",
            f"the gradient of {name}.mean()",
            ones / max(output.numel(), 1),
        ),
        (
            f"pb.cotangents.one_hot({name}, {index})",
            f"one row of the Jacobian: the gradient of {name}{list(index)} alone",
            one_hot,
        ),
    ]
    return [Offer(code, meaning, _preview(output, v, names)) for code, meaning, v in choices]


def _preview(output: Tensor, cotangent: Tensor, names: Names) -> tuple[str, ...]:
    """A line per leaf on what ``cotangent`` would give; nothing where a look is not possible."""
    graph = walk([output])
    targets = find_targets("", graph, None, names).items
    edges = [GradientEdge(t.port.node, t.port.slot) for t in targets if t.port is not None]
    try:
        with _torch.untouched(graph.children_of):
            grads = torch.autograd.grad(
                output, edges, cotangent, retain_graph=True, allow_unused=True
            )
    except RuntimeError:  # a freed graph, a hook that raises: the refusal stands without numbers
        return ()
    lines = []
    found: list[tuple[Key, Tensor | None]] = [
        (t.key, g) for t, g in zip(targets, grads, strict=True)
    ]
    for key, grad in found:
        if grad is None:
            continue
        label = key if isinstance(key, str) else f"leaf {key}"
        stats = stats_of(grad)
        total = grad.sum().item()
        shown = number(total) if isinstance(total, float) else str(total)
        lines.append(
            f"{label} {shape(tuple(grad.shape))}: entries from {number(stats.min)} to "
            f"{number(stats.max)}, sum {shown}"
        )
    rest = len(lines) - _SHOWN_LEAVES
    return (*lines[:_SHOWN_LEAVES], *([f"and {rest} more leaves"] if rest > 0 else []))
