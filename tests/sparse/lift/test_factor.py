"""``template + A f`` is ``M' F S' + D'``, and the pieces that a graph is cut into are the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import pullback as pb
from pullback.sparse.arguments import arguments_for
from pullback.sparse.graph import packet_name
from pullback.sparse.lift import factor
from pullback.sparse.lift.actions import Actions
from pullback.sparse.lift.cut import Piece, calls_of, in_stages, plain, whole
from pullback.sparse.lift.factor import core_of, ends_of, product_pattern, terms_of
from pullback.sparse.lift.settled import Settled
from pullback.sparse.pattern import SparsityPattern
from pullback.sparse.rules.base import Declined
from pullback.sparse.study import Study, study

Func = Callable[[Tensor], Any]
WEIGHTS = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PLACES = torch.tensor([0, 2, 2, 5, 7, 1, 1, 1])


def layered(x: Tensor) -> Tensor:
    y = torch.sin(x - 2 * x.roll(1) + x.roll(2))
    return y * (y.roll(1) + y.roll(-1)) - x


FUNCS: dict[str, Func] = {
    "pointwise": torch.sin,
    "linear": lambda x: 3 * x.roll(1) - WEIGHTS * x,
    "stencil": lambda x: torch.sin(x.roll(1)) * x - x.roll(2) + 2 * x,
    "gather and scatter": lambda x: torch.zeros(8).index_add(
        0, PLACES, torch.sin(x[PLACES] - x) * WEIGHTS
    ),
    "sum": lambda x: (x * x.cos()).sum(),
    "two layers": layered,
    "one product for all": lambda x: x * x.sum(),
    "complex": lambda x: torch.view_as_real(
        torch.view_as_complex(x.reshape(4, 2)) ** 2 * torch.view_as_complex(x.roll(2).reshape(4, 2))
    ),
    "several outputs": lambda x: (x[:3] ** 2, x.roll(1), torch.cumsum(x.exp(), 0)),
    "a column that nothing reads": lambda x: x[:5] ** 3,
    "a part of a tuple": lambda x: torch.cat([p.sin() * p.roll(1) for p in x.split(3)]),
    "dense inside": lambda x: torch.softmax(x.roll(1).reshape(2, 4), 1) * 2,
}
EVERY = pytest.mark.parametrize("name", FUNCS)
X = torch.linspace(-1, 1, 8, dtype=torch.float64)


def studied(func: Func) -> tuple[Study, Actions]:
    arguments = arguments_for("test", (X,), 0)
    found = study("test", func, arguments)
    assert found.captured is not None
    graph = found.captured.graph
    return found, Actions(graph, Settled(graph, found.tensors(arguments, found.reading)))


def core_matrix(core: Any, f: Any) -> Any:
    """F, whose entries stand in the products ``f``."""
    pattern = core.pattern
    values = f[factor._sources(core)]
    return scipy.sparse.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)


def entries(terms: Any, f: Any) -> Any:
    count = terms.starts.size - 1
    weights = terms.weight
    A = scipy.sparse.csr_array((weights, terms.sources, terms.starts), shape=(count, f.size))
    return A @ f + (0 if terms.template is None else terms.template)


def pieces_of(found: Study, actions: Actions) -> list[list[Piece]]:
    assert found.captured is not None
    graph = found.captured.graph
    return [[whole("test", graph, actions)], [plain(graph)], in_stages("test", graph, actions)]


@EVERY
@pytest.mark.parametrize("mode", ["auto", "rev", "fwd", "mixed"])
def test_the_assembly_is_the_product_of_matrices(name: str, mode: str) -> None:
    found, actions = studied(FUNCS[name])
    assert found.captured is not None
    graph = found.captured.graph
    for pieces in pieces_of(found, actions):
        for piece in pieces:
            ends = ends_of(graph, piece, actions)
            core = core_of("test", graph, piece, ends, mode)
            pattern = product_pattern(ends, core)
            terms = terms_of(ends, core, pattern)
            sizes = core.pattern.shape
            split = core.choice.coloring.split
            f = np.random.default_rng(0).uniform(
                1, 2, split.rows * sizes[1] + split.columns * sizes[0]
            )
            truth = (ends.M.T @ core_matrix(core, f) @ ends.S.T + ends.D.T).toarray()
            values = entries(terms, f)
            put = scipy.sparse.csr_array((values, pattern.indices, pattern.indptr), pattern.shape)
            np.testing.assert_allclose(put.toarray(), truth, atol=1e-12)


@EVERY
def test_pieces_are_made_of_every_call_once(name: str) -> None:
    found, actions = studied(FUNCS[name])
    assert found.captured is not None
    graph = found.captured.graph
    for pieces in pieces_of(found, actions):
        calls = [n for piece in pieces for n in (*piece.varying, *piece.fixed)]
        assert sorted(calls, key=graph.nodes.index) == calls_of(graph)
        for piece in pieces:
            assert all(actions.of(n) is not None for n in piece.fixed)
        assert pieces[0].starts == tuple(i.node for i in graph.cotangents)
        assert [p.ends for p in pieces[:-1]] == [p.starts for p in pieces[1:]]


@EVERY
def test_a_tuple_stays_with_the_call_that_makes_it(name: str) -> None:
    found, actions = studied(FUNCS[name])
    for pieces in pieces_of(found, actions):
        for piece in pieces:
            inside = {*piece.varying, *piece.fixed}
            for node in inside:
                if packet_name(node) == "getitem" and node.args[0] in inside:
                    assert (node in piece.varying) or node.args[0] in piece.fixed


def test_a_pattern_without_a_fixed_entry_is_refused() -> None:
    found, actions = studied(FUNCS["stencil"])
    assert found.captured is not None
    graph = found.captured.graph
    piece = whole("test", graph, actions)
    ends = ends_of(graph, piece, actions)
    core = core_of("test", graph, piece, ends, "rev")
    diagonal = SparsityPattern.from_scipy(scipy.sparse.eye_array(8, format="csr"))
    with pytest.raises(Declined, match="outside"):
        terms_of(ends, core, diagonal)


def test_terms_that_cancel_are_dropped() -> None:
    found, actions = studied(lambda x: x.sin() - x.sin() + x**2)
    assert found.captured is not None
    graph = found.captured.graph
    ends = ends_of(graph, whole("test", graph, actions), actions)
    core = core_of("test", graph, whole("test", graph, actions), ends, "rev")
    terms = terms_of(ends, core, found.detection.pattern)  # type: ignore[union-attr]
    assert terms.sources.size <= 3 * 8


def test_more_elements_than_int32_counts_are_declined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factor, "INT32_MAX", 12)
    found, actions = studied(FUNCS["stencil"])
    assert found.captured is not None
    graph = found.captured.graph
    with pytest.raises(Declined, match="32-bit"):
        ends_of(graph, whole("test", graph, actions), actions)


@pytest.mark.parametrize(("largest", "what"), [(8, "elements"), (100, "terms")])
def test_more_than_int32_counts_is_left_unlifted(
    largest: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = torch.randn(8, 8, dtype=torch.float64)
    func = lambda x: matrix @ torch.sin(matrix @ x)  # noqa: E731
    assert pb.plan_jacobian(func, X, lift=True).lifted
    monkeypatch.setattr(factor, "INT32_MAX", largest)
    plan = pb.plan_jacobian(func, X, lift=True)
    assert not plan.lifted
    assert f"it has more {what} than 32-bit numbers count" in " ".join(plan.notes)


def test_a_wrong_coefficient_is_seen() -> None:
    with pytest.MonkeyPatch.context() as patch:
        right = factor.kernels.fill_terms

        def wrong(*arrays: Any) -> None:
            right(*arrays)
            arrays[-1][:] *= 1.001

        patch.setattr(factor.kernels, "fill_terms", wrong)
        with pytest.raises(AssertionError):
            test_the_assembly_is_the_product_of_matrices("stencil", "rev")
        plan = pb.plan_jacobian(FUNCS["stencil"], X, lift=True)
        assert not plan.lifted
        assert "differ from those of the whole graph" in " ".join(plan.notes)
