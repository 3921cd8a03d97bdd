"""A call's action against the call itself, applied to a basis of its linear operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pullback.sparse.graph import PullbackGraph
from pullback.sparse.lift.actions import Actions
from pullback.sparse.lift.linear import LinearMap, identity
from pullback.sparse.lift.settled import Settled

from ..rules.harness import Like, graph_of, linear_tensors, results_of


def actions_of(graph: PullbackGraph, others: Sequence[Tensor], owned: bool = False) -> Actions:
    """With the values of ``others``; ``owned``: they belong to the function."""
    if owned:
        graph.inputs = [
            type(i)("owned" if i.kind == "argument" else i.kind, i.name, i.meta, i.node)
            for i in graph.inputs
        ]
    return Actions(graph, Settled(graph, others))


def left_alone(actions: Actions) -> list[str]:
    """The linear calls that no action is known of."""
    graph = actions.graph
    calls = [n for n in graph.linear if isinstance(n, fx.Node) and n.op == "call_function"]
    return [str(n.target) for n in calls if actions.of(n) is None]


def matrix_of(actions: Actions) -> np.ndarray[Any, Any]:
    """What the actions make of the real elements of the cotangents: a row per real result."""
    graph = actions.graph
    nodes = [i.node for i in graph.cotangents]
    known: dict[fx.Node, Any] = dict(
        zip(nodes, identity([graph.metas[n] for n in nodes]), strict=True)
    )
    for node in graph.linear:
        if node.op == "call_function":
            action = actions.of(node)
            assert action is not None, node.target
            known[node] = action(known)
    rows = [known[n].to_scipy().toarray() for n in graph.results if n in known]
    assert all(isinstance(known[n], LinearMap) for n in graph.results if n in known)
    return np.concatenate(rows)


def truth_of(
    g: Callable[..., Any], vs: Sequence[Tensor], others: Sequence[Tensor]
) -> np.ndarray[Any, Any]:
    """``g`` applied to one real element at a time."""
    columns = []
    for k, v in enumerate(vs):
        for place in np.ndindex(tuple(v.shape)):
            for unit in (1.0, 1j) if v.is_complex() else (1.0,):
                basis = [torch.zeros_like(b, memory_format=torch.preserve_format) for b in vs]
                basis[k][place] = unit
                parts = [real(r) for r in results_of(g, *basis, *others)]
                columns.append(np.concatenate(parts))
    height = sum(real(r).size for r in results_of(g, *vs, *others))
    return np.stack(columns, axis=1) if columns else np.zeros((height, 0))


def real(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().resolve_conj()
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.double().reshape(-1).numpy()


def check(
    g: Callable[..., Any],
    likes: Sequence[Like],
    others: Sequence[Tensor] = (),
    *,
    owned: bool = True,
    close: float = 1e-12,
    **options: Any,
) -> Actions:
    """Every call of ``g(*vs, *others)`` has an action, and together they are ``g``."""
    vs = linear_tensors(likes)
    graph = graph_of(g, vs, others, **options)
    actions = actions_of(graph, others, owned)
    assert left_alone(actions) == []
    truth = truth_of(g, vs, others)
    np.testing.assert_allclose(matrix_of(actions), truth, rtol=close, atol=close)
    return actions


def check_none(
    g: Callable[..., Any],
    likes: Sequence[Like],
    others: Sequence[Tensor] = (),
    *,
    owned: bool = False,
    **options: Any,
) -> None:
    """At least one call of ``g`` has no action: it is no fixed linear map."""
    vs = linear_tensors(likes)
    assert left_alone(actions_of(graph_of(g, vs, others, **options), others, owned))
