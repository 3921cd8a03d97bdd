"""Each checker accepts by its definition, and refuses a coloring that breaks one clause of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.sparse.coloring import Coloring
from pullback.sparse.coloring import validity as rules
from pullback.sparse.pattern import SparsityPattern

from .patterns import Mask, any_mask, pattern_of, random_mask, ring, symmetric_mask

CHAIN = np.eye(5, dtype=bool) | np.eye(5, k=1, dtype=bool) | np.eye(5, k=-1, dtype=bool)
BARE_CHAIN = CHAIN & ~np.eye(5, dtype=bool)
BREAKS = {
    "columns that meet": ("columns", CHAIN, [0, 1, 0, 1, 2]),
    "a neutral column": ("columns", CHAIN, [0, 1, 2, 0, -1]),
    "rows that meet": ("rows", CHAIN, [0, 0, 1, 2, 3]),
    "equal neighbors": ("star", CHAIN, [0, 0, 1, 2, 3]),
    "a path of two colors": ("star", CHAIN, [0, 1, 0, 1, 2]),
    "a neutral diagonal": ("star", CHAIN, [0, 1, 2, 0, -1]),
    "neutral neighbors": ("star", BARE_CHAIN, [-1, -1, 0, 1, 2]),
    "equal neighbors of a neutral one": ("star", BARE_CHAIN, [0, -1, 0, 1, 2]),
    "a cycle of two colors": ("acyclic", ring(6).toarray() > 0, [0, 1, 0, 1, 0, 1]),
    "equal neighbors in a forest": ("acyclic", CHAIN, [0, 0, 1, 0, 1]),
}


def holds(kind: str, pattern: SparsityPattern, colors: object) -> bool:
    array = np.asarray(colors)
    if kind in ("columns", "rows"):
        return rules.structurally_orthogonal(pattern, array, kind)
    return rules.is_star(pattern, array) if kind == "star" else rules.is_acyclic(pattern, array)


@pytest.mark.parametrize(("kind", "mask", "colors"), BREAKS.values(), ids=BREAKS)
def test_a_broken_coloring_is_refused(kind: str, mask: Mask, colors: list[int]) -> None:
    pattern = pattern_of(mask)
    assert not holds(kind, pattern, colors)
    assert holds(kind, pattern, range(len(colors)))


def test_what_breaks_a_star_may_be_acyclic() -> None:
    assert rules.is_acyclic(pattern_of(CHAIN), np.array([0, 1, 0, 1, 0]))


def by_definition(kind: str, mask: Mask, colors: list[int]) -> bool:
    """Vertex by vertex, color by color, path by path."""
    n = len(colors)
    pairs = [(i, j) for i, j in itertools.product(range(n), repeat=2) if mask[i, j] and i != j]
    if any(mask[i, i] and colors[i] < 0 for i in range(n)):
        return False
    if any(colors[i] == colors[j] for i, j in pairs):
        return False
    for i in (i for i in range(n) if colors[i] < 0):
        around = [colors[j] for a, j in pairs if a == i]
        if len(set(around)) < len(around):
            return False
    edges = {(i, j) for i, j in pairs if colors[i] >= 0 and colors[j] >= 0}
    if kind == "star":
        return not any(
            (b, c) in edges
            and len({a, b, c, d}) == 4
            and len({colors[x] for x in (a, b, c, d)}) == 2
            for a, b in edges
            for c, d in edges
        )
    for two in itertools.combinations({c for c in colors if c >= 0}, 2):
        left = {(i, j) for i, j in edges if {colors[i], colors[j]} == set(two)}
        while leaves := [i for i in range(n) if sum(a == i for a, _ in left) == 1]:
            left = {(i, j) for i, j in left if i not in leaves and j not in leaves}
        if left:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(symmetric_mask(), st.integers(0, 999), st.integers(1, 9), st.booleans())
def test_star_and_acyclic_are_told_as_defined(
    mask: Mask, seed: int, count: int, with_neutral: bool
) -> None:
    mask = mask[:8, :8]
    colors = np.random.default_rng(seed).integers(-1 if with_neutral else 0, count, len(mask))
    for kind in ("star", "acyclic"):
        assert holds(kind, pattern_of(mask), colors) == by_definition(kind, mask, colors.tolist())


@settings(max_examples=100, deadline=None)
@given(any_mask(), st.integers(0, 999), st.integers(1, 12))
def test_orthogonal_columns_are_told_as_defined(mask: Mask, seed: int, count: int) -> None:
    colors = np.random.default_rng(seed).integers(-1, count, mask.shape[1])
    clash = any(
        colors[a] == colors[b] and (mask[:, a] & mask[:, b]).any()
        for a, b in itertools.combinations(range(mask.shape[1]), 2)
    )
    expected = not clash and bool((colors[mask.any(axis=0)] >= 0).all())
    assert holds("columns", pattern_of(mask), colors) == expected
    assert holds("rows", pattern_of(mask.T), colors) == expected


CORNER = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 1]], dtype=bool)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([-1, 0, 0], [-1, 0, 1]),  # the corner entry has no color at either end
        ([-1, 0, 1], [0, 1, 1]),  # a neutral row with two columns of one color
        ([0, 1, 1], [-1, 0, 1]),  # a neutral column with two rows of one color
        ([0, 1, 0], [0, 1, 0]),  # (0, 0), (0, 2), (2, 2): a path of two colors
    ],
)
def test_a_broken_bidirectional_coloring_is_refused(rows: list[int], columns: list[int]) -> None:
    pattern = pattern_of(CORNER)
    assert not rules.is_bidirectional(pattern, np.array(rows), np.array(columns))
    assert rules.is_bidirectional(pattern, np.arange(3), np.arange(3))
    assert rules.is_bidirectional(pattern, torch.arange(3), torch.full((3,), -1))


def test_an_entry_that_no_product_shows_alone_is_found() -> None:
    pattern = pattern_of(random_mask(6, 6, 1.0, 0))
    apart = Coloring("columns", "natural", (6, 6), torch.arange(6), 6)
    merged = Coloring("columns", "natural", (6, 6), torch.tensor([0, 1, 2, 3, 4, 4]), 5)
    assert rules.directly_recoverable(pattern, apart)
    assert not rules.directly_recoverable(pattern, merged)
