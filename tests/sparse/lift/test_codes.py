"""Columns as codes and tables: read back, they are what they were, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pullback.sparse.lift.codes import encoded, encoded_together

RANDOM = np.random.default_rng(0)
COLUMNS = {
    "one number": (np.full(50, -1.0), np.uint8, 1),
    "no entry": (np.zeros(0), np.uint8, 0),
    "few": (RANDOM.choice([1.0, -1.0, 0.5], 1000), np.uint8, 3),
    "zeros of both signs, and none": (np.array([0.0, -0.0, np.nan, np.inf, 0.0]), np.uint8, 4),
    "as many as a byte counts": (np.tile(np.arange(256.0), 3), np.uint8, 256),
    "one more": (np.tile(np.arange(257.0), 3), np.uint16, 257),
    "as many as two bytes count": (
        np.tile(RANDOM.permutation(65_535).astype(float), 2),
        np.uint16,
        65_535,
    ),
    "more": (np.tile(RANDOM.permutation(70_000).astype(float), 2), np.int32, 70_000),
}


def bits(column: Any) -> Any:
    return np.asarray(column, dtype=np.float64).view(np.int64)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_its_table_read_by_its_codes(name: str) -> None:
    column, kind, count = COLUMNS[name]
    codes, table = encoded(column)
    assert (codes.dtype, table.size) == (kind, count)
    assert np.array_equal(bits(table[codes]), bits(column))


def test_two_columns_share_their_codes() -> None:
    first, second = RANDOM.choice([1.0, -2.0], 500), RANDOM.choice([0.0, 3.0, 4.0], 500)
    codes, *tables = encoded_together(encoded(first), encoded(second))
    assert codes.dtype == np.uint8
    assert codes.max() == 5
    for column, table in zip((first, second), tables, strict=True):
        assert np.array_equal(table[codes], column)
