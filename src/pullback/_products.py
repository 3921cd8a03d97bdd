"""Single products: ``vjp``, ``jvp``, and the pullback object that ``vjp`` returns.

Plain autograd does the work wherever it is the outermost differentiation. Inside a transform,
under forward-mode AD, in inference mode and under a compiler ``torch.func`` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import _checks, _torch
from ._engines import Batch, climb_down, wrongly_batched
from ._linear import (
    Forward,
    GraphProducts,
    RandomState,
    flat_outputs,
    flat_primals,
    forward_mode,
    is_refused_by_reverse_mode,
    run,
    transposed,
)
from ._trees import Tree


@dataclass
class _TransformProducts:
    """The products of a pullback that ``torch.func.vjp`` returned."""

    pull: Callable[..., Any]
    outputs: pytree.TreeSpec
    like: Sequence[Tensor]
    wrong: str

    def one(
        self,
        vectors: Sequence[Tensor],
        retain_graph: bool = True,
        create_graph: bool | None = None,
    ) -> tuple[Tensor, ...]:
        found = self.pull(
            self.outputs.unflatten(list(vectors)),
            retain_graph=retain_graph,
            create_graph=create_graph,
        )
        return tuple(pytree.tree_leaves(found))

    def many(self, batch: Sequence[Tensor], chunk_size: int | None = None) -> Batch:
        return climb_down(self.one, batch, self.like, chunk_size, wrong=self.wrong)


class VJP:
    """The pullback of a function at a point: cotangents in, gradients out.

    ``pull(cotangents)`` takes one cotangent per output, in the structure of the outputs and of
    their shapes, and returns a tuple with one gradient per primal, of its shape: ``J' v``, where
    ``J`` is the Jacobian of the recorded backward pass. The function is not run again.

    ``pull.engine`` and ``pull.notes`` say how the last ``pull.batched`` was computed.
    """

    engine: str | None = None
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        products: GraphProducts | _TransformProducts,
        outputs: Sequence[Tensor],
        output: Tree,
        primals: tuple[Any, ...],
    ) -> None:
        self._products = products
        self._outputs = outputs
        self._only = outputs[0] if isinstance(output, Tensor) else None
        self._output_spec = None if self._only is not None else pytree.tree_structure(output)
        flat = all(isinstance(primal, Tensor) for primal in primals)
        self._primal_spec = None if flat else pytree.tree_structure(primals)

    def __call__(
        self, cotangents: Tree, retain_graph: bool = True, create_graph: bool | None = None
    ) -> tuple[Any, ...]:
        """One gradient per primal: the VJP with ``cotangents``.

        ``retain_graph=False`` frees the graph, which makes this the last product. A graph of the
        product itself is kept wherever somebody may differentiate it, unless ``create_graph`` is
        False; None leaves it to the grad mode of the call.

        Raises:
            CotangentError: a cotangent is missing or does not pair with its output.
        """
        fits = self._plainly_fits(cotangents, lead=0)
        checked = (cotangents,) if fits else self._checked(cotangents)
        return self._rebuilt(self._products.one(checked, retain_graph, create_graph))

    def batched(self, cotangents: Tree, chunk_size: int | None = None) -> tuple[Any, ...]:
        """Many products along one graph: every cotangent has a leading axis of ``B``.

        Returns one tensor of shape ``(B, *primal.shape)`` per primal. ``chunk_size`` bounds how
        many products run at once; None fits a chunk's cotangents and gradients into 256 MiB.

        Raises:
            CotangentError: a batch does not pair with its output, or the batches differ in length.
            ArgumentError: ``chunk_size`` is not a positive whole number.

        >>> import torch, pullback as pb
        >>> out, pull = pb.vjp(torch.square, torch.tensor([1.0, 2.0]))
        >>> pull.batched(torch.eye(2))
        (tensor([[2., 0.],
                [0., 4.]]),)
        >>> pull.engine
        'vmap'
        """
        _checks.chunk_size("pull.batched", chunk_size)
        if self._plainly_fits(cotangents, lead=1):
            checked: tuple[Tensor, ...] = (cotangents,)
        else:
            checked = _checks.batched_cotangents_for("pull.batched", self._leaves(), cotangents)
        batch = self._products.many(checked, chunk_size)
        self.engine, self.notes = batch.engine, batch.reasons
        return self._rebuilt(batch.gradients)

    def __repr__(self) -> str:
        shapes = ", ".join(_checks.shape_text(output.shape) for output in self._outputs)
        return f"VJP(cotangents of shape {shapes})"

    def _plainly_fits(self, cotangents: Tree, lead: int) -> bool:
        """Whether this is one tensor for one output, of its type, with ``lead`` more axes."""
        only = self._only
        return (
            only is not None
            and isinstance(cotangents, Tensor)
            and cotangents.ndim == only.ndim + lead
            and cotangents.shape[lead:] == only.shape
            and cotangents.dtype == only.dtype
            and cotangents.device == only.device
        )

    def _checked(self, cotangents: Tree) -> tuple[Tensor, ...]:
        leaves = self._leaves()
        for k in _checks.missing_cotangents(leaves, cotangents):
            offer = _checks.Offer(
                f"pull(torch.ones_like({leaves.names[k]}))",
                f"the gradient of {leaves.names[k]}.sum()",
                (),
            )
            _checks.no_cotangent("pull", leaves.names[k], leaves.tensors[k], [offer])
        return _checks.cotangents_for("pull", leaves, cotangents, cast=True)

    def _leaves(self) -> _checks.Leaves:
        tensors = list(self._outputs)
        spec = self._output_spec
        return _checks.leaves_of(
            "pull", "out", tensors[0] if spec is None else spec.unflatten(tensors)
        )

    def _rebuilt(self, found: tuple[Tensor, ...]) -> tuple[Any, ...]:
        if self._primal_spec is None:
            return found
        rebuilt: tuple[Any, ...] = self._primal_spec.unflatten(list(found))
        return rebuilt


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of ``func`` at ``primals`` and its pullback there: a drop-in for torch.func.vjp.

    Returns ``(output, pull)``, or ``(output, pull, aux)`` with ``has_aux=True``. ``primals`` and
    ``output`` are tensors or pytrees of tensors. ``pull(v)`` is the vector-Jacobian product
    ``J' v``, one gradient per primal: the gradient of the weighted sum ``<v, func(x)>``. ``func``
    runs once, however many products follow; ``pull.batched`` takes many cotangents at once.

    ``J`` is the Jacobian of the backward pass, so a straight-through estimator counts as it
    behaves. An outer ``torch.no_grad`` is ignored, one inside ``func`` is respected. The output
    and the products stay differentiable with respect to whatever else required grad: primals,
    parameters that ``func`` closes over, cotangents.

    Raises:
        TreeError: a primal or an output is not a tensor.
        ArgumentError: a primal or an output has an integer or boolean dtype.

    >>> import torch, pullback as pb
    >>> x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> out, pull = pb.vjp(lambda x: (x + 1).pow(2).t(), x)
    >>> out.shape
    torch.Size([3, 2])
    >>> pull(torch.ones(3, 2))
    (tensor([[ 4.,  6.,  8.],
            [10., 12., 14.]]),)

    Method: reverse accumulation on the graph that ``func`` records over aliases of its primals
    (Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 3.2).
    """
    if not _torch.plain_autograd_sees_everything():
        return _vjp_in_transform(func, primals, has_aux)
    state = RandomState(primals)
    forward = run("vjp", func, primals, has_aux)
    if forward.products.outside and forward.products.compiled:
        # Plain autograd would cut derivatives of the product there; torch.func does not compile.
        state.restore()
        return _vjp_in_transform(func, primals, has_aux)
    if not all(t.is_floating_point() or t.is_complex() for t in forward.flat):
        _checks.differentiable_outputs("vjp", _checks.leaves_of("vjp", "out", forward.outputs))
    pull = VJP(forward.products, forward.flat, forward.outputs, primals)
    return (forward.outputs, pull, forward.aux) if has_aux else (forward.outputs, pull)


def _vjp_in_transform(
    func: Callable[..., Any], primals: tuple[Any, ...], has_aux: bool
) -> tuple[Any, ...]:
    wrong: list[str] = []

    def watched(*given: Any) -> Any:
        found = func(*given)
        leaves = pytree.tree_leaves(found[0] if has_aux else found)
        wrong.append(wrongly_batched([t for t in leaves if isinstance(t, Tensor)]))
        return found

    if torch.compiler.is_compiling():  # there are no nodes to look at
        wrong, watched = [""], func
    output, pull, *aux = torch.func.vjp(watched, *primals, has_aux=has_aux)
    tree, like = pytree.tree_structure(output), pytree.tree_leaves(primals)
    products = _TransformProducts(pull, tree, like, wrong[-1])
    return (output, VJP(products, flat_outputs("vjp", output), output, primals), *aux)


def jvp(
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> tuple[Any, ...]:
    """The value of ``func`` and its Jacobian-vector product: a drop-in for torch.func.jvp.

    Returns ``(output, J t)``, or ``(output, J t, aux)`` with ``has_aux=True``; ``J t`` has the
    structure, shapes and dtypes of the output. Outputs that do not depend on the primals, and
    integer outputs, have a zero tangent; ``strict=True`` refuses the former.

    ``J`` is the Jacobian of the backward pass: a straight-through estimator is the identity here,
    what ``func`` computes under ``torch.no_grad`` is a constant, and ``<v, J t> = <J' v, t>``
    with the products of ``vjp``. Where torch cannot differentiate the backward pass (found out
    by that same identity), ``torch.func.jvp`` takes over and ``func`` runs once more, with the
    same random draws.

    Raises:
        TreeError: ``primals`` is not a tuple, or ``tangents`` has another structure.
        ArgumentError: a tangent has another shape, or a primal has an integer dtype.
        UnsupportedError: neither the backward pass nor forward mode can carry the tangent.

    >>> import torch, pullback as pb
    >>> out, dout = pb.jvp(torch.square, (torch.tensor([1.0, 2.0]),), (torch.tensor([1.0, 10.0]),))
    >>> out, dout
    (tensor([1., 4.]), tensor([ 2., 40.]))

    Method: the VJP of the linear map ``w -> J' w`` (J. Townsend, "A new trick for calculating
    Jacobian vector products", 2017).
    """
    _checks.primals_are_a_tuple("jvp", primals)
    flat, _ = flat_primals("jvp", primals)
    given = _tangents(primals, flat, tangents)
    if strict or not _plain(flat, given):
        return forward_mode(func, primals, tangents, strict=strict, has_aux=has_aux)
    state = RandomState(flat)
    try:
        forward = run("jvp", func, primals, has_aux)
    except RuntimeError as error:
        if not is_refused_by_reverse_mode(error):
            raise
        state.restore()
        return forward_mode(func, primals, tangents, has_aux=has_aux)
    try:
        product = _through_backward(forward, given)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        state.restore()
        try:
            return forward_mode(func, primals, tangents, has_aux=has_aux)
        except RuntimeError as other:
            raise _checks.no_jvp("jvp", error, other) from error
    return (forward.outputs, product, forward.aux) if has_aux else (forward.outputs, product)


def _plain(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> bool:
    return _torch.plain_autograd_sees_everything() and all(
        primal.dtype == tangent.dtype for primal, tangent in zip(primals, tangents, strict=True)
    )


def _tangents(primals: tuple[Any, ...], flat: Sequence[Tensor], tangents: Tree) -> Sequence[Tensor]:
    if (
        flat is primals
        and type(tangents) is tuple
        and len(tangents) == len(flat)
        and all(
            isinstance(t, Tensor) and t.shape == p.shape and t.device == p.device
            for t, p in zip(tangents, flat, strict=True)
        )
    ):
        return tangents
    return _checks.tangents_for("jvp", _checks.leaves_of("jvp", "primals", primals), tangents)


def _through_backward(forward: Forward, tangents: Sequence[Tensor]) -> Tree:
    double = transposed(forward.products)
    found = double.map.one(tangents)
    if not double.agrees(tangents, found):
        raise RuntimeError(_checks.HIDDEN_BACKWARD)
    if isinstance(forward.outputs, Tensor):
        return found[0]
    return pytree.tree_structure(forward.outputs).unflatten(list(found))
