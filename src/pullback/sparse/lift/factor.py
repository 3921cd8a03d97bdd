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
from ..coloring.recover import sources
from ..dependence import Dependence, Table
from ..graph import PullbackGraph
from ..pattern import INT32_MAX, SparsityPattern
from ..rules.base import Declined, Step
from . import kernels, linear
from .actions import Actions
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
    leading: dict[fx.Node, Any] = dict(zip(piece.starts, identity(starts), strict=True))
    later: list[fx.Node] = []
    for node in piece.fixed:
        inputs = [n for n in node.all_input_nodes if n in graph.linear]
        if all(n in leading for n in inputs):
            leading[node] = _applied(actions, node, leading)
        else:
            later.append(node)
    read = dict.fromkeys(n for node in piece.varying for n in node.all_input_nodes)
    entries = tuple(n for n in read if n in leading)
    results = [n for n in piece.ends if n is not None]
    wanted = dict.fromkeys([*(n for node in later for n in node.all_input_nodes), *results])
    exits = tuple(n for n in wanted if n in inside)
    size = sum(reals(metas[n]) for n in exits)
    width = size + sum(map(reals, starts))
    if width > INT32_MAX:
        raise Declined("it has more elements than 32-bit numbers count")
    known: dict[fx.Node, Any] = dict(
        zip(exits, identity([metas[n] for n in exits], width), strict=True)
    )
    shifted: dict[int, linear.Table] = {}
    for node in wanted:
        if node in leading:
            known[node] = _shifted(leading[node], size, width, shifted)
    for node in later:
        known[node] = _applied(actions, node, known)
    sizes = [
        reals(metas[n]) if n is not None else graph.primals[k].numel
        for k, n in enumerate(piece.ends)
    ]
    ends = [None if n is None else known[n] for n in piece.ends]
    whole = _rows(ends, sizes, width)
    moved = _rows([leading[n] for n in entries], [], width - size)
    by_column = whole.tocsc()
    return Ends(entries, exits, moved, by_column[:, :size], by_column[:, size:])


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
    for node in piece.varying:
        step = Step(graph, node, known)
        known[node] = detect.through(caller, step, relied, pessimistic)
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
    """``values[e] = template[e] + sum(weights[k] * f[sources[k]], starts[e] <= k < starts[e + 1])``

    ``weights`` is None where all are 1, ``template`` where all of it is 0. ``blocks``, if given, is
    ``(count, matrix)``: ``f`` cut into ``count`` runs gives as many runs of values, each of them
    ``matrix`` times its run.
    """

    starts: Ints
    sources: Ints
    weights: Floats | None
    template: Floats | None
    blocks: tuple[int, Floats] | None = None

    @property
    def nbytes(self) -> int:
        if self.blocks is not None:
            return self.blocks[1].nbytes
        arrays = (self.starts, self.sources, self.weights, self.template)
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
        weights = None if terms.weights is None else terms.weights.reshape(count, -1)
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
    left, right, middle = ends.M.tocsc(), ends.S, core.pattern
    (ptr, cols), width = _by_rows(pattern), pattern.shape[1]
    counts = np.zeros(pattern.nnz + 1, dtype=np.int64)
    (left_ptr, left_at), (mid_ptr, mid), (right_ptr, right_at) = map(
        _by_rows, (left, middle, right)
    )
    tables = (left_ptr, left_at, mid_ptr, mid, right_ptr, right_at)
    # A term outside of the pattern belongs to an entry that is zero at every point.
    kernels.count_terms(*tables, ptr, cols, width, counts)
    starts = np.cumsum(counts)
    total = int(starts[-1])
    if total > INT32_MAX:
        raise Declined("it has more terms than 32-bit numbers count")
    found = np.empty(total, dtype=np.int32)
    weights = np.empty(total)
    running = starts[:-1].copy()
    kernels.fill_terms(
        left_ptr, left_at, left.data, mid_ptr, mid, _sources(core),
        right_ptr, right_at, right.data, ptr, cols, width, running, found, weights,
    )  # fmt: skip
    kept = kernels.merge_equal_terms(starts, found, weights)
    template = np.zeros(pattern.nnz)
    direct = ends.D.T.tocsr()
    if kernels.dense_entries(*_by_rows(direct), direct.data, ptr, cols, width, template):
        raise Declined("a fixed entry falls outside of the pattern")
    plain = bool((weights[:kept] == 1).all())
    return Terms(
        starts.astype(np.int32), found[:kept].copy(), None if plain else weights[:kept].copy(),
        template if template.any() else None,
    )  # fmt: skip


def _by_rows(matrix: Any) -> tuple[Ints, Ints]:
    """Index arrays in the types that the kernels are compiled for."""
    return matrix.indptr.astype(np.int64, copy=False), matrix.indices.astype(np.int32, copy=False)


def _sources(core: Core) -> Ints:
    """Where each entry of the core stands in its products, flattened one after the other."""
    pattern = core.pattern
    m, n = pattern.shape
    found = sources(pattern, core.choice.coloring)
    split = core.choice.coloring.split.rows
    product = found.product.astype(np.int64)
    flat = np.where(product < split, product * n, split * n + (product - split) * m)
    largest = split * n + (core.num_products - split) * m
    if largest > INT32_MAX:
        raise Declined("its products are longer than 32-bit numbers count")
    places: Ints = (flat + found.position).astype(np.int32)
    return places


def product_pattern(ends: Ends, core: Core) -> SparsityPattern:
    """Where the factor ``M' P S' + D'`` may have entries."""
    middle = core.pattern
    parts = (np.ones(middle.nnz), middle.indices, middle.indptr)
    marks = scipy.sparse.csr_array(parts, shape=middle.shape)
    product = scipy.sparse.csr_array(abs(ends.M.T) @ marks @ abs(ends.S.T) + abs(ends.D.T))
    product.sort_indices()
    return SparsityPattern._of_stored(product)
