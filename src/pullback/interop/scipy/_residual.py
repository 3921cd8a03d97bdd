"""Vector functions for solvers: a value, a planned sparse Jacobian, both at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ... import _checks, _torch
from ..._hessian import Hessian, hessian
from ..._jacobian import Jacobian, jacobian
from ..._operator import JacobianOperator
from ...sparse.plan import Plan
from ._border import Array, Border, Watch, bits_of, outside_inference, own_array, returning_twice


class _Planned:
    """A function of one array ``x``, at place ``at`` of the arguments of ``func``.

    ``before`` stands for what the solver passes ahead of it, as tensors.
    """

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        border: Border,
        before: tuple[Tensor, ...],
        args: tuple[Any, ...],
        plan: Plan | None,
        options: dict[str, Any],
        together: bool = False,
    ) -> None:
        self._caller, self._func, self._border, self._args = caller, func, border, args
        self._dense = options.pop("dense")
        _checks.flag(caller, "dense", self._dense)
        self._at = len(before)
        common = {"argnums": self._at, "plan": plan, "layout": "scipy", **options}
        # The value that comes along costs another forward pass, where it is not asked for.
        self._alone: Jacobian = jacobian(func, **common)
        self._valued: Jacobian = jacobian(returning_twice(func, caller), has_aux=True, **common)
        self._planned = self._valued if together else self._alone
        self._look(before)

    def _look(self, before: tuple[Tensor, ...]) -> None:
        """Plan at the sample."""
        self._at_sample = self._run(*before, self._border.sample.clone())
        with torch.no_grad():
            self._planned(*before, self._border.sample.clone(), *self._args)

    @property
    def plan(self) -> Plan:
        """How the Jacobian is computed: see ``pb.plan_jacobian``."""
        assert self._planned.plan is not None
        return self._planned.plan

    @property
    def notes(self) -> tuple[str, ...]:
        """Why a faster way was left, if it was."""
        return self._planned.notes

    @property
    def jac_sparsity(self) -> csr_array:
        """Where the Jacobian may be nonzero: what SciPy's finite differences take."""
        return self.plan.pattern.to_scipy()

    def _run(self, *args: Tensor) -> Tensor:
        with torch.no_grad():
            found = _checks.solver_value(self._caller, self._func(*args, *self._args))
        if _torch.version_of(args[self._at]):
            raise _checks.written_argument(self._caller, self._border.name)
        return found

    def _value(self, *args: Tensor) -> Array:
        return own_array(self._run(*args))

    def _matrix(self, *args: Tensor) -> Any:
        with torch.no_grad():
            matrix = self._alone(*args, *self._args)
        return matrix.toarray() if self._dense else matrix

    def _both(self, *args: Tensor) -> tuple[Array, Any]:
        with torch.no_grad():
            matrix, value = self._valued(*args, *self._args)
        return own_array(value), matrix.toarray() if self._dense else matrix

    def refresh(self) -> None:
        """Forget what was captured of ``func``: the next Jacobian looks at it anew."""
        self._alone.refresh()
        self._valued.refresh()

    def __repr__(self) -> str:
        name = getattr(self._func, "__name__", type(self._func).__name__)
        plan = self.plan
        (m, n), count = plan.pattern.shape, plan.num_products
        products = f"{plan.pattern.nnz} nonzeros, {count} product{'s' * (count != 1)}"
        return f"{self._caller}({name}): Jacobian {m} × {n}, {products}"


class Residual(_Planned):
    """A vector function of one array, with its Jacobian: what ``residual`` returns.

    - ``fun(x)``: the value, shape (m,);
    - ``jac(x)``: the Jacobian, a ``csr_array`` of shape (m, n), or an array with ``dense=True``;
    - ``both(x)``: the pair of them, from one evaluation;
    - ``hess(x, v)``: the Hessian of ``v . func(x)``, for a ``NonlinearConstraint``;
    - ``linear_operator(x)``: the Jacobian as a ``LinearOperator``, never formed;
    - ``plan`` and ``jac_sparsity``: how many products it takes, and where it may be nonzero.

    All arrays that come out are the caller's: no later call writes into them.
    """

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        border: Border,
        args: tuple[Any, ...],
        plan: Plan | None,
        together: bool,
        options: dict[str, Any],
    ) -> None:
        _checks.flag(caller, "together", together)
        super().__init__(caller, func, border, (), args, plan, options, together)
        self._watch = Watch(func, args) if together else None
        self._point = b""
        self._known: tuple[Array | None, Any] = None, None
        self._hessian: Hessian = hessian(func, layout="scipy")

    @outside_inference
    def fun(self, x: ArrayLike) -> Array:
        """The value at ``x``: an array of shape (m,) and the dtype of the function."""
        tensor = self._border.tensor(self._caller, x)
        if self._watch is None:
            return self._value(tensor)
        if self._is_known(tensor) and self._known[0] is not None:
            return self._known[0].copy()
        value, matrix = self._both(tensor)
        self._keep(tensor, value.copy(), matrix)
        return value

    @outside_inference
    def jac(self, x: ArrayLike) -> Any:
        """The Jacobian at ``x``, of shape (m, n)."""
        tensor = self._border.tensor(self._caller, x)
        if self._watch is None:
            return self._matrix(tensor)
        if self._is_known(tensor) and (matrix := self._known[1]) is not None:
            self._known = self._known[0], None  # whoever has it may write into it
            return matrix
        value, matrix = self._both(tensor)
        self._keep(tensor, value, None)
        return matrix

    @outside_inference
    def both(self, x: ArrayLike) -> tuple[Array, Any]:
        """``(fun(x), jac(x))`` from one evaluation, for ``root(r.both, x0, jac=True)``."""
        return self._both(self._border.tensor(self._caller, x))

    @outside_inference
    def hess(self, x: ArrayLike, v: ArrayLike) -> Any:
        """The Hessian of ``v . func(x)`` in x, of shape (n, n): sparse, planned once."""
        tensor = self._border.tensor(self._caller, x)
        weights = np.ascontiguousarray(v, dtype=np.float64)
        _checks.solver_array(
            self._caller, "v", weights, self._at_sample.numel(), tuple(self._at_sample.shape)
        )
        given = torch.from_numpy(weights.copy()).to(self._at_sample).view(self._at_sample.shape)
        with torch.no_grad():
            matrix = self._hessian(tensor, *self._args, cotangents=given)
        return matrix.toarray() if self._dense else matrix

    @outside_inference
    def linear_operator(self, x: ArrayLike) -> LinearOperator:
        """The Jacobian at ``x`` as products J t and J' v, without forming it."""
        tensor = self._border.tensor(self._caller, x).clone()
        with torch.no_grad():
            return JacobianOperator(self._func, tensor, *self._args).to_scipy()

    def _is_known(self, x: Tensor) -> bool:
        assert self._watch is not None
        return self._point == bits_of(x) and self._watch.holds()

    def _keep(self, x: Tensor, value: Array, matrix: Any) -> None:
        assert self._watch is not None
        self._watch.mark()
        self._point, self._known = bits_of(x), (value, matrix)

    def refresh(self) -> None:
        """Forget what was captured of ``func``, and the last point."""
        super().refresh()
        self._hessian.refresh()
        self._point, self._known = b"", (None, None)


class Ode(_Planned):
    """The right-hand side of y' = f(t, y), with its Jacobian in y: what ``ode`` returns.

    - ``fun(t, y)``: the rate, shape (n,);
    - ``jac(t, y)``: its Jacobian, a ``csr_array`` of shape (n, n), or an array with ``dense=True``;
    - ``plan`` and ``jac_sparsity``: how many products it takes, and where it may be nonzero.
    """

    @outside_inference
    def fun(self, t: float, y: ArrayLike) -> Array:
        """The rate at ``(t, y)``: an array of shape (n,)."""
        return self._value(self._time(t), self._border.tensor(self._caller, y))

    @outside_inference
    def jac(self, t: float, y: ArrayLike) -> Any:
        """The Jacobian of the rate in y, of shape (n, n)."""
        return self._matrix(self._time(t), self._border.tensor(self._caller, y))

    def _time(self, t: float) -> Tensor:
        return time_of(t, self._border)


def time_of(t: float, border: Border) -> Tensor:
    """A tensor, so that another time is another content and no other function."""
    return torch.tensor(float(t), dtype=border.sample.dtype, device=border.sample.device)


@outside_inference
def residual(
    func: Callable[..., Any],
    x0: ArrayLike | Tensor,
    *,
    args: tuple[Any, ...] = (),
    plan: Plan | None = None,
    dense: bool = False,
    together: bool = False,
    compile: bool = False,
    chunk_size: int | None = None,
    trust_indices: bool = False,
) -> Residual:
    """A vector function and its sparse Jacobian, as ``least_squares``, ``root`` and others take.

    ``func`` maps a tensor of the shape of ``x0`` to a tensor of any shape. It is planned here,
    once; solvers then pass flat numpy arrays, which it sees without a copy where the dtype is its
    own. ``fun`` runs ``func`` itself, ``jac`` the planned products.

    Args:
        func: called as ``func(x, *args)``; returns one tensor.
        x0: an array or a tensor of the shape, dtype and device of x. Prefer float64.
        args: further arguments. Tensors among them may change between calls.
        plan: from ``pb.plan_jacobian(func, x0, *args)``; None plans here.
        dense: give the Jacobian as an array, which ``root`` with method "hybr" or "lm", and
            ``least_squares`` with ``tr_solver="exact"`` need.
        together: let ``fun`` evaluate the Jacobian as well, and keep it for a ``jac`` at the same
            point: one forward pass less for a solver that asks for both wherever it goes. What
            ``func`` reads besides its arguments is compared in between.
        compile: as for ``pb.jacobian``.
        chunk_size: as for ``pb.jacobian``.
        trust_indices: as for ``pb.jacobian``.

    Raises:
        ArgumentError: ``x0`` is no array of real numbers, or ``plan`` does not fit; later, an array
            of another size.
        TreeError: ``func`` does not return one tensor.
        UnsupportedError: ``x0`` is complex.

    >>> import numpy as np, torch, scipy.optimize
    >>> from pullback.interop.scipy import residual
    >>> r = residual(lambda x: torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]), -np.ones(4))
    >>> r
    residual(<lambda>): Jacobian 6 × 4, 9 nonzeros, 1 product
    >>> found = scipy.optimize.least_squares(r.fun, -np.ones(4), jac=r.jac)
    >>> found.x.round(6)
    array([1., 1., 1., 1.])
    """
    options = {
        "dense": dense, "compile": compile, "chunk_size": chunk_size,
        "trust_indices": trust_indices,
    }  # fmt: skip
    border = Border("residual", "x", x0)
    return Residual("residual", func, border, tuple(args), plan, together, options)


@outside_inference
def ode(
    func: Callable[..., Any],
    y0: ArrayLike | Tensor,
    t0: float = 0.0,
    *,
    args: tuple[Any, ...] = (),
    plan: Plan | None = None,
    dense: bool = False,
    compile: bool = False,
    chunk_size: int | None = None,
    trust_indices: bool = False,
) -> Ode:
    """The right-hand side of y' = func(t, y) and its sparse Jacobian, as ``solve_ivp`` takes them.

    Usage: ``s = ode(func, y0)``, then ``solve_ivp(s.fun, span, y0, method="BDF", jac=s.jac)``, or
    "Radau". ``y0`` may have any shape; the solver's arrays are flat: ``y0.reshape(-1)``.

    Args:
        func: called as ``func(t, y, *args)`` with t a tensor without axes, of the dtype of y;
            returns a tensor of as many elements as y.
        y0: an array or a tensor of the shape, dtype and device of y. Prefer float64.
        t0: a time at which ``func`` can be evaluated.
        args: further arguments. Tensors among them may change between calls.
        plan: from ``pb.plan_jacobian(func, t0, y0, *args, argnums=1)`` with t0 a tensor; None plans
            here.
        dense: give the Jacobian as an array, as the method "LSODA" needs it.
        compile: as for ``pb.jacobian``.
        chunk_size: as for ``pb.jacobian``.
        trust_indices: as for ``pb.jacobian``.

    Raises:
        ArgumentError: ``y0`` is no array of real numbers, ``plan`` does not fit, or the value has
            another number of elements than y; later, an array of another size.
        TreeError: ``func`` does not return one tensor.
        UnsupportedError: ``y0`` is complex.

    >>> import numpy as np, torch
    >>> from scipy.integrate import solve_ivp
    >>> from pullback.interop.scipy import ode
    >>> decay = ode(lambda t, y: -torch.arange(1, 4) * y + torch.sin(t), np.ones(3))
    >>> decay.jac(0.0, np.ones(3)).toarray()
    array([[-1.,  0.,  0.],
           [ 0., -2.,  0.],
           [ 0.,  0., -3.]])
    >>> solve_ivp(decay.fun, (0.0, 9.0), np.ones(3), method="BDF", jac=decay.jac).success
    True
    """
    options = {
        "dense": dense, "compile": compile, "chunk_size": chunk_size,
        "trust_indices": trust_indices,
    }  # fmt: skip
    border = Border("ode", "y", y0)
    found = Ode("ode", func, border, (time_of(t0, border),), tuple(args), plan, options)
    _checks.rate_of_state("ode", found._at_sample, border.sample)
    return found
