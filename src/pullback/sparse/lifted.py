"""Evaluation along a lift: the differentiated parts are run, the rest is a fixed assembly."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .assemble import PairAssembler, multiply
from .captured import Captured, without_autocast
from .compiled import Compiled, NotCompiled, compiled
from .fused import Fused
from .graph import Meta, extract, is_needed
from .lift.spec import Factor, Lift
from .lift.strided import script_of
from .parts import Part
from .pattern import SparsityPattern
from .straight import NotStraight, Straight, straightened


class LiftedRun:
    """The values of one lift of one captured graph, at any tensors."""

    def __init__(self, captured: Captured, lift: Lift, dtype: torch.dtype) -> None:
        graph = captured.graph
        self._captured, self._dtype = captured, dtype
        self._device = graph.cotangents[0].meta.device
        self.reasons: list[str] = []
        self._compiled: Compiled | None = None
        self._straight: Straight | None = None
        self._forms: list[Any] = []  # of the tensors that there is a straight line for
        self._inside = False  # whether what is made of the program assembles the values, too
        self._fused: Fused | None = None
        ones = (False,) * len(lift.factors) if lift.pairs is None else lift.pairs.ones
        self._parts = [
            Part(captured, factor, dtype, self._device, self.reasons, with_one=one)
            for factor, one in zip(lift.factors, ones, strict=True)
        ]
        handed = dict.fromkeys(n for part in self._parts for n in part.reads)
        self._handed = list(handed)
        late = graph.late
        self._forward = extract(
            graph,
            [i.node for i in graph.inputs if i.kind != "cotangent"],
            [n for n in graph.nodes if n.op in ("call_function", "get_attr") and n not in late],
            (*handed, *graph.results[len(graph.primals) + graph.num_outputs :]),
        )
        self._pairs = None if lift.pairs is None else PairAssembler(lift.pairs, dtype)
        self._chain = [
            (_ends(a.pattern), _ends(b.pattern), _ends(product), product.shape[1])
            for a, b, product in ([] if lift.pairs is not None else _multiplied(lift))
        ]

    def values(self, tensors: Sequence[Tensor], chunk_size: int) -> tuple[Tensor, list[Tensor]]:
        """The values, shape ``(nnz,)``, and the tensors of aux."""
        found = self.at_once(tensors)
        if found is not None:
            return found[0], list(found[1:])
        return self._assembled(self._results(tensors, chunk_size), None)

    def at_once(
        self, tensors: Sequence[Tensor], into: Tensor | None = None
    ) -> Sequence[Tensor] | None:
        """The values and the tensors of aux by the compiled program, or by its straight line; None
        where there is none for these tensors.

        ``into``, contiguous and apart from ``tensors``, receives the values.
        """
        inside = into if self._inside else None
        if self._compiled is not None:
            given = [t.detach() if t.requires_grad else t for t in tensors]
            try:
                results = self._compiled(given, inside)
            except NotCompiled as reason:  # there is another number of threads now
                self._compiled = None
                self.reasons.append(_checks.left_to_replay(str(reason)))
                return None
        elif self._straight is not None and [*map(_form, tensors)] == self._forms:
            with without_autocast():
                results = self._straight(*tensors)
            if inside is not None:
                inside.copy_(results[0])
                results = (inside, *results[1:])
        else:
            return None
        if self._inside:
            return results
        values, aux = self._assembled(results, into)
        return values, *aux

    def _assembled(
        self, results: Sequence[Tensor], into: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        if self._pairs is not None:
            return self._pairs(results[0], results[1], into), list(results[2:])
        last = len(self._parts) - 1
        found = [
            part.assembler(flat, into if last == 0 else None)
            for part, flat in zip(self._parts, results, strict=False)
        ]
        product = found[0]
        for k, (a, b, pattern, width) in enumerate(self._chain, 1):
            place = into if k == last else None
            product = multiply(a, product, b, found[k], pattern, width, place)
        return product, list(results[len(self._parts) :])

    def _results(self, tensors: Sequence[Tensor], chunk_size: int) -> Sequence[Tensor]:
        """The products of each part, flattened, and the tensors of aux."""
        with without_autocast():
            with torch.enable_grad():
                results = self._forward(*tensors)
            with torch.no_grad():
                at = dict(zip(self._handed, results, strict=False))
                flat = [part.products(at, chunk_size) for part in self._parts]
        return [*flat, *results[len(self._handed) :]]

    def _program(self, *given: Tensor) -> tuple[Tensor, ...]:
        """All products of each part, or the values where tensor calls alone put them together."""
        flat = self._flat(*given)
        if self._inside:
            return self._parts[0].assembler.traceable(flat[0]), *flat[1:]
        return flat

    def _flat(self, *given: Tensor) -> tuple[Tensor, ...]:
        results = self._forward(*given)
        at = dict(zip(self._handed, results, strict=False))
        flat = [part.products(at, None) for part in self._parts]
        return (*flat, *results[len(self._handed) :])

    def _writing(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The values piece by piece, where they can be."""
        assert self._fused is not None
        results = self._forward(*given)
        at = dict(zip(self._handed, results, strict=False))
        pieces = self._fused.pieces([part.segments(at) for part in self._parts])
        return (*pieces, *results[len(self._handed) :])

    def _whole(self, *given: Tensor) -> tuple[Tensor, ...]:
        values, aux = self._assembled(self._flat(*given), None)
        return values, *aux

    def _can_be_inside(self) -> bool:
        one = self._pairs is None and len(self._parts) == 1
        return one and self._parts[0].assembler.is_traceable

    def straighten(self, tensors: Sequence[Tensor], loose: float, chunk_size: int) -> bool:
        """Let one straight line of calls compute all products, if it can be had and trusted."""
        if self._compiled is not None or any(p.most_products > chunk_size for p in self._parts):
            return False
        self._inside = self._can_be_inside()
        try:
            # Tried out, a program must leave no trace: neither a write nor a draw.
            if not any(n.op == "call_function" and is_needed(n) for n in self._forward.graph.nodes):
                with without_autocast():
                    self._straight = straightened(self._program, tensors, loose=loose)
                self._forms = [*map(_form, tensors)]
        except NotStraight:
            return False
        return self._straight is not None

    def compile(
        self,
        lift: Lift,
        pattern: SparsityPattern,
        tensors: Sequence[Tensor],
        loose: float,
        chunk_size: int,
    ) -> None:
        """Let one kernel compute all products, if it can be had and trusted; else say why not."""
        try:
            # Tried out, a program must leave no trace: neither a write nor a draw.
            if any(n.op == "call_function" and is_needed(n) for n in self._forward.graph.nodes):
                raise NotCompiled("it draws random numbers or writes to a tensor of others")
            if any(_is_complex(meta) for meta in self._captured.graph.metas.values()):
                raise NotCompiled("no code is generated for complex numbers")
            if any(part.most_products > chunk_size for part in self._parts):
                raise NotCompiled("its products do not fit into one chunk")
            self._compiled = self._kernel(lift, pattern, [t.detach() for t in tensors], loose)
        except NotCompiled as reason:
            self.reasons.append(_checks.left_to_replay(str(reason)))

    def _kernel(
        self, lift: Lift, pattern: SparsityPattern, plain: Sequence[Tensor], loose: float
    ) -> Compiled:
        script = script_of(lift, pattern, [part.cuts for part in self._parts])
        if script is not None:
            self._fused = fused = Fused(script, self._dtype, self._device)
            with suppress(NotCompiled):
                found = compiled(
                    self._writing, plain, loose=loose, placed=fused.placed, whole=self._whole
                )
                self._inside = True
                return found
            self._fused = None
        self._inside = self._can_be_inside()
        return compiled(self._program, plain, loose=loose)

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    @property
    def forms(self) -> list[str]:
        """How each factor's values are put together."""
        if self._pairs is not None:
            return [self._pairs.form]
        return [part.assembler.form for part in self._parts]


def _multiplied(lift: Lift) -> list[tuple[Any, Factor, SparsityPattern]]:
    found: list[tuple[Any, Factor, SparsityPattern]] = []
    before: Any = lift.factors[0]
    for factor, product in zip(lift.factors[1:], lift.products, strict=True):
        found.append((before, factor, product))
        before = _Product(product)
    return found


class _Product:
    def __init__(self, pattern: SparsityPattern) -> None:
        self.pattern = pattern


def _ends(pattern: SparsityPattern) -> tuple[Any, Any]:
    return pattern.indptr.astype(np.int64), pattern.indices.astype(np.int32, copy=False)


def _is_complex(meta: Any) -> bool:
    parts = [meta] if isinstance(meta, Meta) else meta or ()
    return any(isinstance(m, Meta) and m.dtype.is_complex for m in parts)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
