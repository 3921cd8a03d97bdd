"""Trial points and weights, and how closely two runs must agree.

Random numbers come from a generator of pullback's own: a user's stream of draws stays where it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._adjoint import probe


def weights(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Normally distributed, contiguous, one of the shape of each tensor."""
    return [probe(torch.empty(t.shape, dtype=t.dtype, device=t.device)).detach() for t in tensors]


def perturbed(tensor: Tensor, step: float = 1e-2) -> Tensor:
    """A point near by: every entry is at most two relative steps off, so that its sign stays;
    zeros become small and positive."""
    with torch.no_grad():
        given = tensor.detach()
        noise = probe(given).detach().clamp(-2, 2)
        return torch.where(given == 0, step * noise.abs(), given * (1 + step * noise)).clone()


_ROUNDING = {
    torch.float64: 1e-8,
    torch.complex128: 1e-8,
    torch.float32: 1e-3,
    torch.complex64: 1e-3,
}


def rounding_of(dtype: torch.dtype) -> float:
    """How closely two runs in ``dtype`` can be expected to agree."""
    return _ROUNDING.get(dtype, 0.1)


def same(left: Tensor | None, right: Tensor | None, loose: float) -> bool:
    """Equal up to ``loose``, relative to the largest entry; None counts as zeros."""
    if left is None or right is None:
        other = right if left is None else left
        return other is None or not bool(other.any())
    left, right = left.detach(), right.detach()
    if left.shape != right.shape:
        return False
    finite = right[right.isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 0.0
    return torch.allclose(
        left.to(right.dtype), right, rtol=loose, atol=loose * max(scale, 1e-30), equal_nan=True
    )


def batches_well(pull: Callable[..., Sequence[Any]], like: Sequence[Tensor], loose: float) -> bool:
    """Whether vmap over ``pull`` gives what its single calls give; True where vmap refuses.

    A batching rule of torch may be wrong (that of _cdist_backward is, in torch 2.13).
    """
    with torch.no_grad():
        pairs = [weights(like), weights(like)]
        singles = [pull(*v) for v in pairs]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                batch = torch.func.vmap(
                    lambda *v: tuple(g for g in pull(*v) if g is not None), randomness="same"
                )(*(torch.stack(v) for v in zip(*pairs, strict=True)))
        except Exception:  # the ladder of engines meets the same refusal, and climbs down
            return True
        live = [[g for g in single if g is not None] for single in singles]
        return all(
            same(found[k], single[j], loose)
            for k, single in enumerate(live)
            for j, found in enumerate(batch)
        )


def is_linear(pull: Callable[..., Sequence[Any]], like: Sequence[Tensor], loose: float) -> bool:
    """Whether ``pull`` maps 0 to 0 and ``2 v - 3 w`` to ``2 pull(v) - 3 pull(w)``, where finite."""
    with torch.no_grad():
        v, w = weights(like), weights(like)
        mixed = pull(*(2 * a - 3 * b for a, b in zip(v, w, strict=True)))
        nothing = pull(*(torch.zeros_like(a) for a in v))
        for m, n, a, b in zip(mixed, nothing, pull(*v), pull(*w), strict=True):
            if m is None:
                continue
            expected = 2 * a - 3 * b
            usable = expected.isfinite() & m.isfinite()
            if not same(m[usable], expected[usable], loose):
                return False
            if bool((n[n.isfinite()] != 0).any()):
                return False
    return True
