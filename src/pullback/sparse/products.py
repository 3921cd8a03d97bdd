"""Where products come from: a captured graph, the function itself, or a graph that exists.

Seeds and results are matrices, one row per product: ``rev`` takes ``(B, m)`` to ``(B, n)`` and
``fwd`` takes ``(B, n)`` to ``(B, m)``, with the outputs' and the primals' elements side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import _checks, _torch
from .._engines import ORDER, Batch, climb_down, wrongly_batched
from .._forward import forward_products
from .._linear import Forward, GraphProducts, RandomState, flat_outputs, run
from .._trees import flatten, from_vector
from .arguments import Arguments, as_real
from .captured import Captured
from .gradient import result_name
from .leaf import Leaf, leaf
from .trial import Trial, rounding_of

NO_BATCHING = "vmap was left: torch's batching rules give another result than single products"


class Source(Protocol):
    """Products of one Jacobian at one point, and why they were not computed faster."""

    outputs: Sequence[Tensor]
    primals: Sequence[Tensor]
    reasons: list[str]

    def rev(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor: ...

    def fwd(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor: ...


def _apart(seeds: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The seeds cut into contiguous tensors of their own, as a captured graph expects them."""
    pieces = from_vector(seeds, like)
    return [p if p.storage_offset() == 0 and p.is_contiguous() else p.clone(
        memory_format=torch.contiguous_format
    ) for p in pieces]  # fmt: skip


def _joined(batch: Batch, reasons: list[str], size: int, like: Sequence[Tensor]) -> Tensor:
    reasons += [r for r in batch.reasons if r not in reasons]
    flat = [g.reshape(size, t.numel()) for g, t in zip(batch.gradients, like, strict=True)]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)


def graph_order(products: GraphProducts, known: bool | None) -> tuple[bool, Sequence[str]]:
    """Whether vmap over this graph can be believed (tried out, unless known), and the engines."""
    if known is None:
        loose = max((rounding_of(t.dtype) for t in (*products.outputs, *products.like)), default=0)
        known = Trial.of(products.one, products.outputs, loose).batches_well()
    return known, ORDER if known else ("loop",)


class Replay:
    """Products by replaying a captured graph: the forward part once, the linear part per batch."""

    def __init__(
        self, captured: Captured, tensors: Sequence[Tensor], primals: Sequence[Tensor]
    ) -> None:
        self._handed, values = captured.run_forward(tensors)
        self._captured = captured
        count = len(captured.outputs)
        self.outputs: Sequence[Tensor] = values[:count]
        self.aux_tensors = values[count:]
        self.primals = primals
        self.reasons: list[str] = []

    def rev(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor:
        with torch.no_grad():
            if len(seeds) == 1:
                found = self._pull([c[0] for c in _apart(seeds, self.outputs)])
                flat = [
                    p.new_zeros(1, p.numel()) if g is None else g.reshape(1, -1)
                    for p, g in zip(self.primals, found, strict=True)
                ]
                return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
            batch = climb_down(
                self._pull,
                _apart(seeds, self.outputs),
                self.primals,
                chunk_size or len(seeds) or None,
                order=self._order(len(seeds)),
            )
        return _joined(batch, self.reasons, len(seeds), self.primals)

    def _order(self, size: int) -> tuple[str, ...]:
        if not self._captured.batches:
            self.reasons += [] if NO_BATCHING in self.reasons else [NO_BATCHING]
        return ("vmap", "loop") if size > 1 and self._captured.batches else ("loop",)

    def fwd(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor:
        """The linear part, transposed: J t is the VJP of ``v -> J' v`` with the cotangent t."""
        zeros = [t.new_zeros(t.shape) for t in self.outputs]
        live = [k for k, g in enumerate(self._captured.graph.gradients) if g is not None]

        def pulled(*cotangents: Tensor) -> tuple[Tensor, ...]:
            found = self._pull(cotangents)
            return tuple(g for g in found if g is not None)

        if not live:
            return seeds.new_zeros(len(seeds), sum(t.numel() for t in self.outputs))
        push = torch.func.vjp(pulled, *zeros)[1]
        tangents = _apart(seeds, self.primals)
        batch = climb_down(
            lambda given: push(tuple(given)),
            [tangents[k] for k in live],
            self.outputs,
            chunk_size or len(seeds) or None,
            order=self._order(len(seeds)),
        )
        return _joined(batch, self.reasons, len(seeds), self.outputs).detach()

    def _pull(self, cotangents: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        return self._captured.run_linear(self._handed, cotangents)


class Function:
    """Products by running the function under autograd, or under torch.func inside a transform.

    ``batches`` says whether batches of products can be believed; None tries it out.
    """

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        arguments: Arguments,
        has_aux: bool,
        batches: bool | None = None,
    ) -> None:
        self.primals: Sequence[Tensor] = arguments.primals
        self.reasons: list[str] = []
        self.batches = batches
        self._flat = Flattened(caller, arguments.on_primals(func), has_aux, result_name(func))
        self._forward: Forward | None = None
        self._pull: Callable[..., Any] | None = None
        self._wrong = ""
        self._state = RandomState(self.primals)
        if _torch.plain_autograd_sees_everything():
            self._forward = run(caller, self._flat, tuple(self.primals), has_aux=False)
            if self._forward.products.outside and self._forward.products.compiled:
                self._state.restore()
                self._forward = None
        if self._forward is not None:
            self.outputs: Sequence[Tensor] = self._forward.flat
        else:
            transformed = torch.func.vjp(self._watched, *self.primals)
            self.outputs, self._pull = transformed[0], transformed[1]
        self.out, self.aux = self._flat.out, self._flat.aux
        self.returned = self._flat.returned

    @property
    def products(self) -> GraphProducts | None:
        return None if self._forward is None else self._forward.products

    @property
    def forward_refusal(self) -> str:
        """Why there are no products J t here, or nothing."""
        if self._forward is None:
            return ""
        engine, _, reasons = self._down
        return "; ".join(reasons) if engine == "none" else ""

    def goes_forward(self) -> bool:
        """Whether products J t of the backward's J are to be had by the double VJP."""
        if self._forward is None:
            return False
        engine, _, _ = self._down
        return engine == "double VJP"

    @cached_property
    def _down(self) -> tuple[str, Any, tuple[str, ...]]:
        assert self._forward is not None
        return forward_products(self._forward, self._flat, tuple(self.primals), self._state)

    def rev(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor:
        cotangents = _apart(seeds, self.outputs)
        if self._forward is not None:
            products = self._forward.products
            if len(seeds) > 1:
                self.batches, order = graph_order(products, self.batches)
            batch = products.many(cotangents, chunk_size, order if len(seeds) > 1 else None)
            self.reasons += [] if self.batches is not False else [NO_BATCHING]
        else:
            batch = climb_down(self._one, cotangents, self.primals, chunk_size, wrong=self._wrong)
        return _joined(batch, self.reasons, len(seeds), self.primals)

    def fwd(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor:
        tangents = _apart(seeds, self.primals)
        if self._forward is not None:
            _, down, reasons = self._down
            self.reasons += [r for r in reasons if r not in self.reasons]
            batch = down.many(tangents, chunk_size)
        else:
            zeros = [torch.zeros_like(t) for t in self.outputs]
            push = torch.func.vjp(lambda *v: self._one(v), *zeros)[1]
            batch = climb_down(lambda t: push(tuple(t)), tangents, self.outputs, chunk_size)
        return _joined(batch, self.reasons, len(seeds), self.outputs)

    def _watched(self, *primals: Tensor) -> tuple[Tensor, ...]:
        found = self._flat(*primals)
        self._wrong = wrongly_batched(found)
        return found

    def _one(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        assert self._pull is not None
        return tuple(self._pull(tuple(cotangents)))


class Flattened:
    """``func`` with a flat tuple of outputs; keeps the structure and aux of its last run."""

    def __init__(self, caller: str, func: Callable[..., Any], has_aux: bool, name: str) -> None:
        self._caller, self._func, self._has_aux, self._name = caller, func, has_aux, name
        self.out: Any = None
        self.aux: Any = None
        self.returned: list[Leaf] = []

    def __call__(self, *primals: Tensor) -> tuple[Tensor, ...]:
        returned = self._func(*primals)
        if self._has_aux:
            returned, self.aux = _checks.output_and_aux(self._caller, returned)
        outputs = flat_outputs(self._caller, returned)
        _checks.differentiable_outputs(
            self._caller, _checks.leaves_of(self._caller, "output", returned)
        )
        _, self.out = flatten(returned)
        self.returned = [
            leaf(f"{self._name}{path}", t) for path, t in zip(self.out.paths, outputs, strict=True)
        ]
        return tuple(as_real(t) for t in outputs)


class Existing:
    """Products along a graph that the caller has made."""

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        self.outputs, self.primals = outputs, inputs
        self.reasons: list[str] = []
        self.products = GraphProducts(outputs, inputs, inputs, (), outside=True)

    def rev(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor:
        with torch.no_grad():
            _, order = graph_order(self.products, None) if len(seeds) > 1 else (True, None)
            batch = self.products.many(_apart(seeds, self.outputs), chunk_size, order)
        return _joined(batch, self.reasons, len(seeds), self.primals)

    def fwd(self, seeds: Tensor, chunk_size: int | None = None) -> Tensor:
        raise NotImplementedError
