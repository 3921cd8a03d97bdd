"""The parts of an operator that can be asked for by name: diagonal, rows, blocks, sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _checks, _torch
from ._parts import Cost, Parts, Way
from .sparse.pattern import SparsityPattern
from .sparse.samples import prove, samples_of
from .sparse.wanted import Wanted

PARTS = ("row_sums", "rows", "columns", "diagonal", "trace", "block_diagonal")
_ESTIMATE = "or estimate it: the mean of v * ({0} @ v) over a few v of random signs"
_SOME = "or take some of it, {0}.rows(indices)"


class PartedMatrix:
    """What a matrix that is given by products says of its parts.

    The pattern of the matrix is found once, by one backward pass. Entries that cannot meet share
    a product, so that most parts take far fewer products than the matrix has rows.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    _name: str
    _letter = "J"
    _parts: Parts
    matvec: Callable[[Tensor], Tensor]

    def row_sums(self, max_products: int | None = None) -> Tensor:
        """The sum of every row, ``J 1``: shape (m,), by one product.

        Raises:
            ArgumentError: ``max_products`` is no whole number.
            UnsupportedError: there are no products J t, or ``max_products`` is 0.

        >>> import torch, pullback as pb
        >>> pb.JacobianOperator(lambda x: x[1:] * x[:-1], torch.tensor([1.0, 2.0, 3.0])).row_sums()
        tensor([3., 5.])

        Method: a directional derivative along the vector of ones.
        """
        self._limited("row_sums", max_products, 1)
        return self.matvec(torch.ones(self.shape[1], dtype=self.dtype, device=self.device))

    def rows(self, indices: Iterable[int] | Tensor, max_products: int | None = None) -> Tensor:
        """The rows ``indices``, dense: shape (k, n), by at most k products.

        Rows that meet in no column share one. ``indices`` count from 0, or from -1 at the end, and
        may repeat.

        Raises:
            ArgumentError: ``indices`` are no whole numbers, or no rows of the matrix;
                ``max_products`` is no whole number.
            UnsupportedError: it takes more than ``max_products``.

        >>> import torch, pullback as pb
        >>> J = pb.JacobianOperator(lambda x: x.sin() * x, torch.zeros(6))
        >>> J.rows([0, -1]).shape, J.cost_of("rows", [0, -1]).products
        (torch.Size([2, 6]), 1)

        Method: row compression (A. Curtis, M. Powell and J. Reid, "On the estimation of sparse
        Jacobian matrices", 1974).
        """
        way, again = self._of_lines("rows", indices)
        return self._read("rows", way, max_products)[again]

    def columns(self, indices: Iterable[int] | Tensor, max_products: int | None = None) -> Tensor:
        """The columns ``indices``, dense: shape (m, k), by at most k products.

        Columns that meet in no row share one. Where torch has no products J t, they are read from
        the rows that they meet, which may be more. ``indices`` are as in ``rows``.

        Raises:
            ArgumentError: ``indices`` are no whole numbers, or no columns of the matrix;
                ``max_products`` is no whole number.
            UnsupportedError: it takes more than ``max_products``.

        >>> import torch, pullback as pb
        >>> J = pb.JacobianOperator(lambda x: x.cumsum(0) ** 2, torch.tensor([1.0, 2.0, 3.0]))
        >>> J.columns([0])
        tensor([[ 2.],
                [ 6.],
                [12.]])

        Method: column compression (A. Curtis, M. Powell and J. Reid, "On the estimation of sparse
        Jacobian matrices", 1974).
        """
        way, again = self._of_lines("columns", indices)
        return self._read("columns", way, max_products)[:, again]

    def diagonal(self, max_products: int | None = None) -> Tensor:
        """The entries (i, i): shape (min(m, n),).

        Only these are to be told from what shares their products, which takes fewer of them than
        the whole: 2 where the matrix is tridiagonal, 1 where it is diagonal.

        Raises:
            UnsupportedError: it takes as many products as the whole matrix and ``max_products``
                does not allow for them; the message says how many and which call is to blame.
            ArgumentError: ``max_products`` is no whole number.

        >>> import torch, pullback as pb
        >>> x = torch.tensor([1.0, 2.0, 3.0])
        >>> J = pb.JacobianOperator(lambda x: x**2 + x.roll(1), x)
        >>> J.diagonal(), J.cost_of("diagonal").products
        (tensor([2., 4., 6.]), 1)

        Method: partial distance-1 coloring (A. Gebremedhin, F. Manne and A. Pothen, "What color is
        your Jacobian?", SIAM Review 47, 2005, section 7), or the products of a lifted graph.
        """
        return self._read("diagonal", self._way("diagonal"), max_products, _ESTIMATE)

    def trace(self, max_products: int | None = None) -> Tensor:
        """The sum of the diagonal: a tensor of shape (). Of a vector field the divergence, of a
        Hessian the Laplacian.

        Raises:
            UnsupportedError: as ``diagonal``.
            ArgumentError: ``max_products`` is no whole number.

        >>> import torch, pullback as pb
        >>> pb.JacobianOperator(lambda x: x**2 + x.roll(1), torch.tensor([1.0, 2.0, 3.0])).trace()
        tensor(12.)

        Method: the sum of ``diagonal``.
        """
        return self._read("trace", self._way("diagonal"), max_products, _ESTIMATE).sum()

    def block_diagonal(self, blocks: int | None = None, max_products: int | None = None) -> Tensor:
        """The blocks along the diagonal: shape (B, q, p), of q rows and p columns each.

        By default there is one for each sample of a batch: B is the length of the first axis,
        which all outputs and selected inputs must share, and block b holds the derivatives of all
        outputs of sample b by all its inputs, in pytree order. The pattern has to prove that no
        sample depends on another. With a number of ``blocks`` the matrix is cut into so many runs
        of rows and of columns, and entries outside the blocks are left out.

        Raises:
            UnsupportedError: samples depend on each other: the message names two of them and the
                call that couples them. Or it takes as many products as the whole matrix, and
                ``max_products`` does not allow for them.
            ArgumentError: there is no common first axis, or the matrix cannot be cut into
                ``blocks``.

        >>> import torch, pullback as pb
        >>> J = pb.JacobianOperator(lambda x: x.flip(1) * x, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> J.block_diagonal()
        tensor([[[2., 1.],
                 [2., 1.]],
        <BLANKLINE>
                [[4., 3.],
                 [4., 3.]]])

        Method: rows of different blocks share products (A. Curtis, M. Powell and J. Reid, 1974).
        """
        caller = f"{self._name}.block_diagonal"
        _checks.product_limit(caller, max_products)
        way, count = self._of_blocks(caller, blocks)
        return self._read("block_diagonal", way, max_products, _SOME, always=count < 2)

    def cost_of(self, part: str, *arguments: Any) -> Cost:
        """How many products a part takes, without running them: a ``Cost``.

        ``part`` is the name of a method, "row_sums", "rows", "columns", "diagonal", "trace" or
        "block_diagonal", and ``arguments`` are what it would be called with. ``products`` of the
        result is their number, ``whole`` that of all the matrix, ``reason`` says how they are
        made up. The structure is found by one backward pass, when it is first asked for.

        Raises:
            ArgumentError: ``part`` names no part; ``arguments`` are not those of the method.
            UnsupportedError: as the method, but never for its price.

        >>> import torch, pullback as pb
        >>> J = pb.JacobianOperator(lambda x: x[1:] * x[:-1], torch.rand(1000))
        >>> J.cost_of("diagonal")
        Cost(products=2, whole=999, reason='2 VJPs show every entry of it')
        """
        _checks.one_of(f"{self._name}.cost_of", "part", part, PARTS)
        whole = self._parts.whole
        if part == "row_sums":
            return Cost(1, whole, "1 JVP with the vector of ones")
        if part == "block_diagonal":
            way, _ = self._of_blocks(f"{self._name}.{part}", *arguments[:1])
        elif part in ("rows", "columns"):
            way, _ = self._of_lines(part, *arguments[:1])
        else:
            way = self._way("diagonal")
        return Cost(way.num_products, whole, way.reason)

    def _read(
        self,
        method: str,
        way: Way,
        limit: int | None,
        instead: str = "",
        *,
        always: bool | None = None,
    ) -> Tensor:
        _checks.product_limit(f"{self._name}.{method}", limit)
        always = not instead if always is None else always
        instead = (instead or "or ask for fewer at a time").format(self._letter)
        self._parts.admit(method, way, limit, instead, always=always)
        return self._parts.read(way)

    def _limited(self, method: str, limit: int | None, needed: int) -> None:
        caller = f"{self._name}.{method}"
        _checks.product_limit(caller, limit)
        if limit is not None and limit < needed:
            raise _checks.too_expensive(
                caller, needed, self._parts.whole, limit, "no fewer give it", "or leave it out"
            )

    def _way(self, kind: str) -> Way:
        assert kind == "diagonal"
        return self._parts.way(kind, _diagonal)

    def _of_lines(self, side: str, indices: Any = None) -> tuple[Way, Tensor]:
        axis = 0 if side == "rows" else 1
        caller = f"{self._name}.{side}"
        asked = _checks.places_of_matrix(caller, indices, self.shape[axis], side[:-1])
        lines, again = np.unique(np.asarray(asked, dtype=np.int64), return_inverse=True)
        way = self._parts.way(None, lambda pattern: _lines(pattern, lines, axis))
        return way, torch.from_numpy(again.astype(np.int64)).to(self.device)

    @_torch.runs_unwatched
    def _of_blocks(self, caller: str, blocks: int | None = None) -> tuple[Way, int]:
        parts = self._parts
        if blocks is not None:
            count = _checks.number_of_blocks(caller, blocks, self.shape)
            return parts.way(("blocks", count), lambda pattern: _cut(pattern, count)), count
        samples = samples_of(caller, *parts.leaves)
        if parts.couples(samples):
            prove(caller, parts.told, samples)
            prove(caller, parts.pattern, samples)
        make = lambda pattern: _of_samples(pattern, samples)  # noqa: E731
        return parts.way(("samples", samples.count), make), samples.count


def _diagonal(pattern: SparsityPattern) -> Wanted:
    size = min(pattern.shape)
    if pattern.is_full:
        there = np.arange(size, dtype=np.int64)
    else:
        counts = np.diff(pattern.indptr)
        rows = np.repeat(np.arange(pattern.shape[0], dtype=pattern.indices.dtype), counts)
        there = rows[rows == pattern.indices].astype(np.int64)
    return Wanted(there, there, there, (size,))


def _lines(pattern: SparsityPattern, lines: Any, axis: int) -> Wanted:
    """Some rows (``axis`` 0) or columns."""
    m, n = pattern.shape
    shape = (lines.size, n) if axis == 0 else (m, lines.size)
    if pattern.is_full:
        other = np.arange(n if axis == 0 else m, dtype=np.int64)
        which, rest = np.repeat(np.arange(lines.size), other.size), np.tile(other, lines.size)
    else:
        flipped = pattern if axis == 0 else pattern.T
        if flipped.is_full:
            return _lines(flipped, lines, axis)
        starts, counts = flipped.indptr[:-1][lines], np.diff(flipped.indptr)[lines]
        which = np.repeat(np.arange(lines.size), counts)
        firsts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        at = np.arange(which.size) - np.repeat(firsts, counts) + np.repeat(starts, counts)
        rest = flipped.indices[at].astype(np.int64)
    if axis == 0:
        return Wanted(lines[which], rest, which * n + rest, shape)
    return Wanted(rest, lines[which], rest * lines.size + which, shape)


def _entries(pattern: SparsityPattern) -> tuple[Any, Any]:
    counts = np.diff(pattern.indptr)
    rows = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), counts)
    return rows, pattern.indices.astype(np.int64)


def _cut(pattern: SparsityPattern, count: int) -> Wanted:
    q, p = (size // count for size in pattern.shape)
    rows, cols = _entries(pattern)
    inside = (rows // max(q, 1)) == (cols // max(p, 1))
    rows, cols = rows[inside], cols[inside]
    return Wanted(rows, cols, rows * p + cols % max(p, 1), (count, q, p))


def _of_samples(pattern: SparsityPattern, samples: Any) -> Wanted:
    rows, cols = _entries(pattern)
    count, p = samples.count, samples.width
    q = samples.height
    places = samples.of_rows[rows] * (q * p) + samples.above[rows] * p + samples.within[cols]
    return Wanted(rows, cols, places, (count, q, p))
