"""A rule against the operator itself, applied to a basis of its linear arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from pullback.sparse.detect import Detection, detect
from pullback.sparse.graph import NOTE, Input, Meta, PullbackGraph, drop_detaches

Other = Any
Like = tuple[int, ...] | Tensor


@dataclass(frozen=True)
class Found:
    """``matrix[r, c]``: may element r of the results depend on element c of the linear arguments?"""

    matrix: np.ndarray
    pessimistic: dict[str, str]
    relied: set[str]
    graph: PullbackGraph


def linear_tensors(likes: Sequence[Like], seed: int = 0) -> list[Tensor]:
    """Random tensors of these shapes (float64), or with the dtypes and strides of these tensors."""
    torch.manual_seed(seed)
    found = []
    for like in likes:
        if isinstance(like, Tensor):
            blank = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            found.append(blank.copy_(torch.randn(like.shape, dtype=like.dtype)))
        else:
            found.append(torch.randn(like, dtype=torch.float64))
    return found


def results_of(g: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
    """The tensors that ``g`` returns: one, or the tensors of a tuple; None is left out."""
    result = g(*inputs)
    entries = [result] if isinstance(result, Tensor) else list(result)
    return [entry for entry in entries if isinstance(entry, Tensor)]


def graph_of(
    g: Callable[..., Any],
    vs: Sequence[Tensor],
    others: Sequence[Tensor],
    *,
    guarded: Sequence[int] = (),
    formula: str = "",
) -> PullbackGraph:
    """``g(*vs, *others)`` as a pullback graph with ``vs`` for cotangents.

    Tensors that ``g`` closes over are literals. ``others`` may change, but for the ``guarded``
    ones. A ``formula`` says that torch's own formulas made these calls.
    """

    def run(*inputs: Tensor) -> Any:
        return tuple(results_of(g, *inputs))

    inputs = [t.clone(memory_format=torch.preserve_format) for t in (*vs, *others)]
    module = make_fx(torch.func.functionalize(run, remove="mutations"))(*inputs)
    drop_detaches(module)
    names = [f"v{k}" for k in range(len(vs))] + [f"other{k}" for k in range(len(others))]
    kinds = ["cotangent"] * len(vs) + ["argument"] * len(others)
    nodes = [n for n in module.graph.nodes if n.op == "placeholder"]
    for node in module.graph.nodes:
        if formula:
            node.meta[NOTE] = {"formula": formula}
    given = [
        Input(kind, name, Meta.of(t), node)
        for kind, name, t, node in zip(kinds, names, inputs, nodes, strict=True)
    ]
    metas = [Meta.of(t) for t in results_of(g, *inputs)]
    graph = PullbackGraph(module, given, metas, 0)
    graph.classify(frozenset(f"other{k}" for k in guarded))
    graph.survey(inputs)
    return graph


def rule_of(
    g: Callable[..., Any], vs: Sequence[Tensor], others: Sequence[Tensor] = (), **options: Any
) -> Found:
    """What detection says of ``g``, by the very path that a Jacobian's pattern takes."""
    graph = graph_of(g, vs, others, **options)
    detection: Detection = detect("rule_of", graph)
    matrix = np.asarray(detection.pattern.T.to_scipy().todense()).astype(bool)
    return Found(matrix, detection.pessimistic, detection.relied, graph)


def truth_of(
    g: Callable[..., Any], vs: Sequence[Tensor], others: Sequence[Tensor] = ()
) -> np.ndarray:
    """Where ``g``, linear in ``vs``, answers to a basis of them with anything but zero."""
    blanks = [torch.zeros_like(v) for v in vs]
    at_zero = results_of(g, *blanks, *others)
    assert all(not bool(r.any()) for r in at_zero), "not linear: g(0) is not 0"
    columns = []
    for k, v in enumerate(vs):
        for place in np.ndindex(tuple(v.shape)):
            column = np.zeros(sum(r.numel() for r in at_zero), dtype=bool)
            for unit in (1.0, 1j) if v.is_complex() else (1.0,):
                basis = [b.clone(memory_format=torch.preserve_format) for b in blanks]
                basis[k][place] = unit
                answers = results_of(g, *basis, *others)
                column |= np.concatenate(
                    [a.ne(0).reshape(-1).numpy() for a in answers] or [np.zeros(0, bool)]
                )
            columns.append(column)
    count = sum(r.numel() for r in at_zero)
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0), dtype=bool)


def no_others() -> tuple[Other, ...]:
    return ()


def check(
    g: Callable[..., Any],
    v_shapes: Sequence[Like],
    make_others: Callable[[], Sequence[Tensor]] = no_others,
    *,
    exact: bool = True,
    draws: int = 4,
    pessimistic: bool = False,
    **options: Any,
) -> Found:
    """``g(*vs, *others)`` is linear in ``vs``; its rule must hold for every draw of the others.

    ``make_others`` is called with the global generator seeded, once per draw, and returns tensors
    of the same shapes each time. ``exact``: over all draws together, every entry of the rule shows
    up. No call may fall to the pessimistic rule unless ``pessimistic`` says so.
    """
    vs = linear_tensors(v_shapes)
    seen: np.ndarray | None = None
    found: Found | None = None
    for draw in range(draws):
        torch.manual_seed(draw)
        others = [t.clone(memory_format=torch.preserve_format) for t in make_others()]
        if found is None:
            found = rule_of(g, vs, others, **options)
        truth = truth_of(g, vs, others)
        assert truth.shape == found.matrix.shape, (truth.shape, found.matrix.shape)
        missed = truth & ~found.matrix
        assert not missed.any(), (
            f"missed {missed.sum()} entries:\n{_side_by_side(truth, found.matrix)}"
        )
        seen = truth if seen is None else seen | truth
    assert found is not None
    assert seen is not None
    assert pessimistic or not found.pessimistic, found.pessimistic
    if exact:
        loose = found.matrix & ~seen
        assert not loose.any(), f"loose by {loose.sum()}:\n{_side_by_side(seen, found.matrix)}"
    return found


def _side_by_side(truth: np.ndarray, found: np.ndarray) -> str:
    """o: right, !: missed, +: claimed without need."""
    rows = []
    for t, f in zip(truth[:40, :100], found[:40, :100], strict=True):
        rows.append("".join(".!+o"[int(a) + 2 * int(b)] for a, b in zip(t, f, strict=True)))
    return "\n".join(rows)


def calls(found: Found) -> set[str]:
    """The operators of the linear part, to see that a test meets the rule it was written for."""
    return {
        str(n.target)
        for n in found.graph.linear
        if isinstance(n, fx.Node) and n.op == "call_function"
    }
