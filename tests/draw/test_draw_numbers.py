"""How numbers are written."""

import math

import pytest

from pullback.draw import count, number, percent, shape
from pullback.draw.numbers import looks_numeric


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (363.0, "363"),
        (-7.0, "-7"),
        (999_999.0, "999999"),
        (1_000_000.0, "1e6"),
        (1_234_567.0, "1.235e6"),
        (0.1 + 0.2, "0.3"),
        (0.50, "0.5"),
        (1 / 3, "0.3333"),
        (-12.3456, "-12.35"),
        (1.2e-07, "1.2e-7"),
        (1e-300, "1e-300"),
        (0.0001, "0.0001"),
        (-2.5e10, "-2.5e10"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_number(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0.253, "25 %"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.004, "< 1 %"),
        (-0.004, "> -1 %"),
        (0.9999, "> 99 %"),
        (-0.9999, "< -99 %"),
        (1.5, "150 %"),
        (-0.25, "-25 %"),
        (12.0, "1,200 %"),
        (math.nan, "nan"),
    ],
)
def test_percent(share: float, written: str) -> None:
    assert percent(share) == written


def test_shape_and_count() -> None:
    assert [shape((5, 4)), shape([3]), shape(())] == ["(5, 4)", "(3,)", "()"]
    assert [count(1234567), count(12), count(-1000)] == ["1,234,567", "12", "-1,000"]


@pytest.mark.parametrize(
    "cell", ["1", "-2.5", "1.2e-7", "25 %", "< 1 %", "1,234", "nan", "-inf", "3×"]
)
def test_numeric_cells(cell: str) -> None:
    assert looks_numeric(cell)


@pytest.mark.parametrize("cell", ["", "(5, 4)", "x", "—", "1 of 2", "e5", "float32"])
def test_other_cells(cell: str) -> None:
    assert not looks_numeric(cell)
