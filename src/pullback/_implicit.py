"""``implicit_vjp``: the root of an equation as a differentiable function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _checks, _torch
from ._factors import Factors
from ._jacobian import jacobian
from ._products import vjp
from ._trees import Structure, flatten

_CALLER = "implicit_vjp"


class _Equation:
    """``residual(x, *params) = 0`` near one root: its linearization there, factorized once.

    ``wanted`` of the leaves of ``params`` are differentiated; the others stay as they are.
    """

    def __init__(
        self,
        residual: Callable[..., Tensor],
        root: Tensor,
        params: tuple[Any, ...],
        jac: Callable[..., Any] | None,
    ) -> None:
        self._residual, self._root, self._jac = residual, root, jac
        leaves: list[Any]
        self._structure: Structure
        leaves, self._structure = flatten(params)
        tensors = [(k, t) for k, t in enumerate(leaves) if isinstance(t, Tensor)]
        self._at = [k for k, t in tensors if t.requires_grad]
        self.wanted: list[Tensor] = [leaves[k] for k in self._at]
        self._leaves = [t.detach() if isinstance(t, Tensor) else t for t in leaves]
        self._versions = [_torch.version_of(t) for _, t in tensors]
        self._tensors = [t for _, t in tensors]
        self._factors: Factors | None = None

    def value(self, x: Tensor, wanted: Sequence[Tensor]) -> Tensor:
        """The residual, flat."""
        leaves = list(self._leaves)
        for k, tensor in zip(self._at, wanted, strict=True):
            leaves[k] = tensor
        found = self._residual(x, *self._structure.rebuild(leaves))
        return _checks.real_solution(_CALLER, "residual(...)", found).reshape(-1)

    def look(self) -> Tensor:
        """The residual at the root, once it is seen to be a function of ``params`` alone."""
        with torch.enable_grad():
            found = self.value(self._root.clone(), [t.detach() for t in self.wanted])
        if found.requires_grad:
            raise _checks.hidden_parameters(_CALLER)
        _checks.as_many_equations(_CALLER, found.numel(), self._root.numel())
        return found

    @property
    def factors(self) -> Factors:
        if self._factors is None:
            if [_torch.version_of(t) for t in self._tensors] != self._versions:
                raise _checks.parameters_changed(_CALLER)
            if self._jac is None:
                self._jac = jacobian(self._residual, layout="scipy")
            with torch.no_grad():
                matrix = self._jac(self._root, *self._structure.rebuild(self._leaves))
            n = self._root.numel()
            self._factors = Factors(_CALLER, _checks.square_matrix(_CALLER, matrix, n))
        return self._factors

    def solve(self, b: Tensor, transposed: bool) -> Tensor:
        if not b.numel():
            return torch.zeros_like(b)
        array = b.detach().cpu().to(torch.float64).numpy()
        return torch.from_numpy(self.factors.solve(array, transposed)).to(b)


class _Implicit(torch.autograd.Function):
    """The root, whose pullback is ``v -> -(dr/dparams)' w`` with ``J' w = v``.

    The backward is made of differentiable pieces, and the root that it reads is this very output:
    derivatives of any order follow by the same rule.
    """

    @staticmethod
    def forward(ctx: Any, equation: _Equation, root: Tensor, *wanted: Tensor) -> Tensor:
        found = root.clone()
        ctx.equation = equation
        ctx.save_for_backward(found, *wanted)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        equation: _Equation = ctx.equation
        root, *wanted = ctx.saved_tensors
        needed = [k for k, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        v = cotangents[0].reshape(-1)
        w = _Solve.apply(equation, True, v, root, *wanted)  # type: ignore[no-untyped-call]

        def along(*chosen: Tensor) -> Tensor:
            params = list(wanted)
            for k, tensor in zip(needed, chosen, strict=True):
                params[k] = tensor
            return equation.value(root, params)

        _, pull = vjp(along, *(wanted[k] for k in needed))
        gradients: list[Tensor | None] = [None] * len(wanted)
        for k, gradient in zip(needed, pull(-w), strict=True):
            gradients[k] = gradient
        return None, None, *gradients


class _Solve(torch.autograd.Function):
    """``z`` with ``J z = b``, or ``J' z = b``, as a function of b, the root and the parameters.

    With ``g`` the solution of the other system for the cotangent, the pullback gives ``g`` to b,
    and to root and parameters the gradient of ``-left . J right``, where ``(left, right)`` is
    ``(g, z)``, or ``(z, g)`` for the transpose.
    """

    @staticmethod
    def forward(
        equation: _Equation, transposed: bool, b: Tensor, root: Tensor, *wanted: Tensor
    ) -> Tensor:
        return equation.solve(b, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.equation, ctx.transposed, _, *point = inputs
        ctx.save_for_backward(output, *point)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], equation: _Equation, transposed: bool, b: Tensor,
        *point: Tensor,
    ) -> tuple[Tensor, int]:  # fmt: skip
        """Many right-hand sides at one point: one call of the solver."""
        if any(dim is not None for dim in in_dims[3:]):
            raise _checks.one_point_at_a_time(_CALLER)
        return equation.solve(b.movedim(in_dims[2], -1), transposed), -1

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        equation: _Equation = ctx.equation
        z, root, *wanted = ctx.saved_tensors
        g = _Solve.apply(equation, not ctx.transposed, cotangents[0], root, *wanted)  # type: ignore[no-untyped-call]
        left, right = (z, g) if ctx.transposed else (g, z)

        def pulled(x: Tensor, *params: Tensor) -> Tensor:
            _, pull = vjp(lambda x: equation.value(x, params), x)
            found: Tensor = pull(left, create_graph=True)[0]
            return found

        _, pull = vjp(pulled, root, *wanted)
        return None, None, g, *pull(-right.reshape(root.shape))


def implicit_vjp(
    residual: Callable[..., Tensor],
    solution: Tensor,
    *params: Any,
    jac: Callable[..., Any] | None = None,
    tolerance: float | None = None,
) -> Tensor:
    """A root that any solver has found, as a differentiable function of ``params``.

    ``solution`` solves ``residual(solution, *params) = 0``. The result has its value, and a graph
    whose pullback solves ``J' w = v`` with the sparse Jacobian ``J`` of the residual in the
    solution, and gives ``-(dr/dparams)' w``: the solver itself is not differentiated, and may be
    one of SciPy. ``J`` is factorized once, on the CPU and in double precision, for all cotangents
    and for derivatives of every order.

    Args:
        residual: called as ``residual(x, *params)``; returns a tensor of as many elements as x.
        solution: the root, of any shape; its own graph is not followed.
        params: tensors, or pytrees with tensors. Those that require grad receive gradients.
        jac: ``jac(x, *params)`` is the (n, n) matrix of ``residual`` in x, of SciPy or torch. What
            is solved again and again is planned once so:
            ``jac = pb.jacobian(residual, layout="scipy")``. None plans at every call.
        tolerance: how long a Newton step from ``solution`` may be (the largest change of an
            element), relative to the largest element, or to 1 where all are smaller. None takes the
            cube root of the rounding of its dtype: 6e-6 for float64. ``float("inf")`` does not
            look.

    Raises:
        ArgumentError: ``solution`` is no root; there are not as many equations as unknowns;
            ``residual`` reads a tensor that requires grad and is not among ``params``.
        GraphError: ``J`` is singular: the root is not isolated.
        TreeError: ``solution`` or the residual is no tensor.
        UnsupportedError: one of them is complex, or a transform of ``torch.func`` is running.

    >>> import torch, pullback as pb
    >>> a = torch.tensor([2.0, 9.0], requires_grad=True)
    >>> x = pb.implicit_vjp(lambda x, a: x**2 - a, a.detach().sqrt(), a)
    >>> x.sum().backward()
    >>> a.grad, 0.5 / a.detach().sqrt()
    (tensor([0.3536, 0.1667]), tensor([0.3536, 0.1667]))

    Method: the implicit function theorem (B. Christianson, "Reverse accumulation and attractive
    fixed points", 1994; M. Blondel et al., "Efficient and modular implicit differentiation", 2022).
    """
    root = _checks.real_solution(_CALLER, "solution", solution).detach()
    if not params:
        raise _checks.nothing_needs_the_root(_CALLER)
    equation = _Equation(residual, root.clone(), params, jac)
    _checks.outside_transforms(_CALLER, [solution, *equation.wanted])
    if not equation.wanted or not torch.is_grad_enabled():
        return root.clone()
    at_root = equation.look()
    allowed = torch.finfo(root.dtype).eps ** (1 / 3) if tolerance is None else float(tolerance)
    if allowed < float("inf"):
        _refuse_unless_root(equation, at_root, root, allowed)
    found: Tensor = _Implicit.apply(equation, root, *equation.wanted)  # type: ignore[no-untyped-call]
    return found


def _refuse_unless_root(equation: _Equation, at_root: Tensor, root: Tensor, allowed: float) -> None:
    if not root.numel():
        return
    largest = float(at_root.abs().max())
    step = equation.solve(at_root, transposed=False) if np.isfinite(largest) else at_root
    away = float(step.abs().max())
    within = allowed * max(1.0, float(root.abs().max()))
    if not away <= within:
        raise _checks.not_a_root(_CALLER, largest, away, within)
