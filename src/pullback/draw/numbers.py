"""How numbers, shapes and shares are written for a reader."""

import math
import re
from collections.abc import Sequence

_EXACT_BELOW = 1_000_000
_NUMERIC = re.compile(r"[<>~]?\s?[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?\s?(%|x|×)?|[+-]?(nan|inf)")


def number(x: float) -> str:
    """Write a float with four significant digits, and integers below a million exactly.

    >>> number(0.1 + 0.2), number(363.0), number(1.2e-07), number(-0.0)
    ('0.3', '363', '1.2e-7', '0')
    """
    value = float(x)
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < _EXACT_BELOW:
        return str(int(value))
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    if not exponent:
        return mantissa
    return f"{mantissa}e{int(exponent)}"


def shape(sizes: Sequence[int]) -> str:
    """Write a shape as Python writes a tuple.

    >>> shape((5, 4)), shape([3]), shape(())
    ('(5, 4)', '(3,)', '()')
    """
    return str(tuple(int(size) for size in sizes))


def percent(share: float) -> str:
    """Write a share in whole percent; only a true 0 or 1 is written as 0 % or 100 %.

    >>> percent(0.253), percent(0.001), percent(0.9999), percent(1.0)
    ('25 %', '< 1 %', '> 99 %', '100 %')
    """
    value = 100 * float(share)
    if not math.isfinite(value):
        return str(value)
    whole = round(value)
    if whole == 0 and value != 0:
        return "< 1 %" if value > 0 else "> -1 %"
    if abs(whole) == 100 and abs(value) < 100:
        return "> 99 %" if value > 0 else "< -99 %"
    return f"{whole:,} %"


def count(n: int) -> str:
    """Write a count with its thousands set apart.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{int(n):,}"


def looks_numeric(cell: str) -> bool:
    """Say whether a table cell reads as a number, so that it is set flush right."""
    return _NUMERIC.fullmatch(cell.strip()) is not None
