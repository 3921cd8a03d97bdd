"""Movement: the operator on element numbers says what the operator does to elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pullback.sparse.detect import detect, linear_by_rule
from pullback.sparse.graph import Meta
from pullback.sparse.rules.movement import is_dense

from .harness import calls, check, graph_of, linear_tensors, rule_of

aten = torch.ops.aten
F64 = torch.float64
STRIDED = torch.empty(4, 3, dtype=F64).t()

MOVES = {
    "view": (lambda v: v.reshape(2, 6), [(3, 4)]),
    "reshape of strides": (lambda v: v.reshape(2, 6), [STRIDED]),
    "permute": (lambda v: v.permute(2, 0, 1), [(2, 3, 4)]),
    "t of size 1": (lambda v: v.t(), [(1, 3)]),
    "expand": (lambda v: v.expand(2, 3, 4), [(3, 1)]),
    "expand of a number": (lambda v: v.expand(3), [()]),
    "slice with a step": (lambda v: v[1::2, -3:-1], [(5, 4)]),
    "select from the end": (lambda v: v.select(-1, -2), [(3, 4)]),
    "squeeze": (lambda v: v.squeeze(1), [(3, 1, 2)]),
    "unsqueeze": (lambda v: v.unsqueeze(-2), [(3, 2)]),
    "unbind": (lambda v: v.unbind(1), [(3, 2)]),
    "split": (lambda v: v.split(2, 1), [(3, 5)]),
    "split by sizes": (lambda v: v.split([1, 0, 2], 0), [(3, 2)]),
    "diagonal": (lambda v: v.diagonal(1, -1, 0), [(3, 4)]),
    "as_strided that overlaps": (lambda v: v.as_strided((3, 3), (1, 2), 1), [(9,)]),
    "as_strided of strides": (lambda v: aten.as_strided(v, (2, 3), (5, 2), 1), [STRIDED]),
    "unfold": (lambda v: v.unfold(0, 3, 2), [(8, 2)]),
    "roll": (lambda v: v.roll((1, -2), (0, 1)), [(3, 4)]),
    "roll of all": (lambda v: v.roll(5), [(2, 3)]),
    "flip": (lambda v: v.flip(0, -1), [(3, 4)]),
    "rot90": (lambda v: aten.rot90(v, 3, [1, 0]), [(3, 4)]),
    "repeat": (lambda v: v.repeat(2, 1, 2), [(3, 2)]),
    "tril": (lambda v: v.tril(1), [(2, 3, 3)]),
    "triu": (lambda v: v.triu(-1), [(4, 3)]),
    "diag_embed": (lambda v: v.diag_embed(-1), [(2, 3)]),
    "pad": (lambda v: aten.constant_pad_nd(v, [1, -1, 0, 2]), [(3, 4)]),
    "pixel_shuffle": (lambda v: aten.pixel_shuffle(v, 2), [(1, 4, 2, 3)]),
    "pixel_unshuffle": (lambda v: aten.pixel_unshuffle(v, 2), [(1, 1, 4, 2)]),
    "channel_shuffle": (lambda v: aten.channel_shuffle(v, 2), [(1, 4, 2)]),
    "slice_backward": (lambda v: aten.slice_backward(v, [3, 7], 1, 1, 6, 2), [(3, 3)]),
    "select_backward": (lambda v: aten.select_backward(v, [3, 4], -1, -2), [(3,)]),
    "diagonal_backward": (lambda v: aten.diagonal_backward(v, [3, 4], 1, 0, 1), [(3,)]),
    "slice_scatter": (lambda v, w: aten.slice_scatter(v, w, 1, 0, 4, 2), [(3, 5), (3, 2)]),
    "select_scatter": (lambda v, w: aten.select_scatter(v, w, -1, 1), [(3, 2), (3,)]),
    "diagonal_scatter": (lambda v, w: aten.diagonal_scatter(v, w, -1), [(3, 3), (2,)]),
    "cat": (lambda v, w: torch.cat([v, torch.zeros(2, 2), w, v], -1), [(2, 3), (2, 1)]),
    "stack": (lambda v, w: torch.stack([v, w], 1), [(2, 3), (2, 3)]),
    "empty": (lambda v: v[:, 2:2].reshape(0, 5).flip(0), [(3, 4)]),
    "of nothing": (lambda v: aten.constant_pad_nd(v, [1, 1]), [(0,)]),
    "complex pairs": (
        lambda v: torch.view_as_real(v).flip(0),
        [torch.empty(3, dtype=torch.complex128)],
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_each_move_is_exact(name: str) -> None:
    g, shapes = MOVES[name]
    check(g, shapes, draws=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_casts_are_identities_and_never_run_on_numbers(dtype: torch.dtype) -> None:
    vs = linear_tensors([(5000,)])
    found = rule_of(lambda v: v.to(dtype).flip(0).to(F64), vs).graph
    detected = rule_of(lambda v: v.to(dtype).flip(0).to(F64)[:3], vs)
    assert not detected.pessimistic
    assert np.flatnonzero(detected.matrix[0]).tolist() == [4999]
    assert any("_to_copy" in str(n.target) for n in found.linear)


def test_a_cat_with_integers_takes_no_numbers_from_them() -> None:
    def g(v: torch.Tensor) -> torch.Tensor:
        return aten.cat([v, torch.tensor([1.0, 3.0]) * 0, aten.mul(v, 2)])

    check(g, [(2,)], draws=1)
    found = rule_of(lambda v: torch.cat([v, torch.tensor([1, 2])]), linear_tensors([(2,)]))
    assert found.matrix.tolist() == [[True, False], [False, True], [False] * 2, [False] * 2]


def test_a_fill_that_is_not_zero_is_not_taken_for_an_element() -> None:
    for fill in (1.0, 2.0, -1.0):
        found = rule_of(
            lambda v, fill=fill: aten.constant_pad_nd(v, [1, 1], fill), linear_tensors([(3,)])
        )
        assert "constant_pad_nd" in found.pessimistic
        assert found.matrix.all()


def test_reading_the_bits_of_numbers_is_pessimistic() -> None:
    found = rule_of(
        lambda v: v.view(torch.int64).view(torch.float64).flip(0), linear_tensors([(3,)])
    )
    assert "view" in found.pessimistic
    assert found.matrix.all()


@pytest.mark.parametrize(
    "g",
    [
        lambda v: aten.as_strided(v[:, ::2], (2,), (4,), 1),
        lambda v: aten.as_strided(v[:2], (3,), (4,), 0),
        lambda v: aten.as_strided(v[1:], (3,), (4,), 0),
        lambda v: aten.as_strided(v[:, 1:].select(0, 1), (2,), (4,), 3),
    ],
)
def test_as_strided_may_read_what_its_argument_does_not_show(
    g: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    found = check(g, [(3, 4)], draws=1, exact=False)
    assert found.matrix.all()


@pytest.mark.parametrize(
    ("tensor", "dense"),
    [
        (torch.zeros(3, 4), True),
        (torch.zeros(3, 4).t(), True),
        (torch.zeros(2, 3, 4).permute(2, 0, 1), True),
        (torch.zeros(1, 3).expand(2, 3), False),
        (torch.zeros(3, 4)[:, 1:], False),
        (torch.zeros(4)[1:], False),
        (torch.zeros(3, 1, 4), True),
        (torch.zeros(()), True),
    ],
)
def test_dense_means_that_the_elements_fill_their_memory(tensor: torch.Tensor, dense: bool) -> None:
    assert is_dense(Meta.of(tensor)) is dense


@pytest.mark.parametrize("shape", [(3, 2), (2,)])
def test_complex_numbers_out_of_pairs_depend_on_both(shape: tuple[int, ...]) -> None:
    found = check(lambda v: torch.view_as_complex(v), [shape], draws=1)
    assert "aten.view_as_complex.default" in calls(found)


def test_what_stands_where_is_kept_and_what_it_relies_on_told_again() -> None:
    index = torch.tensor([3, 0, 0, 2])
    graph = graph_of(lambda v, i: v[i].flip(0), [torch.rand(4)], [index], guarded=[0])
    first, second = (detect("test", graph) for _ in range(2))
    assert first.relied == second.relied == {"other0"}
    assert first.pattern == second.pattern
    picked, flipped = graph.moves.values()
    assert picked[0].tolist() == [4, 1, 1, 3]
    assert flipped[0].tolist() == [4, 3, 2, 1]


def test_linear_by_rule_means_all_linear_arguments_together() -> None:
    def linear(f: Callable[..., Any]) -> bool:
        return linear_by_rule(graph_of(f, [torch.rand(4)], [torch.rand(4)]))

    assert linear(lambda v, w: (v.roll(1) * w - 2 * v).cumsum(0))
    assert not linear(lambda v, w: v * v * w)
    assert not linear(lambda v, w: v.clamp(max=0.5))
    assert not linear(lambda v, w: torch.where(v > 0, v, w))
