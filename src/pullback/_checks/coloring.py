"""What is to be colored, how, and what is read back with it."""

from __future__ import annotations

from typing import Any

from .._errors import ArgumentError
from .options import one_of
from .words import article, shape_text

KINDS = ("columns", "rows", "star", "acyclic", "bidirectional")


def coloring_kind(caller: str, kind: object) -> None:
    one_of(caller, "kind", kind, KINDS)


def coloring_order(caller: str, order: object, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the orders to try; ``("best",)`` leaves the choice to the coloring."""
    names = order if isinstance(order, tuple) else (order,)
    allowed = known if isinstance(order, tuple) else (*known, "best")
    if not names:
        raise ArgumentError(
            f'{caller}: `order` is an empty tuple; name the orders to try, or write order="best".'
        )
    for name in names:
        one_of(caller, "order", name, allowed)
    return tuple(str(name) for name in names)


def not_a_pattern(caller: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `pattern` is {article(value)}; it must be a SparsityPattern, a SciPy sparse "
        f"array, or a dense 2-D bool tensor or array. Write SparsityPattern.from_scipy(matrix)."
    )


def dense_pattern(caller: str, value: Any) -> None:
    """A dense array or tensor tells a pattern only if it has two axes and holds booleans."""
    if value.ndim != 2:
        raise ArgumentError(
            f"{caller}: `pattern` has shape {shape_text(value.shape)}; a pattern has two axes, "
            f"rows and columns. Reshape it to (m, n)."
        )
    if "bool" not in str(value.dtype):
        raise ArgumentError(
            f"{caller}: `pattern` is a dense {type(value).__name__} of dtype {value.dtype}; its "
            f"values at one point do not tell which entries are always zero. If they do, write "
            f"pattern != 0."
        )


def _named(kind: str) -> str:
    return f"an {kind}" if kind == "acyclic" else f"a {kind}"


def square(caller: str, kind: str, shape: tuple[int, int]) -> None:
    if shape[0] != shape[1]:
        raise ArgumentError(
            f"{caller}: `pattern` has shape {shape_text(shape)}, but {_named(kind)} coloring is "
            f"for symmetric matrices, which are square. "
            f'Write kind="columns", "rows" or "bidirectional".'
        )


def lacks_mirror(caller: str, kind: str, entry: tuple[int, int]) -> ArgumentError:
    i, j = entry
    return ArgumentError(
        f"{caller}: `pattern` has the entry ({i}, {j}) but lacks its mirror ({j}, {i}); "
        f"{_named(kind)} coloring is for symmetric matrices. For a symmetric matrix add the "
        f'mirrored entries; otherwise write kind="columns", "rows" or "bidirectional".'
    )


def consistent_colors(
    caller: str, found: tuple[int, int, int], length: int, num_colors: int
) -> None:
    """``found`` is how many colors are listed, the least and the largest."""
    size, least, largest = found
    if size != length:
        raise ArgumentError(
            f"{caller}: `colors` has {size} entries, but this kind and shape have {length} rows "
            f"or columns to color. Give each of them a color, -1 for none."
        )
    if least < -1 or largest >= num_colors:
        raise ArgumentError(
            f"{caller}: `colors` goes from {least} to {largest}, but `num_colors` is "
            f"{num_colors}; colors are counted from 0, and -1 is neutral. Number them anew."
        )


def coloring_fits(
    caller: str, shape: tuple[int, int], coloring_shape: tuple[int, int], kind: str
) -> None:
    if shape != coloring_shape:
        raise ArgumentError(
            f"{caller}: `coloring` is for a {shape_text(coloring_shape)} pattern, but `pattern` "
            f'has shape {shape_text(shape)}. Color this pattern: color(pattern, "{kind}").'
        )


def unreadable(caller: str, entry: tuple[int, int], kind: str) -> ArgumentError:
    i, j = entry
    return ArgumentError(
        f"{caller}: `coloring` does not fit `pattern`: the entry ({i}, {j}) stands alone in no "
        f'product, so it cannot be read. Color this pattern: color(pattern, "{kind}").'
    )


def needs_substitution(caller: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `coloring` is acyclic, and its entries are solved for, not read. Use "
        f'substitution(pattern, coloring) or recover, or color with kind="star".'
    )


def seed_range(caller: str, start: int, stop: int, rows: int, total: int) -> None:
    """A chunk of products; row products and column products do not share one."""
    if not 0 <= start <= stop <= total:
        raise ArgumentError(
            f"{caller}: `start` is {start} and `stop` is {stop}, but there are {total} colors; "
            f"they must be 0 <= start <= stop <= {total}."
        )
    if start < rows < stop:
        raise ArgumentError(
            f"{caller}: the colors {start} to {stop} cross from row products to column products, "
            f"whose seeds differ in length. Ask for {start} to {rows} and {rows} to {stop}."
        )


def compressed_shape(
    caller: str, name: str, found: tuple[int, ...], wanted: tuple[int, int]
) -> None:
    if tuple(found) != wanted:
        raise ArgumentError(
            f"{caller}: `{name}` has shape {shape_text(found)}, but the coloring has "
            f"{wanted[0]} of these products with {wanted[1]} entries each, so it must have shape "
            f"{shape_text(wanted)}."
        )


def two_sided(caller: str, compressed: object) -> None:
    if not isinstance(compressed, tuple) or len(compressed) != 2:
        raise ArgumentError(
            f"{caller}: `compressed` is {article(compressed)}, but a bidirectional coloring has "
            f"products of two lengths. Pass a pair: (row products, column products)."
        )
