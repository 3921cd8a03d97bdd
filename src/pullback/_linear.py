"""A function run once under autograd, and the linear maps that its graph gives.

The primals reach the function as private aliases, so that the caller's own graph, leaves and
hooks stay out of the products, and are still there for derivatives of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node
from torch.utils import _pytree as pytree

from . import _checks, _torch
from ._adjoint import STRICT_PROBES, is_adjoint, pair_up, probe, python_nodes
from ._engines import Batch, Source, batched_gradients, climb_down, gradients
from ._trees import Tree


class Products(Protocol):
    """A linear map, given by its products: one at a time, or a batch along a leading axis."""

    def one(self, vectors: Sequence[Tensor]) -> tuple[Tensor, ...]: ...

    def many(self, batch: Sequence[Tensor], chunk_size: int | None = None) -> Batch: ...


class Reach:
    """Tells which tensors depend on a leaf that is not one of ``private``."""

    def __init__(self, private: Sequence[Tensor]) -> None:
        self._private = {id(t) for t in private}
        self._inside: set[Node] = set()

    def outside(self, tensor: Tensor) -> bool:
        if tensor.grad_fn is None:
            return tensor.requires_grad and id(tensor) not in self._private
        seen: set[Node] = set()
        stack: list[Node] = [tensor.grad_fn]
        while stack:
            node = stack.pop()
            if node in seen or node in self._inside:
                continue
            seen.add(node)
            following = node.next_functions
            if not following:
                leaf = _torch.leaf_of(node)
                if leaf is not None and id(leaf) not in self._private:
                    return True
            stack.extend(child for child, _ in following if child is not None)
        self._inside |= seen
        return False

    def visible(self, tensor: Tensor) -> Tensor:
        """``tensor`` as a caller may see it: no graph, if it leads to private leaves only."""
        return tensor if not tensor.requires_grad or self.outside(tensor) else tensor.detach()


@dataclass
class GraphProducts:
    """The map from cotangents at ``outputs`` to gradients at ``inputs`` along one autograd graph.

    ``like`` has the shapes and dtypes of the inputs, ``private`` are the leaves that only this
    graph owns, and ``outside`` says that there are others, whose derivatives may still be wanted.
    """

    outputs: Sequence[Tensor]
    inputs: Sequence[Source]
    like: Sequence[Tensor]
    private: Sequence[Tensor]
    outside: bool

    def __post_init__(self) -> None:
        self._edges = [
            GradientEdge(output.grad_fn, output.output_nr) if output.grad_fn is not None else None
            for output in (self.outputs if self.outside else ())
        ]

    def one(
        self,
        vectors: Sequence[Tensor],
        retain_graph: bool = True,
        create_graph: bool | None = None,
    ) -> tuple[Tensor, ...]:
        deeper = self._is_differentiated(vectors, create_graph)
        if deeper:
            self._refuse_compiled()
        found = gradients(
            self._sources(), self.inputs, vectors, create_graph=deeper, retain_graph=retain_graph
        )
        filled = tuple(
            torch.zeros_like(t) if gradient is None else gradient
            for t, gradient in zip(self.like, found, strict=True)
        )
        return self._without_private_graph(filled) if deeper else filled

    def many(
        self,
        batch: Sequence[Tensor],
        chunk_size: int | None = None,
        order: Sequence[str] | None = None,
    ) -> Batch:
        """``order`` are the engines to try, instead of all that can be believed."""
        deeper = self._is_differentiated(batch, None)
        if deeper:
            self._refuse_compiled()
        found = batched_gradients(
            self._sources(),
            self.inputs,
            batch,
            chunk_size,
            like=self.like,
            create_graph=deeper,
            order=order,
        )
        if not deeper:
            return found
        results = self._without_private_graph(found.gradients)
        return Batch(results, found.engine, found.reasons)

    def _sources(self) -> Sequence[Source]:
        """The outputs; an edge where a caller has since changed one in place."""
        if not self.outside:
            return self.outputs
        return [
            output if edge is None or output.grad_fn is edge.node else edge
            for output, edge in zip(self.outputs, self._edges, strict=True)
        ]

    def _is_differentiated(self, vectors: Sequence[Tensor], wanted: bool | None) -> bool:
        """Whether somebody may differentiate the product itself.

        Inside torch.func.grad the answer must be yes: without a graph the engine returns zero
        derivatives there, silently.
        """
        if not (torch.is_grad_enabled() if wanted is None else wanted):
            return False
        return (
            self.outside
            or any(vector.requires_grad for vector in vectors)
            or _torch.gradient_transform_is_running()
        )

    @cached_property
    def compiled(self) -> bool:
        """Whether the graph holds a region that torch.compile compiled."""
        names = python_nodes([output for output in self.outputs if output.requires_grad])
        return any(name.startswith("CompiledFunction") for name in names)

    def _refuse_compiled(self) -> None:
        """The backward of a compiled region is cut off silently when it is differentiated."""
        if self.compiled:
            _checks.compiled_region()

    def _without_private_graph(self, found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if _torch.running_transform() is not None:
            return found
        reach = Reach(self.private)
        return tuple(map(reach.visible, found))


@dataclass
class Forward:
    """One run of a function: what the caller may see of it, and its products."""

    outputs: Tree
    aux: Tree
    flat: list[Tensor]
    products: GraphProducts


def run(caller: str, func: Callable[..., Any], primals: Sequence[Any], has_aux: bool) -> Forward:
    """Call ``func`` once on private aliases of ``primals``, with gradients enabled."""
    flat, rebuild = flat_primals(caller, primals)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = [_alias(primal) for primal in flat]
        try:
            returned = func(*rebuild(aliases))
        except RuntimeError as error:
            if is_in_place_refusal(error):
                error.add_note(_checks.IN_PLACE_NOTE)
            raise
    aux = None
    if has_aux:
        returned, aux = _checks.output_and_aux(caller, returned)
    outputs = flat_outputs(caller, returned)
    private = [alias for alias in aliases if alias.is_leaf]
    reach = Reach(private)

    def shown(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        for alias, primal in zip(aliases, flat, strict=True):
            if value is alias and (keep or not primal.requires_grad):
                return primal
        if not keep or not reach.outside(value):
            return value.detach()
        # Hooks that the caller puts on a view of its own stay out of the products.
        return value.view_as(value) if value.layout is torch.strided else value

    single = isinstance(returned, Tensor)
    visible = shown(returned) if single else pytree.tree_map(shown, returned)
    outside = any(map(reach.outside, outputs))
    edges = [alias if alias.is_leaf else _edge(alias) for alias in aliases]
    products = GraphProducts(outputs, edges, flat, private, outside)
    return Forward(visible, pytree.tree_map(shown, aux) if has_aux else None, outputs, products)


def flat_primals(
    caller: str, primals: Sequence[Any]
) -> tuple[Sequence[Tensor], Callable[[Sequence[Tensor]], Sequence[Any]]]:
    """The tensors of ``primals``, checked, and how to rebuild the arguments from others."""
    if all(isinstance(primal, Tensor) for primal in primals):
        flat: Sequence[Tensor] = primals
        rebuild: Callable[[Sequence[Tensor]], Sequence[Any]] = _as_given
    else:
        leaves, spec = pytree.tree_flatten(tuple(primals))
        flat, rebuild = leaves, lambda new: pytree.tree_unflatten(list(new), spec)
    if not flat or not all(isinstance(t, Tensor) and _is_smooth(t) for t in flat):
        checked = _checks.leaves_of(caller, "primals", tuple(primals))
        _checks.differentiable_primals(caller, checked)
    return flat, rebuild


def _as_given(new: Sequence[Tensor]) -> Sequence[Tensor]:
    return new


def _is_smooth(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def flat_outputs(caller: str, returned: Tree) -> list[Tensor]:
    if isinstance(returned, Tensor):
        return [returned]
    leaves = pytree.tree_leaves(returned)
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        _checks.refuse_outputs(caller, returned)
    return leaves


def _alias(primal: Tensor) -> Tensor:
    """A second name for the same memory, differentiated on its own.

    A primal with a graph keeps it. Its alias is one of several views as torch sees it, so that
    changing it in place is refused: through a plain view the change would rewrite the caller's
    graph, and the product would silently be the one at the changed value.
    """
    if primal.is_inference():
        return primal.clone().requires_grad_()
    if not primal.requires_grad:
        return primal.detach().requires_grad_()
    return primal.unsqueeze(0).unbind(0)[0]


def _edge(alias: Tensor) -> GradientEdge:
    assert alias.grad_fn is not None
    return GradientEdge(alias.grad_fn, alias.output_nr)


def is_in_place_refusal(error: RuntimeError) -> bool:
    text = str(error)
    return "in-place operation" in text or "modified inplace" in text


def is_refused_by_reverse_mode(error: RuntimeError) -> bool:
    """Whether forward mode may still do what autograd has refused while ``func`` ran."""
    return is_in_place_refusal(error) or "is not differentiable with respect to" in str(error)


@dataclass
class Transposed:
    """The double VJP: the products of ``map`` are J t, for the J of the backward pass.

    The gradient ``g(w) = J' w`` is linear in ``w``, so its own VJP with the cotangent ``t`` is
    J t. The value of ``g`` at random ``probes`` costs nothing more and tells afterwards whether a
    backward has hidden a part of itself from differentiation (``agrees``). Backward passes written
    in Python do that, so where there is one, several more products have to agree, and closely.
    """

    map: GraphProducts
    probes: list[Tensor]
    up: GraphProducts

    def agrees(self, tangents: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
        """Whether the products seen so far are those of one J."""
        strict = python_nodes(self.up.outputs) != set()
        if not pair_up(self.probes, results, self.map.outputs, tangents, self.map.like, strict):
            return False
        up = self.up
        return not strict or all(
            is_adjoint(up.one, up.outputs, tangents, results, strict=True)
            for _ in range(STRICT_PROBES)
        )


def transposed(products: GraphProducts) -> Transposed:
    """The graph of J t out of the graph of J' v. Errors of torch's double backward pass through."""
    probes = [
        probe(output) if output.requires_grad else torch.empty(0, requires_grad=True)
        for output in products.outputs
    ]
    found = gradients(products._sources(), products.inputs, probes, create_graph=True)
    outputs = [
        torch.zeros_like(t) if gradient is None else gradient
        for t, gradient in zip(products.like, found, strict=True)
    ]
    private = [*products.private, *probes]
    return Transposed(
        GraphProducts(outputs, probes, products.outputs, private, products.outside),
        probes,
        products,
    )


class RandomState:
    """The random state before a function ran, for a second run with the same draws."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._devices = {t.device for t in tensors if isinstance(t, Tensor) and t.is_cuda}
        self._host = torch.get_rng_state()
        self._cuda = [(device, torch.cuda.get_rng_state(device)) for device in self._devices]

    def restore(self) -> None:
        torch.set_rng_state(self._host)
        for device, state in self._cuda:
            torch.cuda.set_rng_state(state, device)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw as the first run did, and leave the caller's state as it was."""
        with torch.random.fork_rng([device.index for device in self._devices]):
            self.restore()
            yield


def forward_mode(
    func: Callable[..., Any], primals: tuple[Any, ...], tangents: Tree, **options: bool
) -> tuple[Any, ...]:
    """``torch.func.jvp``, also where warnings are errors."""
    if not torch.compiler.is_compiling():
        _torch.load_forward_mode()
    found: tuple[Any, ...] = torch.func.jvp(func, primals, tangents, **options)
    return found


@dataclass
class ForwardProducts:
    """The map from tangents to J t by ``torch.func.jvp``, which runs ``func`` for every product."""

    func: Callable[..., Any]
    primals: Sequence[Any]
    like: Sequence[Tensor]
    state: RandomState

    def one(self, vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        primals = tuple(self.primals)
        tangents = pytree.tree_structure(primals).unflatten(list(vectors))
        with self.state.replayed():
            found = forward_mode(self.func, primals, tangents)
        return tuple(pytree.tree_leaves(found[1]))

    def many(self, batch: Sequence[Tensor], chunk_size: int | None = None) -> Batch:
        return climb_down(self.one, batch, self.like, chunk_size)
