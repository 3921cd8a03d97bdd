"""Maps of elements are the matrices that they stand for, whatever tables they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.sparse.graph import Meta
from pullback.sparse.lift.linear import LinearMap, identity, picked

SIZE = 4


def starts(lanes: int = 1) -> list[LinearMap]:
    dtype = torch.float64 if lanes == 1 else torch.complex128
    return identity([Meta.of(torch.zeros(SIZE, dtype=dtype))] * 2)


def dense(found: LinearMap) -> np.ndarray[Any, Any]:
    return found.to_scipy().toarray()


def test_the_identity_numbers_all_real_elements() -> None:
    for lanes in (1, 2):
        both = np.concatenate([dense(m) for m in starts(lanes)])
        np.testing.assert_array_equal(both, np.eye(2 * lanes * SIZE))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_chains_of_steps_are_products_of_matrices(data: st.DataObject) -> None:
    lanes = data.draw(st.sampled_from([1, 2]))
    maps = starts(lanes)
    matrices = [dense(m) for m in maps]
    numbers = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0, 1e40, 1e-40])
    for _ in range(data.draw(st.integers(1, 7))):
        a = data.draw(st.integers(0, len(maps) - 1))
        b = data.draw(st.integers(0, len(maps) - 1))
        step = data.draw(st.sampled_from(["plus", "scaled", "weighed", "picked", "through", "at"]))
        left, right = maps[a], maps[b]
        if step == "plus":
            new, truth = left.plus(right), matrices[a] + matrices[b]
        elif step == "scaled":
            factor = data.draw(numbers)
            new, truth = left.scaled(factor), factor * matrices[a]
        elif step == "weighed":
            factors = np.array(data.draw(st.lists(numbers, min_size=SIZE, max_size=SIZE)))
            new, truth = left.weighed(factors), np.repeat(factors, lanes)[:, None] * matrices[a]
        elif step == "picked":
            where = np.array(
                data.draw(st.lists(st.integers(0, 2 * SIZE), min_size=SIZE, max_size=SIZE))
            )
            new = picked([left, right], where)
            blocks = np.concatenate([matrices[a], matrices[b]]).reshape(2 * SIZE, lanes, -1)
            chosen = np.concatenate([0 * blocks[:1], blocks])[where]
            truth = chosen.reshape(SIZE * lanes, -1)
        elif step == "through":
            matrix = np.round(np.random.default_rng(a).normal(size=2 * [SIZE * lanes]))
            new, truth = left.through(matrix, (SIZE,), lanes), matrix @ matrices[a]
        else:
            keep = np.arange(SIZE)[:, None] % 2 == 0
            new = left.with_ids(np.where(keep, left.grid, 0))
            truth = matrices[a] * np.repeat(keep[:, 0], lanes)[:, None]
        maps.append(new)
        with np.errstate(all="ignore"):
            matrices.append(truth)
        if not np.isfinite(truth).all() or np.abs(truth).max() > 1e250:
            return
        scale = max(np.abs(truth).max(), 1e-300)
        np.testing.assert_allclose(dense(new) / scale, truth / scale, atol=1e-13)


@pytest.mark.parametrize("scales", [(0.0, 2.0), (2.0, 0.0), (1.0, -1.0), (1e-300, 1e300), (3, -1)])
def test_sums_of_scales_of_one_map(scales: tuple[float, float]) -> None:
    m = starts()[0]
    first, second = (m.scaled(s) for s in scales)
    np.testing.assert_array_equal(dense(first.plus(second)), sum(scales) * dense(m))
    np.testing.assert_array_equal(dense(second.plus(first)), sum(scales) * dense(m))


def test_a_sum_of_scales_is_rounded_once() -> None:
    m = starts()[0]
    assert m.scaled(3.0).plus(m.scaled(-1.0)).scale == 2.0


def test_broadcasting_hands_rows_out_again() -> None:
    m = starts()[0]
    wide = m.broadcast((3, SIZE))
    assert wide.table is m.table
    np.testing.assert_array_equal(dense(wide), np.tile(dense(m), (3, 1)))


def test_maps_that_cover_nothing_twice_add_no_rows() -> None:
    m = starts()[0]
    even = np.arange(SIZE)[:, None] % 2 == 0
    one, other = (m.with_ids(np.where(k, m.grid, 0)) for k in (even, ~even))
    assert one.plus(other).table is m.table
    np.testing.assert_array_equal(dense(one.plus(other)), dense(m))
