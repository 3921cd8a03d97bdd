"""One factor of the Jacobian: the entries of a piece, and how its values follow from products.

``values = template + A f``: ``f`` are the products of the piece's differentiated part, flattened
one after the other, ``A`` a fixed sparse matrix, and ``template`` what does not vary at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from torch import fx

from .. import detect
from ..choice import Choice, choose
from ..coloring.recover import flattened, sources
from ..dependence import Dependence, Table
from ..graph import PullbackGraph
from ..pattern import INT32_MAX, SparsityPattern
from ..rules.base import Declined
from . import kernels, linear
from .actions import Actions
from .codes import encoded
from .cut import Piece, apart
from .linear import LinearMap, identity, lanes_of, reals

# A block with fewer terms for its places is not worth a matrix product.
_FILL = 0.2
Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(eq=False)
class Ends:
    """The fixed maps of a piece around its differentiated part.

    With ``w`` the tensors that enter that part (``entries``) and ``z`` those that leave it
    (``exits``), in real elements: the starts ``s`` give ``w = M s``, and the ends are
    ``S z + D s``.
    """

    entries: tuple[fx.Node, ...]
    exits: tuple[fx.Node, ...]
    M: Any
    S: Any
    D: Any


def ends_of(graph: PullbackGraph, piece: Piece, actions: Actions) -> Ends:
    """Raises ``Declined`` where a fixed call turns out to be none."""
    inside = set(piece.varying)
    metas = graph.metas
    starts = [metas[n] for n in piece.starts]
    ahead, later = _before_and_after(graph, piece)
    read = dict.fromkeys(n for node in piece.varying for n in node.all_input_nodes)
    reached = {*piece.starts, *ahead}
    entries = tuple(n for n in read if n in reached)
    results = [n for n in piece.ends if n is not None]
    wanted = dict.fromkeys([*(n for node in later for n in node.all_input_nodes), *results])
    leading: dict[fx.Node, Any] = dict(zip(piece.starts, identity(starts), strict=True))
    _run(actions, ahead, leading, {*entries, *wanted})
    exits = tuple(n for n in wanted if n in inside)
    size = sum(reals(metas[n]) for n in exits)
    width = size + sum(map(reals, starts))
    if width > INT32_MAX:
        raise Declined("it has more elements than 32-bit numbers count")
    moved = _rows([leading[n] for n in entries], [], width - size)
    known: dict[fx.Node, Any] = dict(
        zip(exits, identity([metas[n] for n in exits], width), strict=True)
    )
    shifted: dict[int, linear.Table] = {}
    for node in wanted:
        if node in leading:
            known[node] = _shifted(leading[node], size, width, shifted)
    leading.clear()
    shifted.clear()
    _run(actions, later, known, set(results))
    sizes = [
        reals(metas[n]) if n is not None else graph.primals[k].numel
        for k, n in enumerate(piece.ends)
    ]
    whole = _rows([None if n is None else known[n] for n in piece.ends], sizes, width)
    known.clear()
    return Ends(entries, exits, moved, *_cut(whole.tocsc(), size))


def _before_and_after(graph: PullbackGraph, piece: Piece) -> tuple[list[fx.Node], list[fx.Node]]:
    """The fixed calls that follow from the starts alone, and the others."""
    reached = set(piece.starts)
    later: list[fx.Node] = []
    for node in piece.fixed:
        if all(n in reached for n in node.all_input_nodes if n in graph.linear):
            reached.add(node)
        else:
            later.append(node)
    return [n for n in piece.fixed if n in reached], later


def _run(
    actions: Actions, nodes: Sequence[fx.Node], known: dict[fx.Node, Any], kept: set[fx.Node]
) -> None:
    """Apply ``nodes`` in order; maps that are not ``kept`` go with their last reader."""
    last = {n: node for node in nodes for n in node.all_input_nodes}
    for node in nodes:
        known[node] = _applied(actions, node, known)
        for n in node.all_input_nodes:
            if last[n] is node and n not in kept:
                known.pop(n, None)


def _cut(by_column: Any, size: int) -> tuple[Any, Any]:
    """The first ``size`` columns and the others, in the same memory."""
    height, width = by_column.shape
    ptr, rows, data = by_column.indptr, by_column.indices, by_column.data
    at = int(ptr[size])
    left = (data[:at], rows[:at], ptr[: size + 1])
    right = (data[at:], rows[at:], ptr[size:] - ptr[size])
    return (
        scipy.sparse.csc_array(left, shape=(height, size)),
        scipy.sparse.csc_array(right, shape=(height, width - size)),
    )


def _applied(actions: Actions, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    action = actions.of(node)
    if action is None:
        raise Declined("a call varies after all")
    return action(known)


def _shifted(found: Any, by: int, width: int, tables: dict[int, linear.Table]) -> Any:
    """A map, or a list of them, with its columns moved; tables that were one stay one."""
    if isinstance(found, list):
        return [_shifted(part, by, width, tables) for part in found]
    if not isinstance(found, LinearMap):
        return found
    key = id(found.table)
    if key not in tables:
        tables[key] = found.table.shifted(by, width)
    return replace(found, table=tables[key])


def _rows(parts: Sequence[LinearMap | None], sizes: Sequence[int], width: int) -> Any:
    """The maps' rows one below the other; as many empty ones as ``sizes`` says for None."""
    if not parts:
        return scipy.sparse.csr_array((0, width))
    blocks = [
        scipy.sparse.csr_array((sizes[k], width)) if part is None else part.to_scipy()
        for k, part in enumerate(parts)
    ]
    if len(blocks) == 1:
        return blocks[0]
    return scipy.sparse.csr_array(scipy.sparse.vstack(blocks, format="csr"))


@dataclass(eq=False)
class Core:
    """The differentiated part of a piece, seen as a Jacobian with a row per element of ``entries``
    and a column per element of ``exits``; ``choice`` colors it."""

    pattern: SparsityPattern
    choice: Choice
    relied: set[str]
    pessimistic: dict[str, str]

    @property
    def num_products(self) -> int:
        return self.choice.num_products

    def colored(self, mode: str, forward: str) -> Core:
        return replace(self, choice=choose(self.pattern, mode, forward=forward))


def core_of(caller: str, graph: PullbackGraph, piece: Piece, ends: Ends, mode: str) -> Core:
    known = apart(graph, list(ends.entries))
    relied: set[str] = set()
    pessimistic: dict[str, str] = {}
    kept: set[fx.Node | None] = {*ends.entries, *ends.exits}
    detect.push(caller, graph, piece.varying, known, kept, relied, pessimistic)
    width = sum(reals(graph.metas[n]) for n in ends.entries)
    parts = [_by_lanes(known[n], lanes_of(graph.metas[n])) for n in ends.exits]
    if not parts:
        parts = [Dependence((0,), np.zeros(0, np.int32), Table.everything(width))]
    pattern, _ = detect.stacked(parts, width)
    return Core(pattern, choose(pattern, mode), relied, pessimistic)


def _by_lanes(dep: Dependence, lanes: int) -> Dependence:
    """A complex element reads the same for its real and for its imaginary part."""
    return dep if lanes == 1 else dep.with_ids(np.repeat(dep.ids, lanes))


@dataclass(eq=False)
class Terms:
    """``values[e] = template[e] + sum(weight[k] * f[sources[k]], starts[e] <= k < starts[e + 1])``

    ``weight[k]`` is ``weights[k]``, or ``weights[codes[k]]`` where there are ``codes``. ``weights``
    is None where all are 1, ``template`` where all of it is 0. ``blocks``, if given, is
    ``(count, matrix)``: ``f`` cut into ``count`` runs gives as many runs of values, each of them
    ``matrix`` times its run.
    """

    starts: Ints
    sources: Ints
    weights: Floats | None
    template: Floats | None
    blocks: tuple[int, Floats] | None = None
    codes: Ints | None = None

    @property
    def weight(self) -> Floats:
        """Of every term."""
        if self.weights is None:
            return np.ones(self.sources.size)
        return self.weights if self.codes is None else self.weights[self.codes]

    @property
    def nbytes(self) -> int:
        if self.blocks is not None:
            return self.blocks[1].nbytes
        arrays = (self.starts, self.sources, self.weights, self.template, self.codes)
        return sum(a.nbytes for a in arrays if a is not None)


def with_blocks(terms: Terms, counts: Sequence[int], size: int) -> Terms:
    """``terms`` with their ``blocks``, if one of ``counts`` cuts them into equal ones; ``size`` is
    that of ``f``. Larger counts are better."""
    if terms.template is not None or not terms.sources.size:
        return terms
    lengths = np.diff(terms.starts)
    for count in sorted({c for c in counts if c > 1}, reverse=True):
        if lengths.size % count or size % count or terms.sources.size % count:
            continue
        height, width = lengths.size // count, size // count
        shifts = np.arange(count, dtype=np.int64)[:, None] * width
        sources = terms.sources.reshape(count, -1) - shifts
        weights = None if terms.weights is None else terms.weight.reshape(count, -1)
        if not (
            _all_alike(lengths.reshape(count, -1))
            and _all_alike(sources)
            and (weights is None or _all_alike(weights))
        ):
            continue
        first = sources[0]
        if first.min() < 0 or first.max() >= width or _FILL * height * width > first.size:
            continue
        matrix = np.zeros((height, width))
        rows = np.repeat(np.arange(height), lengths[:height])
        np.add.at(matrix, (rows, first), 1.0 if weights is None else weights[0])
        return replace(terms, blocks=(count, matrix))
    return terms


def _all_alike(rows: Any) -> bool:
    return bool((rows == rows[0]).all())


def terms_of(ends: Ends, core: Core, pattern: SparsityPattern) -> Terms:
    """The assembly of a factor into ``pattern``.

    Raises ``Declined`` where a fixed entry falls outside of it.
    """
    if number_of_terms(ends, core) > INT32_MAX:
        raise Declined("it has more terms than 32-bit numbers count")
    left, right, middle = ends.M.tocsc(), ends.S, core.pattern
    (ptr, cols), width = _by_rows(pattern), pattern.shape[1]
    starts = np.zeros(pattern.nnz + 1, dtype=np.int32)
    (left_ptr, left_at), (mid_ptr, mid), (right_ptr, right_at) = map(
        _by_rows, (left, middle, right)
    )
    tables = (left_ptr, left_at, mid_ptr, mid, right_ptr, right_at)
    # A term outside of the pattern belongs to an entry that is zero at every point.
    kernels.count_terms(*tables, ptr, cols, width, starts)
    np.cumsum(starts, out=starts, dtype=np.int32)
    found, weights = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1])
    kernels.fill_terms(
        left_ptr, left_at, left.data, mid_ptr, mid, _sources(core),
        right_ptr, right_at, right.data, ptr, cols, width, starts, found, weights,
    )  # fmt: skip
    starts[1:] = starts[:-1]  # every run begins where the one before it has ended
    starts[0] = 0
    kept = kernels.merge_equal_terms(starts, found, weights)
    if kept < found.size:
        found, weights = found[:kept].copy(), weights[:kept].copy()
    template = _template(ends, pattern)
    if (weights == 1).all():
        return Terms(starts, found, None, template)
    codes, table = encoded(weights)
    if codes.itemsize > 2:
        return Terms(starts, found, weights, template)
    return Terms(starts, found, table, template, codes=codes)


def _template(ends: Ends, pattern: SparsityPattern) -> Floats | None:
    """What does not vary, in ``pattern``; None where it is zero throughout."""
    if not ends.D.nnz:
        return None
    template = np.zeros(pattern.nnz)
    direct = ends.D.T.tocsr()
    ptr, cols = _by_rows(pattern)
    if kernels.dense_entries(*_by_rows(direct), direct.data, ptr, cols, pattern.shape[1], template):
        raise Declined("a fixed entry falls outside of the pattern")
    return template if template.any() else None


def number_of_terms(ends: Ends, core: Core) -> int:
    """That every entry adds up, all together, before equal ones are merged."""
    into = np.diff(scipy.sparse.csr_array(ends.M).indptr)
    out_of = np.diff(ends.S.indptr)
    return int(kernels.number_of_terms(into, out_of, *_by_rows(core.pattern))) + int(ends.D.nnz)


def _by_rows(matrix: Any) -> tuple[Ints, Ints]:
    """Index arrays in the types that the kernels are compiled for."""
    return matrix.indptr.astype(np.int64, copy=False), matrix.indices.astype(np.int32, copy=False)


def _sources(core: Core) -> Ints:
    """Where each entry of the core stands in its products, flattened one after the other."""
    pattern = core.pattern
    m, n = pattern.shape
    split = core.choice.coloring.split.rows
    if split * n + (core.num_products - split) * m > INT32_MAX:
        raise Declined("its products are longer than 32-bit numbers count")
    return flattened(sources(pattern, core.choice.coloring), pattern.shape, split, np.int32)


def product_pattern(ends: Ends, core: Core) -> SparsityPattern:
    """Where the factor ``M' P S' + D'`` may have entries."""
    middle = core.pattern
    parts = (np.ones(middle.nnz), middle.indices, middle.indptr)
    marks = scipy.sparse.csr_array(parts, shape=middle.shape)
    product = scipy.sparse.csr_array(abs(ends.M.T) @ marks @ abs(ends.S.T) + abs(ends.D.T))
    product.sort_indices()
    return SparsityPattern._of_stored(product)
