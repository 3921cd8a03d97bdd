"""The Jacobian of a function at a point, as a matrix that is multiplied and never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import _checks
from ._engines import chunks
from ._forward import forward_products
from ._gram import Side, gram, side_of
from ._linear import Forward, Products, RandomState, run
from ._named import wrt_of
from ._parted import PartedMatrix
from ._parts import Parts
from ._trees import from_vector, map_leaves, to_vector, total_numel

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class Matrix:
    """A matrix of shape (m, n) given by ``down`` (t to J t) and ``up`` (v to J' v)."""

    # numpy then leaves `array @ J` to __rmatmul__, which says what to write instead.
    __array_ufunc__ = None
    _name: str
    _reason: tuple[str, ...]

    def __init__(
        self, rows: Sequence[Tensor], columns: Sequence[Tensor], down: Products, up: Products
    ) -> None:
        self._rows, self._columns = rows, columns
        self._down, self._up = down, up
        self.shape = (total_numel(rows), total_numel(columns))
        self.dtype = reduce(torch.promote_types, (t.dtype for t in (*rows, *columns)))
        self.device = columns[0].device
        self._last: tuple[str, ...] = ()

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """``tensor @ J`` arrives here; Python alone would not get as far as ``__rmatmul__``."""
        if func in (Tensor.__matmul__, Tensor.matmul, torch.matmul) and len(args) == 2:
            left, right = args
            return right.__rmatmul__(left) if isinstance(right, Matrix) else left @ right
        return NotImplemented

    def matvec(self, t: Tensor) -> Tensor:
        """``J t``: shape (n,) to shape (m,)."""
        self._check("t", t, ("(n,)",))
        return self._flat(self._down.one(from_vector(t, self._columns)))

    def rmatvec(self, v: Tensor) -> Tensor:
        """``J' v``: shape (m,) to shape (n,)."""
        self._check("v", v, ("(m,)",))
        return self._flat(self._up.one(from_vector(v, self._rows)))

    def __matmul__(self, t: Tensor) -> Tensor:
        """``J t`` for t of shape (n,), or column by column for shape (n, k)."""
        self._check("t", t, ("(n,)", "(n, k)"))
        if t.ndim == 1:
            return self.matvec(t)
        return self._batch(self._down, from_vector(t.T, self._columns), None).T

    def __rmatmul__(self, v: Tensor) -> Tensor:
        """``v J`` for v of shape (m,), or row by row for shape (k, m)."""
        self._check("v", v, ("(m,)", "(k, m)"))
        if v.ndim == 1:
            return self.rmatvec(v)
        return self._batch(self._up, from_vector(v, self._rows), None)

    def to_scipy(self) -> LinearOperator:
        """A ``scipy.sparse.linalg.LinearOperator`` on numpy arrays of the same dtype.

        >>> import torch, pullback as pb
        >>> J = pb.JacobianOperator(torch.square, torch.tensor([1.0, 2.0]))
        >>> J.to_scipy().matvec([1.0, 10.0])
        array([ 2., 40.], dtype=float32)
        """
        from scipy.sparse.linalg import LinearOperator

        dtype = _checks.numpy_dtype(f"{self._name}.to_scipy", self.dtype)

        def on_arrays(product: Callable[[Tensor], Tensor], ndim: int) -> Callable[[Any], Any]:
            def apply(array: Any) -> Any:
                if np.iscomplexobj(array):
                    return apply(np.real(array)) + 1j * apply(np.imag(array))
                copied = np.array(array, dtype=dtype, order="C")  # strides may be negative
                given = torch.as_tensor(copied, dtype=self.dtype, device=self.device)
                return product(given.reshape(-1) if ndim == 1 else given).detach().cpu().numpy()

            return apply

        return LinearOperator(
            self.shape,
            matvec=on_arrays(self.matvec, 1),
            rmatvec=on_arrays(self.rmatvec, 1),
            matmat=on_arrays(self.__matmul__, 2),
            rmatmat=on_arrays(lambda v: self.__rmatmul__(v.T).T, 2),
            dtype=dtype,
        )

    def _check(self, name: str, value: object, shapes: Sequence[str]) -> None:
        size = self.shape[0] if name == "v" else self.shape[1]
        _checks.operand(
            self._name, name, value, (self.shape, self.dtype, self.device), size, shapes
        )

    def _flat(self, found: Sequence[Tensor]) -> Tensor:
        return to_vector(found).to(self.dtype)

    def _batch(self, products: Products, batch: Sequence[Tensor], chunk_size: int | None) -> Tensor:
        found = products.many(batch, chunk_size)
        self._last = found.reasons
        k = batch[0].shape[0]
        flat = [t.reshape(k, t[0].numel() if k else t.shape[1:].numel()) for t in found.gradients]
        return torch.cat(flat, dim=1).to(self.dtype)

    def _unit_products(
        self, products: Products, side: Sequence[Tensor], size: int, chunk_size: int | None
    ) -> Tensor:
        bytes_each = sum(self.shape) * self.dtype.itemsize
        blocks = [torch.zeros(0, sum(self.shape) - size, dtype=self.dtype, device=self.device)]
        for start, stop in chunks(size, chunk_size, bytes_each):
            units = torch.zeros(stop - start, size, dtype=self.dtype, device=self.device)
            units.diagonal(start).fill_(1)
            blocks.append(self._batch(products, from_vector(units, side), chunk_size))
        return torch.cat(blocks)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why a faster engine was left: for J t, and for the last batch of products."""
        return self._reason + self._last


class Point(NamedTuple):
    """One run of a function: what it gave, the function of its selected arguments, these, and the
    random state before it."""

    forward: Forward
    selected: Callable[..., Any]
    chosen: tuple[Any, ...]
    state: RandomState


def run_at(
    caller: str,
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    argnums: int | tuple[int, ...],
) -> Point:
    """Run ``func`` once for an operator, and refuse what no real matrix stands for."""
    places = _checks.argnums_for(caller, argnums, len(primals))

    def selected(*chosen: Any) -> Any:
        arguments = list(primals)
        for place, value in zip(places, chosen, strict=True):
            arguments[place] = value
        return func(*arguments)

    chosen = tuple(primals[place] for place in places)
    given = [t for t in _leaves(chosen) if isinstance(t, Tensor)]
    _checks.outside_transforms(caller, given)
    state = RandomState(given)
    forward = run(caller, selected, chosen, has_aux=False)
    outputs = _checks.leaves_of(caller, "out", forward.outputs)
    _checks.differentiable_outputs(caller, outputs)
    _checks.real(caller, outputs, "output")
    _checks.real(caller, _checks.leaves_of(caller, "primals", chosen), "input")
    return Point(forward, selected, chosen, state)


class JacobianOperator(Matrix, PartedMatrix):
    """The Jacobian of ``func`` at ``primals`` as a matrix to multiply, transpose and solve with.

    ``J.shape`` is (m, n): a row per output element and a column per element of the primals that
    ``argnums`` selects, in pytree order, each in C order. ``func`` runs once, here; after that

    - ``J @ t`` and ``J.matvec(t)`` take t of shape (n,) to (m,); ``J @ T`` takes (n, k) to (m, k);
    - ``v @ J`` and ``J.rmatvec(v)`` take v of shape (m,) to (n,); ``V @ J`` takes (k, m) to (k, n);
    - ``J.T`` is the transpose, ``J.to_dense()`` the matrix, ``J.to_scipy()`` SciPy's view of it;
    - ``J.diagonal()``, ``J.trace()``, ``J.rows(indices)``, ``J.columns(indices)``,
      ``J.row_sums()`` and ``J.block_diagonal()`` are parts of it at a price of their own, which
      ``J.cost_of(part)`` tells.

    ``J`` is the Jacobian of the backward pass, so ``v @ (J @ t)`` equals ``(v @ J) @ t`` always.
    ``J.engine`` says how J t is computed, ``J.notes`` why not in a faster way. The products are
    differentiable in t, v and whatever required grad when the operator was built.

    Args:
        func: called as ``func(*primals)``; returns a tensor or a pytree of tensors.
        primals: its arguments. Those that are not selected may be anything.
        argnums: the position of the selected argument, or a tuple of positions.
        wrt: for a module, the names of its tensors that the columns belong to, as for
            ``pb.jacobian``.

    Raises:
        ArgumentError: ``argnums`` or ``wrt`` names nothing; a selected primal or an output is not
            floating point; later, an operand has the wrong shape, dtype or device.
        UnsupportedError: a selected primal or an output is complex, or the operator is built
            inside a torch.func transform.

    >>> import torch, pullback as pb
    >>> J = pb.JacobianOperator(lambda x: x[1:] * x[:-1], torch.tensor([1.0, 2.0, 3.0]))
    >>> J.shape
    (2, 3)
    >>> J @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0]) @ J
    (tensor([2., 0.]), tensor([2., 4., 2.]))

    Method: J' v by reverse mode; J t as the VJP of the linear map ``v -> J' v`` (J. Townsend, "A
    new trick for calculating Jacobian vector products", 2017).
    """

    _name = "JacobianOperator"

    def __init__(
        self,
        func: Callable[..., Any],
        *primals: Any,
        argnums: int | tuple[int, ...] = 0,
        wrt: Any = None,
    ) -> None:
        named = wrt_of(self._name, func, wrt, argnums)
        if named is not None:
            func, primals = named.called, named.arguments(primals)
        forward, selected, chosen, state = run_at(self._name, func, primals, argnums)
        like = forward.products.like
        self._up_products = forward.products
        self._down: Products
        self.engine, self._down, self._reason = forward_products(forward, selected, chosen, state)
        super().__init__(forward.flat, like, self._down, forward.products)
        refusal = "; ".join(self._reason) if self.engine == "none" else ""
        self._parts = Parts(
            self._name, func, primals, argnums, self._up, self._down, (forward.flat, like), refusal
        )

    @property
    def T(self) -> Transpose:  # noqa: N802
        """The transpose, whose transpose is this operator."""
        return Transpose(self)

    def to_dense(self, chunk_size: int | None = None) -> Tensor:
        """The matrix itself, shape (m, n), by as many products as its shorter side has entries.

        ``chunk_size`` bounds how many products run at once; None lets a chunk's cotangents and
        gradients take 256 MiB.
        """
        _checks.chunk_size(f"{self._name}.to_dense", chunk_size)
        m, n = self.shape
        if m <= n or self.engine != "double VJP":
            return self._unit_products(self._up, self._rows, m, chunk_size)
        return self._unit_products(self._down, self._columns, n, chunk_size).T

    def gram(self, other: JacobianOperator | None = None, *, create_graph: bool = False) -> Tensor:
        """``J J'``, shape (m, m), symmetric bit for bit; or ``J K'``, shape (m, k), with another
        operator ``K`` of the same columns, of another batch for one.

        With respect to the parameters of a network this is the (empirical) neural tangent kernel.
        Samples that do not depend on each other are told apart by the pattern, and the inner
        products of two rows follow from those of the factors of a layer's gradient, so that J is
        not formed; where a layer has no such form its columns are, as many as fit into 256 MiB.

        Args:
            other: an operator with the same columns; None for this one.
            create_graph: form both matrices and keep the result differentiable in whatever required
                grad when they were built. Without it, the result has no graph.

        Raises:
            ArgumentError: ``other`` is no operator, or has other columns.

        >>> import torch, pullback as pb
        >>> net = torch.nn.Linear(2, 1)
        >>> J = pb.JacobianOperator(net, torch.tensor([[1.0, 0.0], [1.0, 2.0]]), wrt="parameters")
        >>> J.gram()
        tensor([[2., 2.],
                [2., 6.]])

        Method: R. Novak, J. Sohl-Dickstein and S. Schoenholz, "Fast finite width neural tangent
        kernel" (ICML 2022), with the structure read from the recorded backward pass.
        """
        other = self if other is None else other
        if not isinstance(other, JacobianOperator):
            raise _checks.not_an_operator(f"{self._name}.gram", other)
        mine, theirs = (_described(j._columns) for j in (self, other))
        _checks.same_columns(f"{self._name}.gram", mine, theirs)
        if create_graph:
            right = self.to_dense()
            return right @ (right if other is self else other.to_dense()).T
        dtype = torch.promote_types(self.dtype, other.dtype)
        return gram(self._side, other._side, dtype)

    @cached_property
    def _side(self) -> Side:
        return side_of(self._name, self._up_products)

    def __repr__(self) -> str:
        outputs, inputs = len(self._rows), len(self._columns)
        return (
            f"JacobianOperator(shape={self.shape}, dtype={_checks.dtype_text(self.dtype)}, "
            f"outputs={outputs}, inputs={inputs}, J t by {self.engine}, J' v by VJP)"
        )


class Transpose(Matrix):
    """The transpose of a Jacobian operator: shape (n, m), with the same methods."""

    _name = "JacobianOperator.T"

    def __init__(self, original: JacobianOperator) -> None:
        self._original = original
        self._reason = original._reason
        super().__init__(original._columns, original._rows, original._up, original._down)

    @property
    def T(self) -> JacobianOperator:  # noqa: N802
        """The operator itself."""
        return self._original

    def to_dense(self, chunk_size: int | None = None) -> Tensor:
        """The matrix itself, shape (n, m)."""
        return self._original.to_dense(chunk_size).T

    def __repr__(self) -> str:
        return f"{self._original!r}.T"


def _described(columns: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in columns]


def _leaves(tree: Any) -> list[Any]:
    leaves: list[Any] = []
    map_leaves(leaves.append, tree)
    return leaves
