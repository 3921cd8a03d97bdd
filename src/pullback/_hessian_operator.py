"""The Hessian of a function at a point, as a matrix that is multiplied and never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._adjoint import is_adjoint, probe, python_nodes
from ._linear import ForwardProducts, Products
from ._operator import Matrix, Point, run_at
from ._parted import PartedMatrix
from ._parts import Parts
from .sparse.gradient import Gradient


class HessianOperator(Matrix, PartedMatrix):
    """The Hessian of ``func`` at ``primals`` as a matrix to multiply and solve with.

    ``func`` returns one number, or is weighed with ``cotangents``. ``H.shape`` is (n, n): a row
    and a column per element of the primals that ``argnums`` selects, in pytree order, each in C
    order. ``func`` and its backward run once, here; after that

    - ``H @ t`` and ``H.matvec(t)`` take t of shape (n,) to (n,); ``H @ T`` takes (n, k) to (n, k);
    - ``v @ H`` and ``H.rmatvec(v)`` are the same products, for the matrix is symmetric: ``H.T`` is
      ``H``;
    - ``H.to_dense()`` is the matrix, ``H.to_scipy()`` SciPy's view of it;
    - ``H.diagonal()``, ``H.trace()`` (the Laplacian), ``H.rows(indices)``,
      ``H.columns(indices)``, ``H.row_sums()`` and ``H.block_diagonal()`` are parts of it at a price
      of their own, which ``H.cost_of(part)`` tells.

    ``H`` is the Jacobian of what ``backward`` gives. ``H.engine`` says how products are computed:
    by a backward pass through the backward pass ("reverse over reverse"), or by ``torch.func.jvp``
    of the gradient ("forward over reverse") where torch cannot differentiate the backward pass
    again. ``H.notes`` says why. The products are differentiable in t and in whatever required grad
    when the operator was built.

    Args:
        func: called as ``func(*primals)``; returns a tensor of one element.
        primals: its arguments. Those that are not selected may be anything.
        argnums: the position of the selected argument, or a tuple of positions.
        cotangents: v, in the structure of the outputs of ``func``, which may then be any tensors:
            the Hessian is that of v · func.

    Raises:
        ArgumentError: ``argnums`` names no argument; a selected primal is not floating point;
            ``func`` returns more than one number; later, an operand has the wrong shape, dtype or
            device.
        UnsupportedError: a primal is complex; torch can differentiate the gradient in neither way;
            two random products show that it is not symmetric, so that it is the gradient of
            nothing; or the operator is built inside a torch.func transform.

    >>> import torch, pullback as pb
    >>> H = pb.HessianOperator(lambda x: (x[1:] * x[:-1] ** 2).sum(), torch.tensor([1.0, 2.0, 3.0]))
    >>> H @ torch.tensor([1.0, 0.0, 0.0]), H.diagonal(), H.trace()
    (tensor([4., 2., 0.]), tensor([4., 6., 0.]), tensor(10.))

    Method: reverse over reverse, H v as the gradient of <v, g> (B. Pearlmutter, "Fast exact
    multiplication by the Hessian", 1994); forward over reverse where that is left.
    """

    _name = "HessianOperator"
    _letter = "H"

    def __init__(
        self,
        func: Callable[..., Any],
        *primals: Any,
        argnums: int | tuple[int, ...] = 0,
        cotangents: Any = None,
    ) -> None:
        weighed = cotangents is not None
        gradient = Gradient(self._name, func, argnums, weighed=weighed)
        primals, argnums = (*primals, *[cotangents] * weighed), gradient.argnums
        point = run_at(self._name, gradient, primals, argnums)
        self.engine, products, self._reason = _hessian_products(self._name, point)
        flat, like = point.forward.flat, point.forward.products.like
        super().__init__(flat, like, products, products)
        self._parts = Parts(
            self._name, gradient, primals, argnums, products, products, (flat, like), symmetric=True
        )

    @property
    def T(self) -> HessianOperator:  # noqa: N802
        """The operator itself: a Hessian is symmetric."""
        return self

    def to_dense(self, chunk_size: int | None = None) -> Tensor:
        """The matrix itself, shape (n, n), by n products.

        ``chunk_size`` bounds how many products run at once; None lets a chunk's vectors and
        products take 256 MiB.
        """
        _checks.chunk_size(f"{self._name}.to_dense", chunk_size)
        return self._unit_products(self._up, self._rows, self.shape[0], chunk_size)

    def __repr__(self) -> str:
        dtype = _checks.dtype_text(self.dtype)
        return (
            f"HessianOperator(shape={self.shape}, dtype={dtype}, inputs={len(self._columns)}, "
            f"H t by {self.engine})"
        )


def _hessian_products(caller: str, point: Point) -> tuple[str, Products, tuple[str, ...]]:
    """How H t is computed: the engine, its products, and why not by the first one.

    Either way has to be symmetric at a random point first.
    """
    up = point.forward.products
    strict = python_nodes(up.outputs) != set()
    try:
        symmetric = _is_symmetric(up, up.outputs, up.like, strict)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        refused = error
    else:
        if not symmetric:
            raise _checks.gradient_of_nothing(caller)
        return "reverse over reverse", up, ()
    products = ForwardProducts(point.selected, point.chosen, point.forward.flat, point.state)
    try:
        symmetric = _is_symmetric(products, up.outputs, up.like, strict)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise _checks.no_hvp(caller, refused, error) from error
    if not symmetric:
        raise _checks.gradient_of_nothing(caller)
    reason = f"reverse over reverse was left: {_checks.first_line(refused)}"
    return "forward over reverse", products, (reason,)


def _is_symmetric(
    products: Products, outputs: Sequence[Tensor], like: Sequence[Tensor], strict: bool
) -> bool:
    """<u, H w> = <w, H u>, which H' w in place of H w has to satisfy as well."""
    with torch.no_grad():
        tangents = [probe(t).detach() for t in like]
        return is_adjoint(products.one, outputs, tangents, products.one(tangents), strict)
