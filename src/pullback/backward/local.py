"""One node by itself: its operation run again on the operands that it saved.

Nothing here is claimed that was not tried: operands are told only where the operation, run on them
and differentiated, sends what the node sends.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .. import _torch
from .birth import Proof, Shown
from .finite import Index, Value, index_of, plain, value_at
from .operations import OPERATIONS, Guard, Operation

_SHOWN_OF_A_SLICE = 16
_ENTRIES_OF_A_RERUN = 1 << 24

Sent = Sequence[Tensor | None]


@dataclass(frozen=True, eq=False)
class Rerun:
    """An operation with the operands of this pass: ``scope`` is what its source text may name."""

    operation: Operation
    saved: Mapping[str, Any]
    operands: dict[str, Tensor]
    scope: dict[str, Any]

    def value(self, text: str, **operands: Tensor) -> Any:
        return eval(text, {**self.scope, **self.operands, **operands})

    @property
    def by_entry(self) -> bool:
        """Whether each entry of the result has one entry of each operand behind it."""
        return not self.operation.along and not self.operation.by_pairs

    @property
    def dims(self) -> tuple[int, ...] | None:
        """The dims along which entries depend on each other; None: entry by entry."""
        if not self.operation.along:
            return None
        dims = self.value(self.operation.along)
        count = self.operands["a"].ndim
        if dims is None or dims == ():
            return tuple(range(count))
        return tuple(d % max(count, 1) for d in ([dims] if isinstance(dims, int) else dims))


def rerun_of(node: Node, upstream: Tensor) -> Rerun | None:
    """The operation of ``node`` on its saved operands; None where it is not in the table, or what
    it sends for ``upstream`` is not what the node sends."""
    operation = OPERATIONS.get(_torch.node_name(node))
    if operation is None or upstream.numel() > _ENTRIES_OF_A_RERUN:
        return None
    saved = _torch.saved_values(node)
    scope: dict[str, Any] = {**saved, "torch": torch, "ones": torch.ones_like(upstream)}
    scope["limit"] = math.floor(math.log(torch.finfo(upstream.dtype).max))
    try:
        operands = {name: eval(text, dict(scope)) for name, text in operation.operands.items()}
        if not operation.along and not operation.by_pairs:
            operands = {name: _laid_out(t, upstream) for name, t in operands.items()}
        found = Rerun(operation, saved, operands, scope)
        return found if _agrees(found, node, upstream) else None
    except (RuntimeError, TypeError, NameError, AttributeError, IndexError, ValueError):
        return None  # what the entry rests on was not saved, or is of another kind


def _laid_out(operand: Tensor, upstream: Tensor) -> Tensor:
    """An entry per entry of the result. Numbers, and tensors without dims, do not widen a dtype."""
    if operand.ndim == 0 and not operand.is_complex() and upstream.is_floating_point():
        operand = operand.to(upstream.dtype)
    return plain(operand.expand(upstream.shape))


def _agrees(rerun: Rerun, node: Node, upstream: Tensor) -> bool:
    alone = _torch.run_alone(node, (upstream,))
    if alone is None:
        return False
    _, again = _differentiated(rerun, rerun.operation.call, upstream)
    pairs = [(x, y) for x, y in zip(alone, again, strict=False) if x is not None and y is not None]
    return bool(pairs) and all(_same_to_rounding(x, y) for x, y in pairs)


def _same_to_rounding(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape or not torch.equal(left.isfinite(), right.isfinite()):
        return False
    return torch.allclose(left, right.to(left.dtype), rtol=1e-2, atol=1e-6, equal_nan=True)


def _differentiated(
    rerun: Rerun, text: str, upstream: Tensor
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """``text`` on the operands, and its gradients with respect to each of them."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user's own call has given them
        leaves = {name: t.detach().requires_grad_() for name, t in rerun.operands.items()}
        result = rerun.value(text, **leaves)
        grads = torch.autograd.grad(
            result, list(leaves.values()), upstream.to(result.dtype), allow_unused=True
        )
    return result.detach(), grads


def recomputed(node: Node) -> Tensor | None:
    """The result of an operation whose operands it saved, by running it again."""
    operation = OPERATIONS[_torch.node_name(node)]
    saved = _torch.plainly_saved(node)
    read = " ".join(operation.operands.values()).split()
    if "result" in read or ("ones" in read and not {"self", "other"} <= set(saved)):
        return None
    try:
        scope = {**_torch.numbers_saved(node), **saved, "torch": torch, "ones": None}
        scope |= {name: eval(text, dict(scope)) for name, text in operation.operands.items()}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = eval(operation.call, scope)
    except (RuntimeError, TypeError, NameError, AttributeError, IndexError, ValueError):
        return None
    return result if isinstance(result, Tensor) else None


def operands_at(rerun: Rerun, element: Index) -> dict[str, Shown]:
    """What the node saved at one entry, or along the slice that the entry lies in."""
    shown: dict[str, Shown] = {}
    for name, value in rerun.saved.items():
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            found = _entry_of(value, element, rerun)
            if found is not None:
                shown[name] = found
        elif isinstance(value, (int, float, complex)) and name in _NUMBERS:
            shown[name] = value
    return shown


_NUMBERS = ("exponent", "self", "eps", "ord", "p")


def _entry_of(value: Tensor, element: Index, rerun: Rerun) -> Shown | None:
    dims, shape = rerun.dims, rerun.operands["a"].shape
    if rerun.operation.by_pairs:
        return None
    if dims is None:
        return value_at(value.expand(shape), element)
    if value.shape == shape:
        along = value[tuple(slice(None) if k in dims else i for k, i in enumerate(element))]
        flat = along.reshape(-1)[:_SHOWN_OF_A_SLICE].tolist()
        return tuple(flat)
    rest = [i for k, i in enumerate(element) if k not in dims]
    kept = [0 if k in dims else i for k, i in enumerate(element)]
    place = rest if value.ndim == len(rest) else kept
    return value_at(value, tuple(place)) if value.ndim == len(place) else None


def is_defined_at(rerun: Rerun, element: Index) -> bool:
    """Whether the operand lies in the domain of the operation."""
    domain = rerun.operation.domain
    if not domain or rerun.operands["a"].is_complex():
        return True
    inside = torch.as_tensor(rerun.value(domain))
    return bool(inside.expand(rerun.operands["a"].shape)[element])


def is_regular_at(rerun: Rerun, element: Index, position: int) -> bool:
    """Whether the derivative exists at this operand, so that only its size can be the reason."""
    guard = next((g for g in rerun.operation.guards if _applies(g, rerun, position)), None)
    if guard is None or not rerun.by_entry:
        return False
    kept = rerun.value(kept_text(guard, rerun))
    return bool(kept.expand(rerun.operands["a"].shape)[element])


def derivative_at(node: Node, upstream: Tensor, position: int, element: Index) -> Value | None:
    """What an operation that works entry by entry sends there for 1."""
    alone = _torch.run_alone(node, (torch.ones_like(upstream),))
    sent = alone[position] if alone is not None and position < len(alone) else None
    return None if sent is None or sent.shape != upstream.shape else value_at(sent, element)


def prove(
    rerun: Rerun, upstream: Tensor, position: int, wording: str = "of this pass"
) -> tuple[Guard, Proof] | None:
    """The first rewrite of the table that holds, or else the first that can be tried.

    What stands where the derivative does not exist is first tried as in the table, then as the
    original, detached: an inf may be what the rest of the program goes on with.
    """
    first: tuple[Guard, Proof] | None = None
    for guard in rerun.operation.guards:
        if not _applies(guard, rerun, position):
            continue
        for known in dict.fromkeys((guard, replace(guard, otherwise=None))):
            try:
                proof = _tried(rerun, known, upstream, wording)
            except (RuntimeError, TypeError):
                continue
            if proof.holds:
                return known, proof
            first = first or (known, proof)
    return first


def _applies(guard: Guard, rerun: Rerun, position: int) -> bool:
    return guard.position in (None, position) and bool(rerun.value(guard.when))


def _tried(rerun: Rerun, guard: Guard, upstream: Tensor, wording: str) -> Proof:
    text = rewritten(rerun, guard)
    original, before = _differentiated(rerun, rerun.operation.call, upstream)
    rewrite, after = _differentiated(rerun, text, upstream)
    compared = original.isfinite() if wording == "ones" else ~original.isnan()
    same = original.shape == rewrite.shape and torch.equal(original[compared], rewrite[compared])
    return Proof(
        rerun.operation.call,
        text,
        _count(before),
        _count(after),
        int(compared.sum()),
        bool(same),
        wording,
        rerun.operation.recovered,
    )


def _count(grads: Sent) -> int:
    return sum(int((~g.isfinite()).sum()) for g in grads if g is not None)


def kept_text(guard: Guard, rerun: Rerun) -> str:
    """Complex numbers have no order: where they are kept, they are not 0."""
    ordered = not rerun.operands["a"].is_complex()
    return guard.kept if ordered else guard.kept.replace("> 0", "!= 0")


def rewritten(rerun: Rerun, guard: Guard) -> str:
    """The guarded operation in terms of ``a`` and ``b``."""
    call, kept = rerun.operation.call, kept_text(guard, rerun)
    inner = re.sub(rf"\b{guard.at}\b", f"torch.where({kept}, {guard.at}, {guard.safe})", call)
    otherwise = f"({call}).detach()" if guard.otherwise is None else guard.otherwise
    return f"torch.where({guard.outer or kept}, {inner}, {otherwise})"


def element_alone(sent: Tensor, contribution: Index, shape: Sequence[int]) -> Index | None:
    """The first bad entry of ``sent`` among those that the engine sums to one entry of a
    contribution of ``shape``."""
    ahead = sent.ndim - len(shape)
    if ahead < 0:
        return None
    places: list[Any] = [slice(None)] * ahead
    for size, index, own in zip(shape, contribution, sent.shape[ahead:], strict=True):
        places.append(slice(None) if size == 1 and own != 1 else slice(index, index + 1))
    part = sent[tuple(places)]
    bad = ~part.isfinite()
    if not bool(bad.any()):
        return None
    place = index_of(int(bad.reshape(-1).to(torch.uint8).argmax()), tuple(part.shape))
    starts = [0 if p.start is None else p.start for p in places]
    return tuple(i + start for i, start in zip(place, starts, strict=True))
