"""Fused recurrent layers and cells: batch items never mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from pullback.sparse.dependence import identity
from pullback.sparse.graph import Meta, PullbackGraph
from pullback.sparse.rules import RULES, Step

from .harness import check

A = torch.ops.aten
LENGTH, BATCH, WIDTH, HIDDEN = 4, 3, 2, 5


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s) for s in shapes]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_layer_of_mkldnn(backwards: bool) -> None:
    state, gates = (BATCH, HIDDEN), 4 * HIDDEN
    shapes = (
        (LENGTH, BATCH, WIDTH),
        (gates, WIDTH),
        (gates, HIDDEN),
        (gates,),
        (gates,),
        state,
        state,
    )

    def g(v, to_h, to_c, *given):
        settings = 2, HIDDEN, 1, True
        out, h, c, workspace = A.mkldnn_rnn_layer(
            *given, backwards, [], *settings, False, False, True
        )
        return A.mkldnn_rnn_layer_backward(
            *given,
            out,
            h,
            c,
            v,
            to_h,
            to_c,
            backwards,
            *settings,
            True,
            False,
            [],
            False,
            workspace,
        )

    likes = [torch.zeros(LENGTH, BATCH, HIDDEN), torch.zeros(state), torch.zeros(state)]
    found = check(g, likes, normal(*shapes), exact=False, draws=2).matrix
    inputs = found[: LENGTH * BATCH * WIDTH].reshape(LENGTH, BATCH, WIDTH, -1)
    of_item = np.concatenate([np.arange(like.numel()) // HIDDEN % BATCH for like in likes])
    assert (inputs == (of_item == np.arange(BATCH)[:, None, None])).all()
    assert (found[-BATCH * HIDDEN :].sum(1) == HIDDEN * (LENGTH + 2)).all()
    assert found[LENGTH * BATCH * WIDTH : -2 * BATCH * HIDDEN].all()


def step_of(operator: Any, arguments: dict[str, Any], metas: Any) -> Step:
    """A call that no kernel here can run; arguments given by a shape depend on cotangents."""
    graph = fx.Graph()
    given: dict[str, Any] = {}
    known: dict[fx.Node, Any] = {}
    linear = {n: shape for n, shape in arguments.items() if isinstance(shape, tuple)}
    deps = dict(zip(linear, identity(list(linear.values())), strict=True))
    names = [a.name for a in operator._schema.arguments]
    for name in names:
        given[name] = arguments.get(name)
        if name in deps:
            given[name] = graph.placeholder(name)
            known[given[name]] = deps[name]
    node = graph.call_function(operator, tuple(given[n] for n in names))
    graph.output((node,))
    module = fx.GraphModule(torch.nn.Module(), graph)
    pullback = PullbackGraph(module, [], [], 0, metas={node: metas})
    pullback.linear = dict.fromkeys([*known, node])
    return Step(pullback, node, known)


def meta(*shape: int) -> Meta:
    return Meta.of(torch.empty(shape, device="meta"))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_layers_of_cudnn(batch_first: bool, packed: bool) -> None:
    shape = (BATCH, LENGTH) if batch_first else (LENGTH, BATCH)
    lead = (LENGTH * BATCH,) if packed else shape
    back, state = (*lead, HIDDEN), (1, BATCH, HIDDEN)
    metas = [meta(*lead, WIDTH), meta(*state), None, [meta(20, WIDTH), meta(20)]]
    step = step_of(
        A._cudnn_rnn_backward.default,
        {
            "grad_output": back,
            "grad_hy": state,
            "batch_first": batch_first,
            "batch_sizes": [BATCH] * LENGTH if packed else [],
        },
        metas,
    )
    inputs, states, missing, weights = RULES["_cudnn_rnn_backward"].apply(step)
    width = BATCH * HIDDEN * (LENGTH + 1)
    per_item = width if packed else width // BATCH
    assert missing is None
    assert inputs.shape == (*lead, WIDTH)
    for dep in (inputs, states):
        assert dep.to_pattern().nnz == per_item * dep.numel
    assert [w.shape for w in weights] == [(20, WIDTH), (20,)]
    assert all(w.to_pattern().nnz == w.numel * width for w in weights)
    if not packed:
        sets = np.moveaxis(inputs.grid, 0 if batch_first else 1, 0).reshape(BATCH, -1)
        assert (sets == sets[:, :1]).all()
        assert len(set(sets[:, 0])) == BATCH


def test_a_cell() -> None:
    metas = [meta(BATCH, 4 * HIDDEN), meta(BATCH, HIDDEN), meta(4 * HIDDEN)]
    step = step_of(
        A._thnn_fused_lstm_cell_backward_impl.default,
        {"grad_hy": (BATCH, HIDDEN), "grad_cy": (BATCH, HIDDEN)},
        metas,
    )
    gates, state, bias = RULES["_thnn_fused_lstm_cell_backward_impl"].apply(step)
    for dep in (gates, state):
        assert dep.to_pattern().nnz == dep.numel * 2 * HIDDEN
        assert (dep.grid == dep.grid[:, :1]).all()
    assert bias.to_pattern().nnz == bias.numel * 2 * BATCH * HIDDEN


def test_a_cell_without_a_cell_state() -> None:
    sizes = [(BATCH, 3 * HIDDEN), (BATCH, 3 * HIDDEN), (BATCH, HIDDEN), (3 * HIDDEN,)]
    step = step_of(
        A._thnn_fused_gru_cell_backward.default,
        {"grad_hy": (BATCH, HIDDEN)},
        [*(meta(*s) for s in sizes), None],
    )
    *rows, bias, missing = RULES["_thnn_fused_gru_cell_backward"].apply(step)
    assert missing is None
    assert all(dep.to_pattern().nnz == dep.numel * HIDDEN for dep in rows)
    assert bias.to_pattern().nnz == bias.numel * BATCH * HIDDEN
