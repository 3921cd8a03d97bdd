"""Patterns in braille: every dot, every frame, and the numbers in the header."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pullback.draw import Places, braille_lines, places_facts
from pullback.draw.braille import block_counts

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=60))


def places_of(mask: np.ndarray) -> Places:
    indptr = np.concatenate(([0], np.cumsum(mask.sum(axis=1))))
    return Places(mask.shape, indptr, np.nonzero(mask)[1])


def dots_of(lines: list[str]) -> np.ndarray:
    """Read the dots back, bit by bit, from the names that Unicode gives to the characters."""
    import unicodedata

    body = [line[1:-1] for line in lines if line.startswith("│")]
    dots = np.zeros((4 * len(body), 2 * len(body[0])), dtype=bool)
    for row, text in enumerate(body):
        for column, char in enumerate(text):
            name = unicodedata.name(char)
            raised = "" if name.endswith("BLANK") else name.rpartition("-")[2]
            for dot in map(int, raised):
                right, down = (dot in (4, 5, 6, 8)), {7: 3, 8: 3}.get(dot, (dot - 1) % 3)
                dots[4 * row + down, 2 * column + right] = True
    return dots


def block_any(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    m, n = mask.shape
    return np.array(
        [
            [mask[i : i + rows, j : j + columns].any() for j in range(0, n, columns)]
            for i in range(0, m, rows)
        ]
    ).reshape(-(-m // rows), -(-n // columns))


def test_the_reader_above_tells_all_eight_dots_apart() -> None:
    each = [dots_of(["│" + chr(0x2800 + (1 << bit)) + "│"]) for bit in range(8)]
    assert sorted(int(np.flatnonzero(dots)[0]) for dots in each) == list(range(8))
    assert all(dots.sum() == 1 for dots in each)
    assert [tuple(np.argwhere(dots)[0]) for dots in each] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1),
    ]  # fmt: skip


@given(MASKS)
def test_a_matrix_that_fits_is_drawn_entry_by_entry(mask: np.ndarray) -> None:
    lines = braille_lines(places_of(mask))
    if mask.size == 0:
        assert lines == []
        return
    m, n = mask.shape
    dots = dots_of(lines)
    np.testing.assert_array_equal(dots[:m, :n], mask)
    assert not dots[m:].any()
    assert not dots[:, n:].any()
    assert lines[0] == f"┌{'─' * -(-n // 2)}┐"
    assert lines[-1] == f"└{'─' * -(-n // 2)}┘"


@given(MASKS, st.integers(1, 70), st.integers(1, 70))
def test_blocks_count_their_places(mask: np.ndarray, rows: int, columns: int) -> None:
    counts = block_counts(places_of(mask), rows, columns)
    assert counts.sum() == mask.sum()
    np.testing.assert_array_equal(counts > 0, block_any(mask, rows, columns))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60), st.integers(1, 60))
def test_a_full_matrix_counts_like_its_expansion(m: int, n: int, rows: int, columns: int) -> None:
    expanded = places_of(np.ones((m, n), dtype=bool))
    np.testing.assert_array_equal(
        block_counts(Places((m, n)), rows, columns), block_counts(expanded, rows, columns)
    )


@given(MASKS, st.integers(1, 8), st.integers(1, 5))
def test_the_frame_is_never_larger_than_asked_and_says_its_blocks(
    mask: np.ndarray, width: int, height: int
) -> None:
    if mask.size == 0:
        return
    lines = braille_lines(places_of(mask), width, height)
    body = [line for line in lines if line.startswith("│")]
    assert len(body) <= height
    assert all(len(line) <= width + 2 for line in body)
    rows = columns = 1
    if not lines[-1].startswith("└"):
        words = lines[-1].split()
        assert words[:5] == ["a", "dot:", "a", "nonzero", "among"]
        rows, columns = int(words[5]), int(words[7])
        assert max(rows, columns) > 1
    expected = block_any(mask, rows, columns)
    dots = dots_of(lines)
    np.testing.assert_array_equal(dots[: expected.shape[0], : expected.shape[1]], expected)
    assert dots.sum() == expected.sum()


@pytest.mark.parametrize(
    ("shape", "steps", "characters"),
    [
        ((120, 120), (2, 2), (15, 30)),
        ((80, 120), (1, 1), (20, 60)),
        ((81, 120), (2, 2), (11, 30)),
        ((3000, 3000), (38, 38), (20, 40)),
        ((10**6, 3), (12500, 1), (20, 2)),
        ((3, 10**6), (1, 8334), (1, 60)),
        ((10**6, 2000), (12500, 125), (20, 8)),
    ],
)
def test_blocks_are_square_unless_a_side_would_vanish(
    shape: tuple[int, int], steps: tuple[int, int], characters: tuple[int, int]
) -> None:
    lines = braille_lines(Places(shape))
    body = [line for line in lines if line.startswith("│")]
    assert (len(body), len(body[0]) - 2) == characters
    note = f"a dot: a nonzero among {steps[0]:,} × {steps[1]:,} entries"
    assert lines[-1] == (lines[-1] if steps == (1, 1) else note)


def test_a_drawing_to_the_character() -> None:
    arrow = np.eye(6, dtype=bool)
    arrow[0] = arrow[:, 0] = True
    assert braille_lines(places_of(arrow)) == ["┌───┐", "│⡟⢍⠉│", "│⠃⠀⠑│", "└───┘"]


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (Places((0, 5)), "0 × 5, no entries"),
        (Places((5, 0)), "5 × 0, no entries"),
        (Places((0, 0)), "0 × 0, no entries"),
        (Places((1, 1)), "1 × 1, 1 nonzero, density 100 %, 1 per row"),
        (places_of(np.zeros((3, 4), bool)), "3 × 4, 0 nonzeros, density 0 %, 0 per row"),
        (places_of(np.tri(72, k=5) - np.tri(72) > 0), "72 × 72, 345 nonzeros, density 6.7 %, 0 to 5 per row"),
        (places_of(~np.eye(1000, dtype=bool)), "1,000 × 1,000, 999,000 nonzeros, density > 99 %, 999 per row"),
        (places_of(np.arange(10**5).reshape(1, -1) == 7), "1 × 100,000, 1 nonzero, density 0.001 %, 1 per row"),
        (Places((10**6, 10**6)), "1,000,000 × 1,000,000, 1,000,000,000,000 nonzeros, density 100 %, 1,000,000 per row"),
    ],
)  # fmt: skip
def test_the_facts_of_a_pattern(places: Places, text: str) -> None:
    assert places_facts(places) == text


def test_a_huge_pattern_is_drawn_from_its_rows_with_little_memory() -> None:
    n, per_row = 1_000_000, 10
    indptr = np.arange(0, n * per_row + 1, per_row, dtype=np.int32)
    first = np.minimum(np.arange(n), n - per_row)[:, np.newaxis]
    indices = (first + np.arange(per_row)).astype(np.int32).ravel()
    tracemalloc.start()
    started = time.perf_counter()
    lines = braille_lines(Places((n, n), indptr, indices))
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dots_of(lines).sum() == pytest.approx(80, abs=80)
    assert seconds < 2
    assert peak < indices.nbytes / 4


def test_drawing_leaves_the_arrays_alone() -> None:
    places = places_of(np.eye(300, dtype=bool))
    assert places.indptr is not None
    assert places.indices is not None
    places.indptr.setflags(write=False)
    places.indices.setflags(write=False)
    braille_lines(places)
