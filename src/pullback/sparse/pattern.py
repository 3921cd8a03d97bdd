"""Which entries of a matrix may be nonzero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _checks, draw

if TYPE_CHECKING:
    import scipy.sparse
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Indices: TypeAlias = npt.NDArray[np.integer[Any]]
INT32_MAX = 2**31 - 1


def index_dtype(largest: int) -> type[np.signedinteger[Any]]:
    """The narrowest of int32 and int64 that holds ``largest``."""
    return np.int32 if largest <= INT32_MAX else np.int64


class SparsityPattern:
    """The places of an ``m x n`` matrix that may hold a nonzero, in CSR order.

    Row ``i`` may be nonzero in the columns ``indices[indptr[i]:indptr[i + 1]]``, ascending and
    without repeats. A pattern that holds every place keeps no indices until they are asked for.

    >>> import scipy.sparse
    >>> pattern = SparsityPattern.from_scipy(scipy.sparse.csr_array([[1.0, 0.0], [2.0, 3.0]]))
    >>> pattern.shape, pattern.nnz, pattern.rows.tolist(), pattern.cols.tolist()
    ((2, 2), 3, [0, 1, 1], [0, 0, 1])
    """

    _story: Any = None

    def __init__(self, shape: tuple[int, int], indptr: Indices, indices: Indices) -> None:
        self._shape = (int(shape[0]), int(shape[1]))
        self._indptr: Indices | None = indptr
        self._indices: Indices | None = indices
        self._nnz = int(indptr[-1])

    @classmethod
    def full(cls, shape: tuple[int, int]) -> SparsityPattern:
        """Every place; nothing of the size of the matrix is stored."""
        pattern = cls.__new__(cls)
        pattern._shape = (int(shape[0]), int(shape[1]))
        pattern._indptr = pattern._indices = None
        pattern._nnz = pattern._shape[0] * pattern._shape[1]
        return pattern

    @classmethod
    def from_scipy(cls, matrix: Any) -> SparsityPattern:
        """The stored places of a SciPy sparse array or matrix, explicit zeros among them.

        A place stored twice is one place. A dense NumPy array gives the places that are not zero
        (a nan is not). The matrix is read, never sorted or summed in place.

        Raises:
            TreeError: neither a SciPy matrix nor a NumPy array.
            ArgumentError: not 2-D, not of numbers, masked, or with indices outside its shape.

        >>> import numpy as np
        >>> SparsityPattern.from_scipy(np.eye(3) + np.eye(3, k=1))
        SparsityPattern 3 × 3, 5 nonzeros, density 56 %, 1 to 2 per row
        ┌──┐
        │⠙⠆│
        └──┘
        """
        _checks.matrix_for_pattern("SparsityPattern.from_scipy", matrix)
        if isinstance(matrix, np.ndarray):
            return cls._of_mask(np.asarray(matrix) != 0)
        return cls._of_stored(_marked(matrix))

    @classmethod
    def from_torch(cls, tensor: Tensor) -> SparsityPattern:
        """The nonzero places of a dense matrix, or the stored places of a sparse one.

        Dense: a nan is not zero. Layouts ``torch.sparse_coo`` and ``torch.sparse_csr``: explicit
        zeros are places, and a place stored twice is one place. Any dtype, any device.

        Raises:
            TreeError: not a tensor.
            ArgumentError: not 2-D, another layout, no values (meta), or indices outside the shape.

        >>> pattern = SparsityPattern.from_torch(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        >>> pattern.rows, pattern.cols
        (tensor([0]), tensor([1]))
        """
        import scipy.sparse

        tensor = _checks.tensor_for_pattern("SparsityPattern.from_torch", tensor)
        m, n = tensor.shape
        if tensor.layout == torch.strided:
            return cls._of_mask((tensor != 0).cpu().numpy())
        if tensor.layout == torch.sparse_csr:
            indptr = tensor.crow_indices().cpu().numpy()
            indices = tensor.col_indices().cpu().numpy()
            marks = np.ones(len(indices), dtype=bool)
            stored = scipy.sparse.csr_array((marks, indices, indptr), shape=(m, n))
            return cls._of_stored(_marked(stored))
        rows, cols = tensor.indices().cpu().numpy()
        marks = np.ones(len(rows), dtype=bool)
        return cls._of_stored(_marked(scipy.sparse.coo_array((marks, (rows, cols)), shape=(m, n))))

    @classmethod
    def _of_mask(cls, mask: npt.NDArray[np.bool_]) -> SparsityPattern:
        m, n = mask.shape
        indices = np.nonzero(mask)[1]
        indptr = np.concatenate(([0], np.cumsum(np.count_nonzero(mask, axis=1), dtype=np.int64)))
        return cls._of_arrays((m, n), indptr, indices)

    @classmethod
    def _of_stored(cls, matrix: scipy.sparse.csr_array) -> SparsityPattern:
        return cls._of_arrays(matrix.shape, matrix.indptr, matrix.indices)

    @classmethod
    def _of_arrays(
        cls, shape: tuple[int, int], indptr: Indices, indices: Indices
    ) -> SparsityPattern:
        m, n = shape
        nnz = int(indptr[-1])
        if nnz == m * n:
            return cls.full(shape)
        kind = index_dtype(max(nnz, n))
        return cls(shape, indptr.astype(kind, copy=False), indices.astype(kind, copy=False))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: ``(m, n)``."""
        return self._shape

    @property
    def nnz(self) -> int:
        """How many places may hold a nonzero."""
        return self._nnz

    @property
    def density(self) -> float:
        """``nnz / (m * n)``; 0 for a matrix without entries."""
        m, n = self._shape
        return self._nnz / (m * n) if m and n else 0.0

    @property
    def is_full(self) -> bool:
        """Whether every place may hold a nonzero."""
        return self._nnz == self._shape[0] * self._shape[1]

    @property
    def indptr(self) -> Indices:
        """Where each row starts in ``indices``: ``m + 1`` numbers."""
        if self._indptr is None:
            self._expand()
        assert self._indptr is not None
        return self._indptr

    @property
    def indices(self) -> Indices:
        """The column of every entry, CSR order."""
        if self._indices is None:
            self._expand()
        assert self._indices is not None
        return self._indices

    def _expand(self) -> None:
        m, n = self._shape
        kind = index_dtype(max(m * n, n))
        self._indptr = np.arange(m + 1, dtype=kind) * kind(n)
        self._indices = np.tile(np.arange(n, dtype=kind), m)

    @property
    def rows(self) -> Tensor:
        """The row of every entry: int64, shape ``(nnz,)``, CSR order. Made at each request."""
        counts = np.diff(self.indptr)
        return torch.from_numpy(np.repeat(np.arange(self._shape[0], dtype=np.int64), counts))

    @property
    def cols(self) -> Tensor:
        """The column of every entry: int64, shape ``(nnz,)``, CSR order. Made at each request."""
        return torch.from_numpy(self.indices.astype(np.int64))

    @property
    def T(self) -> SparsityPattern:  # noqa: N802
        """The pattern of the transposed matrix."""
        m, n = self._shape
        if self._indptr is None:
            return SparsityPattern.full((n, m))
        flipped = self._marks().T.tocsr()
        flipped.sort_indices()
        return SparsityPattern._of_arrays((n, m), flipped.indptr, flipped.indices)

    def mirrored(self) -> SparsityPattern:
        """The places whose mirror is a place too: all that a symmetric matrix can hold.

        >>> corner = SparsityPattern.from_scipy(np.array([[1, 1], [0, 1]]))
        >>> corner.mirrored().nnz
        2
        """
        if self.is_full:
            return self
        both = self._marks().multiply(self._marks().T).tocsr()
        both.sort_indices()
        found = SparsityPattern._of_stored(both)
        found._story = self._story
        return found

    def to_scipy(self) -> scipy.sparse.csr_array:
        """A boolean ``csr_array`` with True at every place. The array is the caller's to change.

        >>> SparsityPattern.full((1, 2)).to_scipy().toarray()
        array([[ True,  True]])
        """
        return self._marks().copy()

    def _marks(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        marks = np.ones(self._nnz, dtype=bool)
        return scipy.sparse.csr_array((marks, self.indices, self.indptr), shape=self._shape)

    def contains(self, other: SparsityPattern) -> bool:
        """Whether every place of ``other`` is a place of this one; False for another shape."""
        return self._shape == other._shape and self.missing(other) is None

    def missing(self, other: SparsityPattern) -> tuple[int, int] | None:
        """The first place, in CSR order, of ``other`` that this pattern lacks, or None.

        Raises:
            ArgumentError: the patterns have different shapes.

        >>> diagonal = SparsityPattern.from_scipy(np.eye(3))
        >>> diagonal.missing(SparsityPattern.full((3, 3))), diagonal.missing(diagonal)
        ((0, 1), None)
        """
        _checks.same_shape("SparsityPattern.missing", self._shape, other._shape)
        if self.is_full or other.nnz == 0:
            return None
        if other.is_full:
            return self._first_gap()
        lost = (other._marks() > self._marks()).tocoo()
        places = np.flatnonzero(lost.data)
        if places.size == 0:
            return None
        return int(lost.row[places[0]]), int(lost.col[places[0]])

    def _first_gap(self) -> tuple[int, int]:
        """The first place that a pattern which is not full lacks, without expanding a full one."""
        n = self._shape[1]
        row = int(np.flatnonzero(np.diff(self.indptr) < n)[0])
        cols = self.indices[self.indptr[row] : self.indptr[row + 1]]
        ahead = np.flatnonzero(cols != np.arange(len(cols)))
        return row, int(ahead[0]) if ahead.size else len(cols)

    def why(self, row: int | None = None, col: int | None = None) -> Any:
        """What made this pattern: of one entry, or of its density.

        ``why(i, j)`` gives the chain of calls that lets output element ``i`` depend on input
        element ``j``; ``why()`` the call that made the pattern dense. Both print as text.

        Raises:
            ArgumentError: the place is outside the matrix, or only one of ``row`` and ``col`` is
                given.
            UnsupportedError: the pattern was not found by this process: it was given, or loaded.

        >>> import torch, pullback as pb
        >>> plan = pb.plan_jacobian(lambda x: x.flip(0) * 2, torch.rand(3))
        >>> print(plan.pattern.why(0, 1))
        output[0] does not depend on x[1].
        """
        _checks.entry_of_pattern("SparsityPattern.why", row, col, self._shape)
        if self._story is None:
            raise _checks.pattern_without_story("SparsityPattern.why")
        return self._story.densest() if row is None else self._story.why(row, col)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparsityPattern):
            return NotImplemented
        if self._shape != other._shape or self._nnz != other._nnz:
            return False
        if self.is_full:
            return True
        return bool(
            np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        places = self._places()
        return "\n".join(
            [f"SparsityPattern {draw.places_facts(places)}", *draw.braille_lines(places)]
        )

    def plot(
        self,
        ax: Axes | None = None,
        *,
        colors: Sequence[int] | Tensor | npt.NDArray[Any] | None = None,
        by: Literal["columns", "rows"] = "columns",
        title: str = "Sparsity pattern",
    ) -> Figure:
        """Where the matrix may be nonzero, as a matplotlib figure; rows run downwards.

        A square per entry while both sides are short; else an image of blocks of entries, as dark
        as they are filled.

        Args:
            ax: the axes to draw in; by default those of a new figure.
            colors: whole numbers that tint the entries, such as the ``.colors`` of a coloring: one
                per column, or one per row with ``by="rows"``; -1 is gray. A block of several
                entries takes the color of one of them.
            by: whether ``colors`` counts columns or rows.
            title: written above the picture.

        Returns:
            The figure that holds the picture; ``figure.savefig(path)`` writes it.

        Raises:
            ArgumentError: ``colors`` are not whole numbers, one for each column (or row).
            TreeError: ``ax`` is not a matplotlib Axes.

        >>> pattern = SparsityPattern.from_scipy(np.eye(4))
        >>> figure = pattern.plot(colors=[0, 0, 0, 0])
        >>> figure.axes[0].get_title(loc="left")
        'Sparsity pattern'
        """
        from ..draw.figures import Tints, spy_figure

        caller = "SparsityPattern.plot"
        _checks.drawing_axes(caller, ax)
        _checks.one_of(caller, "by", by, ("columns", "rows"))
        tints = None
        if colors is not None:
            tints = Tints(_checks.entry_colors(caller, colors, by, self._shape), by)
        return spy_figure(self._places(), title, tints, ax)

    def _places(self) -> draw.Places:
        return draw.Places(self._shape, self._indptr, self._indices)


def _marked(matrix: Any) -> scipy.sparse.csr_array:
    """The stored places in canonical CSR order, in arrays that ``matrix`` does not share."""
    import scipy.sparse

    if matrix.format == "dia":
        # Its conversions drop stored zeros, which may be nonzero at another point.
        marks = np.ones(matrix.data.shape, dtype=bool)
        matrix = scipy.sparse.dia_array((marks, matrix.offsets), shape=matrix.shape)
    if matrix.format in ("csr", "csc"):
        nnz = int(matrix.indptr[-1])
        parts = (np.ones(nnz, dtype=bool), matrix.indices[:nnz], matrix.indptr)
        kind = scipy.sparse.csr_array if matrix.format == "csr" else scipy.sparse.csc_array
        marked = kind(parts, shape=matrix.shape, copy=True).tocsr()
    else:
        coo = matrix.tocoo()
        marks = np.ones(coo.nnz, dtype=bool)
        marked = scipy.sparse.coo_array((marks, (coo.row, coo.col)), shape=coo.shape).tocsr()
    marked.sum_duplicates()
    return marked
