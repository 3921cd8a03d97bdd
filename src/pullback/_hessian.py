"""The front door of flow 1 for second derivatives: ``plan_hessian`` and ``hessian``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import _checks, _torch
from ._jacobian import Jacobian, checked_layout
from ._named import wrt_of
from .sparse.gradient import Gradient
from .sparse.pattern import SparsityPattern
from .sparse.plan import Plan
from .sparse.planning import planned

MODES = ("auto", "fwd", "rev", "star", "acyclic", "dense")


@_torch.runs_unwatched
def plan_hessian(
    func: Callable[..., Any],
    *sample_args: Any,
    argnums: int | tuple[int, ...] = 0,
    mode: str = "auto",
    lift: bool | str = "auto",
    pattern: SparsityPattern | Any = None,
    has_aux: bool = False,
    freeze: Sequence[str] = (),
    cotangents: Any = None,
    wrt: Any = None,
) -> Plan:
    """Find out how the Hessian of ``func`` can be computed with few products.

    The Hessian is the Jacobian of the gradient that a backward pass gives: an (n, n) matrix with a
    row and a column per element of the arguments that ``argnums`` selects, in pytree order, each in
    C order. Its products ``v H`` are backward passes through that backward pass. The plan holds at
    every point of the same shapes and dtypes, as that of ``pb.plan_jacobian`` does.

    Where a Hessian is known to be symmetric, an entry may be read from its mirror, and pairs of
    colors need less of each other: see ``mode``. It is known to be where random products agree,
    u · H w = w · H u, at three points, and ``func`` cuts no gradient by its own means (a custom
    ``autograd.Function``, ``detach``, ``no_grad``, a hook): the backward of such a function may be
    no gradient of anything, and its Jacobian is then taken as it is.

    Args:
        func: called as ``func(*sample_args)``; returns one number, as a tensor of one element. With
            ``cotangents`` it may return any tensors.
        sample_args: arguments of the shapes, dtypes and devices to plan for.
        argnums: the position of the argument to differentiate, or a tuple of positions.
        mode: "star" reads every entry, or its mirror, from a product; "acyclic" solves for some of
            them, which takes fewer products and rounds a little more; "rev" and "fwd" use no
            symmetry; "dense" takes one product per row; "auto" what is estimated to cost least.
        lift: as for ``pb.plan_jacobian``. Where ``func`` is a sum of functions of a few elements
            each, lifting leaves only their small Hessians to be computed, all at once.
        pattern: the structure, where it is known. It is taken as true; ``pb.verify`` checks it.
        has_aux: ``func`` returns ``(output, aux)``, of which only the output is differentiated.
        freeze: names of tensors that ``func`` closes over whose zeros may be read as zeros of the
            matrix. Their content is then checked at every call.
        cotangents: of the outputs, in their structure: the Hessian is that of v · func, for a
            Lagrangian the part of its constraints. Of this sample only shapes and dtypes count.
        wrt: for a module, whose tensors to differentiate with respect to, as for ``pb.jacobian``.

    Raises:
        ArgumentError: ``func`` returns more than one number, and no cotangents are given; see
            ``pb.plan_jacobian`` for the rest.
        UnsupportedError: the backward has no derivative, or ``mode`` needs a symmetric matrix and
            it is not known to be one.

    >>> import torch, pullback as pb
    >>> rosenbrock = lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    >>> plan = pb.plan_hessian(rosenbrock, torch.rand(50))
    >>> plan.pattern.shape, plan.pattern.nnz, plan.num_products
    ((50, 50), 148, 2)

    Method: star and acyclic coloring with direct and indirect recovery (A. Gebremedhin, A.
    Tarafdar, A. Pothen and A. Walther, "Efficient computation of sparse Hessians using coloring and
    automatic differentiation", INFORMS J. Comput. 21, 2009); the lift uses partial separability (A.
    Griewank and Ph. Toint, "On the unconstrained optimization of partially separable functions",
    1982).
    """
    caller = "plan_hessian"
    _checks.one_of(caller, "mode", mode, MODES)
    weighed = cotangents is not None
    named = wrt_of(caller, func, wrt, argnums)
    if named is not None:
        func, sample_args = named.called, named.arguments(sample_args)
    gradient = Gradient(caller, func, argnums, has_aux=has_aux, weighed=weighed)
    args = (*sample_args, cotangents) if weighed else sample_args
    try:
        return planned(
            caller, gradient, args, gradient.argnums, mode, lift, pattern, has_aux, freeze
        )
    except RuntimeError as error:
        if refusal := _checks.no_second_derivative(caller, error):
            raise refusal from error
        raise


class Hessian:
    """A function that returns the Hessian of ``func``: what ``pb.hessian`` gives.

    ``plan`` is the plan of the last call (None for a dense one), ``engine`` says how its products
    were computed and ``notes`` why not in a faster way.
    """

    def __init__(
        self, func: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool, wrt: Any,
        *options: Any,
    ) -> None:  # fmt: skip
        self._wrt = wrt_of("hessian", func, wrt, argnums)
        func = func if self._wrt is None else self._wrt.called
        self._func, self._argnums, self._has_aux = func, argnums, has_aux
        self._options = options
        self._plain = self._last = self._of_gradient(weighed=False)
        self._weighed: Jacobian | None = None

    def _of_gradient(self, *, weighed: bool) -> Jacobian:
        caller = "hessian"
        gradient = Gradient(
            caller, self._func, self._argnums, has_aux=self._has_aux, weighed=weighed
        )
        plan, layout, chunk_size, trust_indices, compile = self._options
        return Jacobian(
            gradient, gradient.argnums, plan, layout, chunk_size, self._has_aux, trust_indices,
            False, compile, caller,
        )  # fmt: skip

    def __call__(self, *args: Any, cotangents: Any = None, out: Any = None) -> Any:
        """The Hessian at ``args``, of v · func where ``cotangents`` v are given; with ``has_aux``,
        a pair of it and aux.

        ``out``, a matrix that an earlier call returned, takes the new values and is returned.

        Raises:
            ArgumentError: the arguments, or the content of an index that the plan relies on, are
                not those that the plan was made for; ``func`` returns more than one number;
                ``out`` is another kind of matrix.
            UnsupportedError: autograd cannot differentiate the backward of a call in ``func``.
        """
        chosen = self._plain
        if self._wrt is not None:
            args = self._wrt.arguments(args)
        if cotangents is not None:
            chosen = self._weighed = self._weighed or self._of_gradient(weighed=True)
            args = (*args, cotangents)
        self._last = chosen  # other threads may make it another one
        try:
            return chosen(*args, out=out)
        except RuntimeError as error:
            if refusal := _checks.no_second_derivative("hessian", error):
                raise refusal from error
            raise

    @property
    def plan(self) -> Plan | None:
        return self._last.plan

    @property
    def engine(self) -> str:
        return self._last.engine

    @property
    def notes(self) -> tuple[str, ...]:
        return self._last.notes

    def refresh(self) -> None:
        """Forget what was captured of ``func``: the next call looks at it anew."""
        self._plain.refresh()
        if self._weighed is not None:
            self._weighed.refresh()

    def __repr__(self) -> str:
        name = getattr(self._func, "__name__", type(self._func).__name__)
        plan = self.plan
        how = "dense" if plan is None else f"{plan.num_products} products, mode {plan.mode}"
        return f"hessian({name}, argnums={self._argnums}): {how}"


def hessian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    plan: Plan | None = None,
    layout: Any = None,
    compile: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
    *,
    trust_indices: bool = False,
    wrt: Any = None,
) -> Hessian:
    """A function of the arguments of ``func`` that returns its Hessian.

    Without a plan the Hessian is dense, in the structure of ``torch.func.hessian``: for every two
    leaves of the selected arguments a tensor of shape ``(*first.shape, *second.shape)``. With a
    plan it is the sparse (n, n) matrix. All entries are stored, those above the diagonal too.

    It is the Jacobian of what ``backward`` gives, so a straight-through estimator counts as it
    behaves; see ``pb.jacobian`` for gradients of the result, replay and complex arguments, whose
    elements take two rows and columns each, (re, im).

    Args:
        func: called as ``func(*args)``; returns one number, as a tensor of one element. Called with
            ``cotangents=v``, the Hessian is that of v · func, and it may return any tensors.
        argnums: the position of the argument to differentiate, or a tuple of positions.
        plan: from ``pb.plan_hessian``. It is refused where it does not fit.
        layout: ``torch.strided``, ``torch.sparse_csr``, ``torch.sparse_coo``, or "scipy" for a
            ``scipy.sparse.csr_array``; None is strided without a plan, CSR with one.
            "block_diagonal" gives a dense block for each sample of a batch, as for ``pb.jacobian``.
        compile: let Inductor make one kernel of both passes and all products, at the first call.
        chunk_size: how many products run at once; None fits a chunk into 256 MiB.
        has_aux: ``func`` returns ``(output, aux)``, and so does the result: ``(H, aux)``. For the
            value beside the Hessian, return it twice: ``return y, y``.
        trust_indices: take an index tensor that is the same object at the same version for
            unchanged, without reading it.
        wrt: for a module, whose tensors to differentiate with respect to, as for ``pb.jacobian``.
            The dense form is a dict of dicts of blocks.

    Raises:
        ArgumentError: an option is not one of those above; later, see ``Hessian.__call__``.

    >>> import torch, pullback as pb
    >>> f = lambda x: (x[1:] * x[:-1] ** 2).sum()
    >>> x = torch.tensor([1.0, 2.0, 3.0])
    >>> pb.hessian(f)(x)
    tensor([[4., 2., 0.],
            [2., 6., 4.],
            [0., 4., 0.]])
    >>> pb.hessian(f, layout=torch.sparse_csr)(x).values()
    tensor([4., 2., 2., 6., 4., 4.])
    >>> residual = lambda x: x[1:] * x[:-1]
    >>> pb.hessian(residual)(x, cotangents=torch.tensor([1.0, 10.0]))
    tensor([[ 0.,  1.,  0.],
            [ 1.,  0., 10.],
            [ 0., 10.,  0.]])

    Method: see ``pb.plan_hessian``.
    """
    layout = checked_layout("hessian", plan, layout, chunk_size, has_aux, compile)
    return Hessian(func, argnums, has_aux, wrt, plan, layout, chunk_size, trust_indices, compile)
