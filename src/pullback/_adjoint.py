"""Whether two ways of computing products belong to one Jacobian: <w, J t> = <J' w, t>."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import Node

from . import _torch

STRICT_PROBES = 4


def python_nodes(outputs: Sequence[Tensor]) -> set[str]:
    """The names of the nodes behind ``outputs`` whose backward is written in Python."""
    return {_torch.node_name(node) for node in python_written(outputs)}


def python_written(outputs: Sequence[Tensor]) -> list[Node]:
    """The nodes behind ``outputs`` whose backward is written in Python."""
    return [n for n in _torch.nodes_behind(outputs) if _torch.custom_function(n) is not None]


def is_adjoint(
    pull: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    outputs: Sequence[Tensor],
    tangents: Sequence[Tensor],
    results: Sequence[Tensor],
    strict: bool = False,
) -> bool:
    """Whether ``results`` can be J t for the J whose transpose ``pull`` applies."""
    with torch.no_grad():
        probes = [probe(output).detach() for output in outputs]
        pulled = pull(probes)
    return pair_up(probes, results, pulled, tangents, outputs, strict)


def pair_up(
    probes: Sequence[Tensor],
    results: Sequence[Tensor],
    pulled: Sequence[Tensor],
    tangents: Sequence[Tensor],
    outputs: Sequence[Tensor],
    strict: bool,
) -> bool:
    """``<w, J t> = <J' w, t>`` up to rounding; or not finite on both sides, unless ``strict``."""
    triples = zip(probes, results, outputs, strict=True)
    rows = [(w, result) for w, result, output in triples if output.requires_grad]
    columns = list(zip(pulled, tangents, strict=True))
    with torch.no_grad():
        left, left_size = _inner(rows)
        right, right_size = _inner(columns)
    if not math.isfinite(left_size + right_size):
        return not strict and not math.isfinite(right_size)
    eps = max((torch.finfo(t.dtype).eps for pair in rows + columns for t in pair), default=0.0)
    tolerance = min(10 * math.sqrt(eps), (16 if eps > 1e-4 else 1000) * eps if strict else 1.0)
    return abs(left - right) <= tolerance * (left_size + right_size)


@cache
def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def probe(output: Tensor) -> Tensor:
    """Random, so that no structure of J hides from it; from a generator of our own."""
    probe = torch.empty_like(output, requires_grad=False)
    return probe.normal_(generator=_generator(output.device)).requires_grad_()


def _inner(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The real inner product over all pairs, and the 2-norm of its terms."""
    total, squares = 0.0, 0.0
    for a, b in pairs:
        terms = _as_real(a).double() * _as_real(b).double()
        value, size = torch.stack((terms.sum(), torch.linalg.vector_norm(terms))).tolist()
        total, squares = total + value, squares + size * size
    return total, math.sqrt(squares)


def _as_real(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
