"""The ways to a first or second derivative, and what each of them says about it at one point.

Seeds and answers are flat vectors: ``along(t)`` is J t and ``row(v)`` is v J, for the J of the
outputs, or of the gradient, which makes it the Hessian.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from .. import _checks
from .._differences import WIDE, largest, slope
from .._engines import gradients
from .._linear import forward_mode, is_in_place_refusal
from .._trees import flatten, from_vector
from .arguments import Arguments, as_real, fresh, fresh_others
from .draws import generators_kept
from .gradient import Gradient, result_name, written
from .leaf import Leaf
from .products import Flattened, Function
from .widening import Widening

DIFFERENCES = "finite differences"
Product = Callable[[Tensor], Tensor]
# Up to this many entries, the whole matrix is the reference.
_WHOLE = 2**22
_ROWS = 2**11


@dataclass
class Witness:
    """One way to products with J: ``along(t)`` is J t, ``row(v)`` is v J; None where it has not."""

    name: str
    along: Product | None = None
    row: Product | None = None


@dataclass(frozen=True)
class Seen:
    """What differences show of J t: values, how far they may be off, and where there is no J."""

    values: Tensor
    errors: Tensor
    rough: Tensor


class Problem:
    """A function, or the gradient of one, at one point, and the runs that are made of it there."""

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        arguments: Arguments,
        has_aux: bool,
        widens: bool = False,
    ) -> None:
        self.caller, self.func, self.arguments, self.has_aux = caller, func, arguments, has_aux
        self.widens = widens
        self.primals: Sequence[Tensor] = [fresh(t) for t in arguments.primals]
        self.point = _flat(self.primals)
        self._user = written(func)

    @property
    def order(self) -> int:
        return 2 if isinstance(self.func, Gradient) else 1

    @property
    def inputs(self) -> tuple[Leaf, ...]:
        return self.arguments.inputs

    def at(self, primals: Sequence[Tensor]) -> Problem:
        return Problem(
            self.caller, self.func, self.arguments.with_primals(primals), self.has_aux, self.widens
        )

    @contextmanager
    def run(self) -> Iterator[None]:
        """Draw the same in every run, and keep torch's warnings about its own ways to itself."""
        with generators_kept(self._user), warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            with Widening() if self.widens else nullcontext():
                yield

    def flattened(self) -> Flattened:
        """Of the primals, others than the caller's own: they may be written to."""
        arguments, others = self.arguments, fresh_others(self.arguments)
        return Flattened(
            self.caller,
            lambda *primals: arguments.call(self.func, primals, others),
            self.has_aux,
            result_name(self.func),
        )

    @property
    def users_function(self) -> Callable[..., Any]:
        """What the user wrote, of the primals."""
        return lambda *primals: self.arguments.call(
            self._ungraded, primals, fresh_others(self.arguments)
        )

    def _ungraded(self, *args: Any) -> Any:
        """The function that a gradient is of, given all that the gradient is given."""
        if isinstance(self.func, Gradient):
            return self.func.func(*(args[:-1] if self.func.weighed else args))
        return self.func(*args)

    def leaves(self) -> tuple[Tensor, ...]:
        return tuple(fresh(t).requires_grad_() for t in self.primals)

    def value(self, point: Tensor) -> Tensor:
        """The outputs there, flat."""
        primals = from_vector(point, self.primals)
        with self.run():
            try:
                found = self.flattened()(*(fresh(t).requires_grad_() for t in primals))
            except RuntimeError as error:
                if self.order > 1 or not is_in_place_refusal(error):
                    raise
                with torch.no_grad():  # it writes into its argument
                    found = self.flattened()(*map(fresh, primals))
        return _flat([t.detach() for t in found])

    def reference(self) -> Reference:
        with self.run():
            source = Function(self.caller, self.func, self.arguments, self.has_aux)
            return Reference(source, self.run)

    def forward(self) -> Witness:
        """Forward mode of the function; of the gradient, that is forward over reverse."""

        def along(t: Tensor) -> Tensor:
            with self.run():
                primals = tuple(map(fresh, self.primals))
                found = forward_mode(self.flattened(), primals, self._pieces(t))
            self._is_the_same(found[0], self.value(self.point))
            return _flat([out.detach() for out in found[1]])

        return Witness("forward over reverse" if self.order > 1 else "forward mode", along=along)

    def reverse_over_forward(self) -> list[Witness]:
        """The gradient of v · J t, for the outputs of the function that the gradient is of.

        By dual numbers, in which ``requires_grad`` can be seen, as in a plain backward; and by
        torch.func, which takes some that these do not.
        """
        return [
            Witness("reverse over forward", row=partial(self._gradient_of_jvp, by=by))
            for by in (_by_dual_numbers, _by_transform)
        ]

    def _gradient_of_jvp(self, t: Tensor, by: Callable[..., Any]) -> Tensor:
        assert isinstance(self.func, Gradient)
        flat = Flattened(self.caller, self.users_function, self.has_aux, "output")
        weights = self._weights() if self.func.weighed else []
        with self.run():
            primals = self.leaves()

            def gradients_at(outputs: Sequence[Tensor], moves: Sequence[Tensor | None]) -> Any:
                self._is_the_same(outputs, self._users_value)
                given = weights or [torch.ones_like(o) for o in outputs]
                moving = [(d, v) for d, v in zip(moves, given, strict=True) if d is not None]
                return gradients([d for d, _ in moving], primals, [v for _, v in moving])

            grads = by(flat, primals, self._pieces(t), gradients_at)
        pairs = zip(grads, primals, strict=True)
        return _flat([torch.zeros_like(p) if g is None else g for g, p in pairs]).detach()

    @cached_property
    def _users_value(self) -> Tensor:
        return self.users_value(self.point)

    def users_value(self, point: Tensor) -> Tensor:
        """The outputs of what the user wrote, there, flat."""
        return _flat([t.detach() for t in self.users_outputs(point)])

    def users_outputs(self, point: Tensor) -> tuple[Tensor, ...]:
        """The same with their graph."""
        flat = Flattened(self.caller, self.users_function, self.has_aux, "output")
        primals = from_vector(point, self.primals)
        with self.run():
            return flat(*(fresh(t).requires_grad_() for t in primals))

    @cached_property
    def weights(self) -> Tensor | None:
        """The cotangents of the outputs that a gradient is of, flat; None for one number."""
        if not (isinstance(self.func, Gradient) and self.func.weighed):
            return None
        return _flat([v.detach() for v in self._weights()])

    def _weights(self) -> list[Tensor]:
        leaves = self.arguments.call(
            lambda *args: flatten(args[-1])[0], self.primals, self.arguments.others
        )
        return [as_real(v) for v in leaves]

    @staticmethod
    def _is_the_same(outputs: Sequence[Tensor], value: Tensor) -> None:
        """A function may look whether a graph is recorded, and compute something else."""
        found = _flat([t.detach() for t in outputs])
        loose = 1e-2 if value.dtype != torch.float64 else 1e-6
        if found.shape != value.shape or not torch.allclose(
            found, value, rtol=loose, atol=loose * largest(value), equal_nan=True
        ):
            raise RuntimeError("func returns other values when torch goes this way")

    def _pieces(self, t: Tensor) -> tuple[Tensor, ...]:
        return tuple(from_vector(t, self.primals))


class Reference:
    """Products by plain autograd, one VJP each, and the whole matrix where it is small."""

    def __init__(self, source: Function, run: Callable[[], AbstractContextManager[None]]) -> None:
        self._source, self._run = source, run
        self.outputs, self.returned = source.outputs, source.returned
        m = sum(t.numel() for t in source.outputs)
        n = sum(t.numel() for t in source.primals)
        self.shape = (m, n)
        self.matrix: Tensor | None = None
        if m * n <= _WHOLE and m <= _ROWS:
            like = source.outputs[0]
            eye = torch.eye(m, dtype=_dtype(source.outputs), device=like.device)
            self.matrix = source.rev(eye).detach() if m else eye.new_zeros(0, n)

    def row(self, v: Tensor) -> Tensor:
        if self.matrix is not None:
            used = v != 0  # 0 times nan is nan
            return v[used].to(self.matrix.dtype) @ self.matrix[used]
        with self._run():
            return self._source.rev(v[None])[0].detach()

    @property
    def refusal(self) -> str:
        """Why there are no products J t, if so."""
        if self.matrix is not None:
            return ""
        with self._run():
            if self._source.goes_forward():
                return ""
            return self._source.forward_refusal or "its backward cannot be differentiated"

    def along(self, t: Tensor) -> Tensor:
        if self.matrix is not None:
            used = t != 0
            return self.matrix[:, used] @ t[used].to(self.matrix.dtype)
        with self._run():
            return self._source.fwd(t[None])[0].detach()

    def size_along(self, t: Tensor, found: Tensor) -> Tensor:
        """What the terms of J t amount to, for a measure of its rounding."""
        if self.matrix is not None:
            used = t != 0
            return self.matrix[:, used].abs() @ t[used].abs().to(self.matrix.dtype)
        return found.abs()


class Differences:
    """Central differences of the outputs, or of the gradient, in the precision of the point."""

    name = DIFFERENCES

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def refusal(self) -> str:
        """Why a difference would mean nothing, if so."""
        problem = self._problem
        first, again = problem.value(problem.point), problem.value(problem.point)
        apart = (first - again).abs()
        if bool((apart > 1e3 * self._eps(first) * (1e-30 + first.abs().amax())).any()):
            return "func gives another value at the same point each time"
        return ""

    def along(self, t: Tensor) -> Seen:
        problem = self._problem

        def moved(step: float) -> tuple[Tensor, ...]:
            return (problem.value(problem.point + step * t),)

        # The direction is as long as the point itself: the caller has scaled it.
        found = slope(moved, 1.0, self._eps(problem.point))
        return Seen(found.values[0], found.errors[0], found.rough[0])

    def of_users_function(self, t: Tensor) -> Seen:
        """Of the number that a gradient is of, along t."""
        problem = self._problem

        def moved(step: float) -> tuple[Tensor, ...]:
            value = problem.users_value(problem.point + step * t)
            weights = problem.weights
            return (value if weights is None else (weights.to(value) @ value)[None],)

        found = slope(moved, 1.0, self._eps(problem.point))
        return Seen(found.values[0], found.errors[0], found.rough[0])

    def _eps(self, tensor: Tensor) -> float:
        return max(float(torch.finfo(t.dtype).eps) for t in (tensor, *self._problem.primals))


def _by_dual_numbers(
    flat: Flattened, primals: Sequence[Tensor], tangents: Sequence[Tensor], then: Callable[..., Any]
) -> Any:
    with dual_level():
        duals = (make_dual(p, d) for p, d in zip(primals, tangents, strict=True))
        found = [unpack_dual(out) for out in flat(*duals)]
        return then([out.primal for out in found], [out.tangent for out in found])


def _by_transform(
    flat: Flattened, primals: Sequence[Tensor], tangents: Sequence[Tensor], then: Callable[..., Any]
) -> Any:
    outputs, moves = forward_mode(flat, tuple(primals), tuple(tangents))
    return then(outputs, moves)


def widened(problem: Problem) -> Problem:
    """The problem in double precision, if the function follows there; else as it is."""
    arguments = problem.arguments
    leaves = [
        leaf.detach().to(WIDE[leaf.dtype])
        if isinstance(leaf, Tensor) and leaf.dtype in WIDE
        else leaf
        for leaf in arguments.leaves
    ]
    if all(new is old for new, old in zip(leaves, arguments.leaves, strict=True)):
        return problem
    wider = replace(arguments, leaves=tuple(leaves))
    for widens in (False, True):
        wide = Problem(problem.caller, problem.func, wider, problem.has_aux, widens)
        if _follows(problem, wide):
            return wide
    return problem


def _follows(problem: Problem, wide: Problem) -> bool:
    """Whether the function gives the same in double precision."""
    try:
        narrow, found = problem.value(problem.point), wide.value(wide.point)
    except Exception:  # a kernel of float32, say
        return False
    if found.dtype != torch.float64 or found.shape != narrow.shape:
        return False
    return torch.allclose(
        narrow.double(), found, rtol=0.02, atol=0.02 * largest(narrow), equal_nan=True
    )


def attempted(witness: Witness, probe: Tensor) -> str:
    """Why torch does not go this way, or nothing where it does."""
    product = witness.along or witness.row
    assert product is not None
    try:
        product(probe)
    except Exception as error:  # torch refuses in many words and kinds
        return _checks.first_line(error)
    return ""


def element(leaves: Sequence[Leaf], place: int) -> str:
    """``x[1, 2]``: what a row or a column is called."""
    for leaf in leaves:
        if place < leaf.numel:
            sizes = (*leaf.shape, 2) if leaf.dtype.is_complex else leaf.shape
            index = [int(k) for k in torch.unravel_index(torch.tensor(place), sizes)]
            part = (".real", ".imag")[index.pop()] if leaf.dtype.is_complex else ""
            return f"{leaf.name}{index if index else ''}{part}"
        place -= leaf.numel
    raise IndexError(place)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.empty(0)


def _dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
