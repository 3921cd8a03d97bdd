"""The Gauss-Newton matrix J' W J of a function, along the plan of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._jacobian import Jacobian, checked_layout
from ._trees import Structure
from .sparse.arguments import Arguments
from .sparse.layouts import matrix, refill
from .sparse.normal import NormalMatrix
from .sparse.pattern import SparsityPattern
from .sparse.plan import Plan
from .sparse.session import Session
from .sparse.weights import weights_of


class _Values(NamedTuple):
    plan: Plan
    values: Tensor
    arguments: Arguments
    out: Structure


class _JacobianValues(Jacobian):
    """A Jacobian whose values are not laid out as a matrix yet."""

    def _matrix(
        self, session: Session, plan: Plan, values: Tensor, arguments: Arguments, out: Structure
    ) -> Any:
        self._tell(session, plan)
        return _Values(plan, values, arguments, out)


@dataclass(frozen=True)
class _Selected:
    """Stands for the structure of outputs that are laid out as the selected arguments are."""

    rebuild: Callable[[Sequence[Any]], Any]


class GaussNewton:
    """A function that returns ``J' W J``: what ``pb.gauss_newton`` gives.

    ``plan`` is that of the Jacobian at the last call, ``engine`` says how its products were
    computed and ``notes`` why not in a faster way.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        argnums: int | tuple[int, ...],
        plan: Plan | None,
        layout: Any,
        chunk_size: int | None,
        has_aux: bool,
        trust_indices: bool,
        compile: bool,
    ) -> None:
        self._jacobian = _JacobianValues(
            func, argnums, plan, None, chunk_size, has_aux, trust_indices, False, compile,
            "gauss_newton",
        )  # fmt: skip
        self._layout, self._has_aux, self._func = layout, has_aux, func
        self._last: tuple[Plan, SparsityPattern | None, NormalMatrix, Plan] | None = None

    def __call__(self, *args: Any, weights: Any = None, out: Any = None) -> Any:
        """``J' W J`` at ``args``; with ``has_aux``, a pair of it and aux.

        ``weights`` is the diagonal of W, a number for each element of the outputs in their
        structure or as one vector of shape (m,), or W itself: an (m, m) matrix, dense or sparse, of
        torch or of SciPy; None is the identity. ``out``, a matrix that an earlier call returned,
        takes the new values and is returned.

        Raises:
            ArgumentError: ``weights`` has another shape; see ``Jacobian.__call__`` for the rest.
        """
        found = self._jacobian(*args)
        (plan, values, arguments, outputs), aux = found if self._has_aux else (found, None)
        weighed = weights_of("gauss_newton", weights, plan.outputs, outputs, values)
        normal, laid_out = self._planned(plan, weighed.pattern)
        product = normal.values(values, weighed.values)
        selected: Any = _Selected(arguments.in_selected)
        result = matrix(laid_out, product, self._layout, arguments, selected)
        if out is not None:
            result = refill(out, result, "gauss_newton")
        return (result, aux) if self._has_aux else result

    def _planned(self, plan: Plan, weights: SparsityPattern | None) -> tuple[NormalMatrix, Plan]:
        last = self._last
        if last is not None and last[0] is plan and _same(last[1], weights):
            return last[2], last[3]
        normal = NormalMatrix(plan.pattern, weights)
        laid_out = replace(plan, pattern=normal.pattern, outputs=plan.inputs)
        self._last = (plan, weights, normal, laid_out)
        return normal, laid_out

    @property
    def plan(self) -> Plan | None:
        return self._jacobian.plan

    @property
    def engine(self) -> str:
        return self._jacobian.engine

    @property
    def notes(self) -> tuple[str, ...]:
        return self._jacobian.notes

    def refresh(self) -> None:
        """Forget what was captured of ``func``: the next call looks at it anew."""
        self._jacobian.refresh()

    def __repr__(self) -> str:
        return repr(self._jacobian)


def _same(left: SparsityPattern | None, right: SparsityPattern | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.nnz == right.nnz and left.contains(right)


def gauss_newton(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    plan: Plan | None = None,
    layout: Any = None,
    compile: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
    *,
    trust_indices: bool = False,
) -> GaussNewton:
    """A function of the arguments of ``func`` that returns the Gauss-Newton matrix J' W J.

    For residuals r it is the part of the Hessian of ½ r' W r that first derivatives give, and with
    W the Hessian of a loss at the outputs the generalized Gauss-Newton matrix. J is computed along
    its plan; the places of the product are found once for each plan (and pattern of W), and its
    values multiplied without a search. A diagonal W gives a matrix that is symmetric to the last
    bit. It is (n, n), with a row and a column for each element of the selected arguments.

    Args:
        func: called as ``func(*args)``; returns a tensor or a pytree of tensors.
        argnums: the position of the argument to differentiate, or a tuple of positions.
        plan: of the Jacobian, from ``pb.plan_jacobian``. It is refused where it does not fit.
        layout: ``torch.strided``, ``torch.sparse_csr``, ``torch.sparse_coo``, or "scipy" for a
            ``scipy.sparse.csr_array``; None is CSR.
        compile: as for ``pb.jacobian``.
        chunk_size: as for ``pb.jacobian``.
        trust_indices: as for ``pb.jacobian``.
        has_aux: ``func`` returns ``(output, aux)``, and so does the result: ``(matrix, aux)``. For
            the residuals beside the matrix, return them twice: ``return r, r``.

    Raises:
        ArgumentError: an option is not one of those above; later, see ``GaussNewton.__call__``.

    >>> import torch, pullback as pb
    >>> residual = lambda x: torch.stack([x[0] * x[1], x[1] ** 2, x[2]])
    >>> x = torch.tensor([1.0, 2.0, 3.0])
    >>> pb.gauss_newton(residual)(x).to_dense()
    tensor([[ 4.,  2.,  0.],
            [ 2., 17.,  0.],
            [ 0.,  0.,  1.]])
    >>> pb.gauss_newton(residual)(x, weights=torch.tensor([1.0, 0.0, 2.0])).values()
    tensor([4., 2., 2., 1., 2.])

    Source: J. Nocedal and S. Wright, *Numerical Optimization*, 2nd ed., section 10.3; N.
    Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
    Computation 14, 2002.
    """
    csr = torch.sparse_csr
    layout = checked_layout("gauss_newton", plan, layout, chunk_size, has_aux, compile, csr)
    return GaussNewton(func, argnums, plan, layout, chunk_size, has_aux, trust_indices, compile)
