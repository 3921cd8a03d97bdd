"""Scalar functions for ``minimize``: a value, a gradient, a sparse Hessian, products with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ... import _checks
from ..._hessian import Hessian, hessian
from ..._operator import JacobianOperator
from ..._products import VJP, vjp
from ...sparse.plan import Plan
from ._border import Array, Border, Watch, bits_of, outside_inference, own_array

# A matrix of a larger share of nonzeros is not worth forming for products alone.
_SPARSE = 0.25


def gradient_of(func: Callable[..., Any], caller: str) -> Callable[..., Tensor]:
    """The gradient of a scalar function in its first argument, as a function."""

    def gradient(x: Tensor, *args: Any) -> Tensor:
        value, pull = vjp(lambda x: _checks.solver_value(caller, func(x, *args)), x)
        found: Tensor = pull(torch.ones_like(value))[0]
        return found

    gradient.__wrapped__ = func  # type: ignore[attr-defined]
    return gradient


class Objective:
    """A scalar function of one array, with its derivatives: what ``objective`` returns.

    - ``fun(x)``: the value, a float; ``jac(x)``: the gradient, shape (n,). The backward pass of
      ``jac`` takes the graph of a ``fun`` at the same point, where nothing that ``func`` reads has
      changed in between;
    - ``both(x)``: the pair of them, for ``minimize(o.both, x0, jac=True)``;
    - ``hess(x)``: the Hessian, a ``csr_array`` of shape (n, n), or an array with ``dense=True``;
    - ``hessp(x, p)``: its product with p: by the sparse Hessian where that is planned, as it is
      once ``hess`` was called or where ``plan`` was given, else without forming it;
    - ``plan``: how the Hessian is computed, once it was asked for.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        border: Border,
        args: tuple[Any, ...],
        plan: Plan | None,
        dense: bool,
    ) -> None:
        caller = self._caller = "objective"
        _checks.flag(caller, "dense", dense)
        self._func, self._border, self._args, self._dense = func, border, args, dense
        self._gradient = gradient_of(func, caller)
        self._hessian: Hessian = hessian(func, plan=plan, layout="scipy")
        # One for the graph of a value, one for products: each is marked at its own time.
        self._watch, self._products_watch = Watch(func, args), Watch(func, args)
        self._point = b""
        self._pull: VJP | None = None
        self._products: tuple[bytes, Callable[[Tensor], Array]] | None = None
        self._forward(border.sample.clone())

    @property
    def plan(self) -> Plan | None:
        """How the Hessian is computed; None until it was asked for."""
        return self._hessian.plan

    @property
    def notes(self) -> tuple[str, ...]:
        """Why a faster way to the Hessian was left, if it was."""
        return self._hessian.notes

    @outside_inference
    def fun(self, x: ArrayLike) -> float:
        """The value at ``x``."""
        # A copy, because the graph holds it and solvers write into their points.
        tensor = self._border.tensor(self._caller, x, copy=True)
        value, self._pull = self._forward(tensor)
        self._watch.mark()
        self._point = bits_of(tensor)
        return float(value)

    @outside_inference
    def jac(self, x: ArrayLike) -> Array:
        """The gradient at ``x``: shape (n,)."""
        tensor = self._border.tensor(self._caller, x)
        pull, self._pull = self._pull, None
        if pull is None or self._point != bits_of(tensor) or not self._watch.holds():
            pull = self._forward(tensor)[1]
        return self._back(pull)

    @outside_inference
    def both(self, x: ArrayLike) -> tuple[float, Array]:
        """``(fun(x), jac(x))`` from one forward and one backward pass."""
        value, pull = self._forward(self._border.tensor(self._caller, x))
        return float(value), self._back(pull)

    @outside_inference
    def hess(self, x: ArrayLike) -> Any:
        """The Hessian at ``x``, of shape (n, n)."""
        tensor = self._border.tensor(self._caller, x)
        with torch.no_grad():
            matrix = self._hessian(tensor, *self._args)
        return matrix.toarray() if self._dense else matrix

    @outside_inference
    def hessp(self, x: ArrayLike, p: ArrayLike) -> Array:
        """The Hessian at ``x`` times ``p``; what can be kept from one p to the next is kept."""
        at, along = self._border.tensor(self._caller, x), self._border.tensor(self._caller, p)
        point = bits_of(at)
        watch = self._products_watch
        if self._products is None or self._products[0] != point or not watch.holds():
            products = self._products_at(at.clone())
            watch.mark()
            self._products = point, products
        return self._products[1](along)

    def _products_at(self, x: Tensor) -> Callable[[Tensor], Array]:
        plan = self._hessian.plan
        with torch.no_grad():
            if plan is not None and plan.pattern.nnz <= _SPARSE * self._border.size**2:
                matrix = self._hessian(x, *self._args)
                return lambda p: matrix @ p.cpu().numpy().reshape(-1)
            operator = JacobianOperator(self._gradient, x, *self._args)
        return lambda p: own_array(operator @ p.reshape(-1))

    def _forward(self, x: Tensor) -> tuple[Tensor, VJP]:
        def at(x: Tensor) -> Tensor:
            return _checks.solver_value(self._caller, self._func(x, *self._args))

        with torch.no_grad():
            value, pull = vjp(at, x)
        _checks.solver_scalar(self._caller, value)
        return value, pull

    def _back(self, pull: VJP) -> Array:
        with torch.no_grad():
            one = torch.ones_like(pull._outputs[0])
            return own_array(pull(one, retain_graph=False)[0])

    def refresh(self) -> None:
        """Forget what was captured of ``func``, and the last point."""
        self._hessian.refresh()
        self._point, self._pull, self._products = b"", None, None

    def __repr__(self) -> str:
        name = getattr(self._func, "__name__", type(self._func).__name__)
        return f"objective({name}): {self._border.size} unknowns"


@outside_inference
def objective(
    func: Callable[..., Any],
    x0: ArrayLike | Tensor,
    *,
    args: tuple[Any, ...] = (),
    plan: Plan | None = None,
    dense: bool = False,
) -> Objective:
    """A scalar function with its gradient and its sparse Hessian, as ``minimize`` takes them.

    "trust-constr" and "Newton-CG" take ``hess=o.hess`` sparse. "trust-krylov" and "trust-ncg" take
    no sparse matrix: give them ``hessp=o.hessp``. "trust-exact" and "dogleg" factorize the Hessian
    and need ``hess=o.hess`` with ``dense=True``.

    Args:
        func: called as ``func(x, *args)``; returns a tensor of one element.
        x0: an array or a tensor of the shape, dtype and device of x. Prefer float64.
        args: further arguments. Tensors among them may change between calls.
        plan: from ``pb.plan_hessian(func, x0, *args)``; None plans when ``hess`` is first called.
        dense: give the Hessian as an array.

    Raises:
        ArgumentError: ``x0`` is no array of real numbers, or the value has more than one element;
            later, an array of another size.
        TreeError: ``func`` does not return a tensor.
        UnsupportedError: ``x0`` is complex.

    >>> import numpy as np, torch, scipy.optimize
    >>> from pullback.interop.scipy import objective
    >>> o = objective(lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(),
    ...               np.zeros(50))
    >>> found = scipy.optimize.minimize(
    ...     o.fun, np.zeros(50), jac=o.jac, hess=o.hess, method="trust-constr")
    >>> bool(abs(found.x - 1).max() < 1e-6), o.plan.pattern.nnz
    (True, 148)
    """
    border = Border("objective", "x", x0)
    return Objective(func, border, tuple(args), plan, dense)
