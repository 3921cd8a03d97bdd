"""The front door of flow 1: ``jacobian``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _checks, _torch
from ._engines import chunks
from ._named import Wrt, names_of, notes_of, wrt_of
from ._trees import Structure, map_leaves
from .sparse.arguments import Arguments, arguments_for
from .sparse.gradient import kind_of
from .sparse.holomorphic import ComplexView, as_reals, complex_matrix, complex_view
from .sparse.layouts import LAYOUTS, blocks, matrix, refill
from .sparse.plan import Plan
from .sparse.products import Existing, Function
from .sparse.samples import BLOCK_DIAGONAL, sample_blocks
from .sparse.session import Session
from .sparse.state.facts import torch_modes
from .sparse.trial import rounding_of, same

# How many kinds of calls are recognised at once.
_RECENT = 4
# The call of one kind from which on a dense Jacobian is replayed, and how often its function may
# be captured anew because something that it reads has changed.
_REPLAYED_FROM = 3
_LOOKS = 3


class Jacobian:
    """A function that returns the Jacobian of ``func``: what ``pb.jacobian`` gives.

    ``plan`` is the plan of the last call (None for a dense one), ``engine`` says how its products
    were computed and ``notes`` why not in a faster way.
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
        holomorphic: bool,
        compile: bool,
        caller: str = "jacobian",
        wrt: Wrt | None = None,
    ) -> None:
        self._caller, self._wrt = caller, wrt
        self._func, self._argnums, self._given = func, argnums, plan
        self._layout, self._chunk, self._has_aux = layout, chunk_size, has_aux
        self._trust, self._holomorphic, self._compile = trust_indices, holomorphic, compile
        self._views: dict[Any, ComplexView] = {}
        self._batches: dict[Any, bool | None] = {}
        self._sessions: dict[Any, Session] = {}
        self._dense_calls: dict[Any, int] = {}
        self._recent: list[Session] = []
        self.plan: Plan | None = plan
        self.engine = ""
        self.notes: tuple[str, ...] = ()

    @_torch.runs_unwatched
    def __call__(self, *args: Any, out: Any = None) -> Any:
        """The Jacobian at ``args``; with ``has_aux``, a pair of it and aux.

        ``out``, a matrix that an earlier call returned, takes the new values and is returned. It
        spares fresh memory, which takes longer than the derivatives for large matrices.

        Raises:
            ArgumentError: the arguments, or the content of an index that the plan relies on, are
                not those that the plan was made for; ``out`` is another kind of matrix.
        """
        if torch.is_inference_mode_enabled():
            # Nothing records a graph there, and no derivative would be found.
            with torch.inference_mode(False), torch.no_grad():
                return self(*map_leaves(_torch.plain_copy, args), out=out)
        if self._wrt is not None:
            args = self._wrt.arguments(args)
        found, aux = self._at_once(args, out)
        if found is None:
            arguments = arguments_for(self._caller, args, self._argnums, self._func)
            if not self._is_dense:
                found, aux = self._planned(args, arguments, self._session(arguments))
            elif (session := self._dense_session(arguments)) is not None:
                found, aux = self._planned(args, arguments, session)
            else:
                found, aux = self._dense(arguments)
        if out is not None and found is not out:
            found = refill(out, found, self._caller)
        return (found, aux) if self._has_aux else found

    def refresh(self) -> None:
        """Forget what was captured of ``func``: the next call looks at it anew."""
        self._sessions.clear()
        self._dense_calls.clear()
        self._recent.clear()

    def _at_once(self, args: tuple[Any, ...], out: Any) -> tuple[Any, Any]:
        """The matrix and aux, where this is known to be a call like one of the last; else None. The
        matrix is ``out`` if that is one that can be written to at once."""
        if not self._recent or not _torch.plain_autograd_sees_everything():
            return None, None
        for session in self._recent:
            ready = session.ready
            if ready is not None and (tensors := ready.tensors(args)) is not None:
                as_csr = self._layout is torch.sparse_csr and not self._holomorphic
                into = None
                if as_csr and out is not None:
                    into = ready.csr.values_of(out, tensors)
                values, aux = session.at_once(tensors, self._chunk, into)
                if as_csr:
                    self._tell(session, session.plan)
                    return ready.csr(values) if into is None else out, aux
                found = self._matrix(session, session.plan, values, ready.laid_out, ready.out)
                return found, aux
        return None, None

    @property
    def _is_dense(self) -> bool:
        return self._layout is torch.strided and self._given is None

    def _planned(
        self, args: tuple[Any, ...], arguments: Arguments, session: Session
    ) -> tuple[Any, Any]:
        outcome = session.evaluate(arguments, self._chunk)
        session.make_ready(args, arguments)
        if self._recent[:1] != [session]:
            self._recent = [session, *(s for s in self._recent if s is not session)][:_RECENT]
        plan, values = outcome.plan, outcome.values
        return self._matrix(session, plan, values, arguments, outcome.out), outcome.aux

    def _matrix(
        self, session: Session, plan: Plan, values: Any, arguments: Arguments, out: Structure
    ) -> Any:
        self._tell(session, plan)
        if self._holomorphic:
            view = complex_view(self._caller, plan, self._views)
            plan, values = view.plan, view.values(values)
        if self._layout == BLOCK_DIAGONAL:
            return sample_blocks(self._caller, plan)(values, arguments, out)
        return matrix(plan, values, self._layout, arguments, out)

    def _tell(self, session: Session, plan: Plan) -> None:
        self.plan, self.engine = None if self._is_dense else plan, session.engine
        self.notes = (*plan.notes, *session.reasons)

    def _session(self, arguments: Arguments) -> Session:
        if self._given is not None:
            _checks.plan_kind(self._caller, self._given.kind, kind_of(self._func))
            _checks.plan_argnums(self._caller, self._given.argnums, arguments.places)
            now = names_of(self._func, arguments.primal_names)
            _checks.plan_names(self._caller, self._given.wrt, now)
            _checks.plan_leaves(self._caller, "input", self._given.inputs, arguments.inputs)
        # The modes are facts of a capture: one for each spares a new one at every switch.
        key = (arguments.signature, torch_modes())
        if key not in self._sessions:
            self._sessions[key] = Session(
                self._caller, self._func, arguments, self._has_aux, self._given, self._trust,
                self._compile,
            )  # fmt: skip
            if self._layout == BLOCK_DIAGONAL:
                self._sessions[key].proof = partial(sample_blocks, self._caller)
        return self._sessions[key]

    def _dense_session(self, arguments: Arguments) -> Session | None:
        """What replays a dense Jacobian that is asked for again and again, where that is safe.

        A function that cannot be captured, or whose state changes from call to call, is run.
        """
        if self._holomorphic or not _torch.plain_autograd_sees_everything():
            return None
        if torch.is_grad_enabled() and any(t.requires_grad for t in arguments.primals):
            return None
        key = (arguments.signature, torch_modes())
        calls = self._dense_calls[key] = self._dense_calls.get(key, 0) + 1
        if calls < _REPLAYED_FROM:
            return None
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(
                self._caller, self._func, arguments, self._has_aux, None, self._trust,
                self._compile, dense=True,
            )  # fmt: skip
        return session if session.is_captured and session.looks <= _LOOKS else None

    def _dense(self, arguments: Arguments) -> tuple[Any, Any]:
        """One product for every row, or for every column where these are fewer."""
        known = self._batches.get(arguments.signature)
        source = Function(self._caller, self._func, arguments, self._has_aux, known)
        m = sum(t.numel() for t in source.outputs)
        n = sum(t.numel() for t in source.primals)
        whole = self._unit_products(source, m, n)
        self._batches[arguments.signature] = source.batches
        if not torch.is_grad_enabled() and _torch.running_transform() is None:
            whole = whole.detach()
        self.engine, self.notes = "function", (*notes_of(self._func), *source.reasons)
        outputs, inputs = tuple(source.returned), arguments.inputs
        if self._holomorphic:
            whole = complex_matrix(self._caller, whole, inputs, outputs)
            outputs, inputs = as_reals(outputs), as_reals(inputs)
        return blocks(whole, outputs, inputs, arguments, source.out), source.aux

    def _unit_products(self, source: Function, m: int, n: int) -> Tensor:
        like = torch.empty(0, dtype=_dtype(source), device=_device(source))
        if not m or not n:
            return like.new_zeros(m, n)
        if n < m and source.goes_forward():
            columns = _units(n, self._chunk, m, like, source.fwd).T
            if _has_the_rows(columns, source, like):
                return columns
        return _units(m, self._chunk, n, like, source.rev)

    def __repr__(self) -> str:
        name = getattr(self._func, "__name__", type(self._func).__name__)
        plan = self.plan
        how = "dense" if plan is None else f"{plan.num_products} products, mode {plan.mode}"
        return f"{self._caller}({name}, argnums={self._argnums}): {how}"


def _units(
    count: int, chunk: int | None, width: int, like: Tensor, push: Callable[..., Tensor]
) -> Tensor:
    pieces = []
    whole: Tensor | None = None
    for start, stop in chunks(count, chunk, (count + width) * like.element_size()):
        units = like.new_zeros(stop - start, count)
        units.diagonal(start).fill_(1)
        found = push(units, chunk).to(like.dtype)
        if found.requires_grad or stop - start == count or _torch.running_transform() is not None:
            pieces.append(found)
            continue
        whole = like.new_empty(count, width) if whole is None else whole
        whole[start:stop] = found
    if whole is not None:
        return whole
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _has_the_rows(found: Tensor, source: Function, like: Tensor) -> bool:
    """Whether two rows are those of the backward for unit cotangents.

    A backward that looks at its cotangent's values may pass every other test.
    """
    if _torch.running_transform() is not None:
        return True
    m = found.shape[0]
    with torch.no_grad():
        for row in {m // 3, (2 * m) // 3}:
            unit = like.new_zeros(1, m)
            unit[0, row] = 1
            truth = source.rev(unit)[0].to(like.dtype)
            if not same(found[row], truth, rounding_of(like.dtype)):
                return False
    return True


def _dtype(source: Function | Existing) -> torch.dtype:
    tensors = (*source.primals, *source.outputs)
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _device(source: Function | Existing) -> torch.device:
    return (*source.primals, *source.outputs)[0].device


def checked_layout(
    caller: str,
    plan: object,
    layout: Any,
    chunk_size: int | None,
    has_aux: object,
    compile: object,
    otherwise: Any = torch.strided,
) -> Any:
    """The layout that is meant, with all options checked; ``otherwise`` is that without a plan."""
    _checks.chunk_size(caller, chunk_size)
    _checks.flag(caller, "has_aux", has_aux)
    if plan is not None and not isinstance(plan, Plan):
        raise _checks.not_a_plan(caller, plan)
    _checks.flag(caller, "compile", compile)
    if layout is None:
        layout = otherwise if plan is None else torch.sparse_csr
    blocks_too = (BLOCK_DIAGONAL,) if otherwise is torch.strided else ()
    _checks.jacobian_layout(caller, layout, (*LAYOUTS, *blocks_too))
    return layout


def jacobian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    plan: Plan | None = None,
    layout: Any = None,
    compile: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
    *,
    trust_indices: bool = False,
    holomorphic: bool = False,
    wrt: Any = None,
) -> Jacobian:
    """A function of the arguments of ``func`` that returns its Jacobian.

    Without a plan the Jacobian is dense, in the structure of ``torch.func.jacrev``: for every
    output and every leaf of the selected arguments a tensor of shape
    ``(*output.shape, *input.shape)``. With a plan it is the sparse (m, n) matrix, a row per output
    element and a column per input element.

    ``J`` is the Jacobian of the backward pass: a straight-through estimator counts as it behaves.
    An output without a graph gives zero rows. A complex element stands for two real ones: it takes
    two rows or columns, (re, im), and a last axis of 2 in the dense structure. Results are
    differentiable where the arguments or what ``func`` closes over require grad; under
    ``torch.no_grad()`` they are plain, and faster. What is called three times with arguments of one
    kind is replayed from then on where that is safe, without a plan as well: ``func`` itself runs
    again only if something that it reads has changed.

    Args:
        func: called as ``func(*args)``; returns a tensor or a pytree of tensors.
        argnums: the position of the argument to differentiate, or a tuple of positions.
        plan: from ``pb.plan_jacobian``. It is refused where it does not fit.
        layout: ``torch.strided``, ``torch.sparse_csr``, ``torch.sparse_coo``, or "scipy" for a
            ``scipy.sparse.csr_array``; None is strided without a plan, CSR with one. A sparse
            layout without a plan plans at the first call, once for each set of shapes.
            "block_diagonal" is for functions of a batch that treat each sample on its own: dense
            tensors of shape ``(B, *output.shape[1:], *input.shape[1:])``, in the structure of
            ``torch.func.jacrev``, where B is the length of everybody's first axis. Samples that
            depend on each other are found in the pattern, and refused.
        compile: let Inductor make one kernel of the forward pass and all products, at the first
            call of each set of shapes (seconds; kept on disk for later processes). Where it cannot
            or does not pay, products are replayed, and ``notes`` of the result says why.
        chunk_size: how many products run at once; None fits a chunk into 256 MiB.
        has_aux: ``func`` returns ``(output, aux)``, and so does the result: ``(J, aux)``. For the
            value beside the Jacobian, return it twice: ``return y, y``.
        trust_indices: take an index tensor that is the same object at the same version for
            unchanged, without reading it.
        holomorphic: all selected arguments and outputs are complex, and ``func`` is complex
            differentiable: give the complex matrix dy/dx, an entry per complex element. The
            Cauchy-Riemann equations are checked at every call.
        wrt: for a module, whose tensors to differentiate with respect to: "parameters" for all that
            require grad, a name such as "layer.weight" (of a frozen parameter or a buffer, too), a
            pattern such as "layers.*.weight" for the parameters that match, or a list of these. The
            dense form is a dict of a block per name. They are read from the module at every call,
            and neither they nor their ``.grad`` are touched. None and "inputs" mean the arguments
            that ``argnums`` selects.

    Raises:
        ArgumentError: an option is not one of those above; later, see ``Jacobian.__call__``.
        UnsupportedError: later, with layout "block_diagonal": samples depend on each other. The
            message names two of them and the call that couples them.

    >>> import torch, pullback as pb
    >>> f = lambda x: (x[1:] - x[:-1]) ** 2
    >>> x = torch.tensor([0.0, 1.0, 3.0])
    >>> pb.jacobian(f)(x)
    tensor([[-2.,  2.,  0.],
            [ 0., -4.,  4.]])
    >>> J = pb.jacobian(f, layout=torch.sparse_csr)(x)
    >>> J.values(), J.col_indices()
    (tensor([-2.,  2., -4.,  4.]), tensor([0, 1, 1, 2], dtype=torch.int32))

    Method: compressed products and direct recovery (A. Curtis, M. Powell and J. Reid, "On the
    estimation of sparse Jacobian matrices", 1974); see ``pb.plan_jacobian`` for the structure.
    """
    caller = "jacobian"
    layout = checked_layout(caller, plan, layout, chunk_size, has_aux, compile)
    named = wrt_of(caller, func, wrt, argnums)
    return Jacobian(
        func if named is None else named.called, argnums, plan, layout, chunk_size, has_aux,
        trust_indices, holomorphic, compile, wrt=named,
    )  # fmt: skip
