"""Sets of dependences against Python's own sets: union, grouping, and the pattern they make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pullback.sparse.dependence import Dependence, Table, grouped, identity, nothing, union
from pullback.sparse.unions import distinct_pairs

WIDTH = 40
SEEDS = range(6)


def random_dependence(
    draw: np.random.Generator, count: int, largest: int, sets: int = 7
) -> Dependence:
    """``count`` elements that share ``sets`` sets of up to ``largest`` entries."""
    rows = [np.zeros(0, dtype=np.int32)]
    for _ in range(sets):
        size = int(draw.integers(1, largest + 1))
        rows.append(draw.permutation(WIDTH)[:size].astype(np.int32))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    table = Table(indptr, np.concatenate(rows), WIDTH)
    return Dependence((count,), draw.integers(0, sets + 1, size=count).astype(np.int32), table)


def sets_of(dependence: Dependence) -> list[set[int]]:
    table = dependence.table
    return [
        set(table.indices[table.indptr[k] : table.indptr[k + 1]].tolist()) for k in dependence.ids
    ]


def sets_by_group(parts: Sequence[tuple[Dependence, np.ndarray]], count: int) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(count)]
    for part, groups in parts:
        for own, group in zip(sets_of(part), groups.tolist(), strict=True):
            if group >= 0:
                found[group] |= own
    return found


@pytest.mark.parametrize("largest", [1, 3, WIDTH])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_union_is_that_of_the_sets(seed: int, largest: int) -> None:
    draw = np.random.default_rng(seed)
    for count, sets in ((1, 7), (30, 7), (5000, 7), (5000, 2000)):
        left, right = (random_dependence(draw, count, largest, sets) for _ in range(2))
        expected = [a | b for a, b in zip(sets_of(left), sets_of(right), strict=True)]
        assert sets_of(union([left, right], (count,))) == expected


@pytest.mark.parametrize("largest", [1, 3, WIDTH])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_depends_on_what_its_members_do(seed: int, largest: int) -> None:
    draw = np.random.default_rng(seed)
    parts = [
        (random_dependence(draw, count, largest), draw.integers(-1, 9, size=count))
        for count in (25, 4)
    ]
    assert sets_of(grouped(parts, (9,))) == sets_by_group(parts, 9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_pattern_holds_the_sets_ascending(seed: int) -> None:
    found = random_dependence(np.random.default_rng(seed), 50, 9)
    dense = found.to_pattern().to_scipy().toarray()
    assert [set(np.flatnonzero(row).tolist()) for row in dense] == sets_of(found)
    for pattern in (found.to_pattern(), found.to_flipped_pattern()):
        for start, stop in zip(pattern.indptr[:-1], pattern.indptr[1:], strict=True):
            assert (np.diff(pattern.indices[start:stop]) > 0).all()
    assert found.to_flipped_pattern() == found.to_pattern().T


def test_an_overwritten_buffer_depends_on_nothing() -> None:
    (own,) = identity([(3,)])
    assert own.is_something
    assert not nothing((3,), own).is_something
    assert own.with_ids(np.array([0, 0, 2], dtype=np.int32)).is_something


def test_equal_pairs_are_found_in_either_order() -> None:
    draw = np.random.default_rng(0)
    left, right = (draw.integers(0, 30, size=4000).astype(np.int32) for _ in range(2))
    which = np.empty(4000, dtype=np.int64)
    room = np.empty(8000, dtype=np.int32)
    pairs = room[: 2 * distinct_pairs(left, right, which, room)].reshape(-1, 2)
    expected = np.stack([np.minimum(left, right), np.maximum(left, right)], axis=1)
    assert (pairs[which] == expected).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
