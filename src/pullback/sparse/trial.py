"""Trial points and weights, and how closely two runs must agree.

Random numbers come from a generator of pullback's own: a user's stream of draws stays where it is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._adjoint import probe

# From this many elements on, numbers are drawn and compared in ways that touch memory less.
_MANY = 2**16


def weights(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Normally distributed, contiguous, one of the shape of each tensor."""
    return [_normal(t) for t in tensors]


def _normal(like: Tensor) -> Tensor:
    short = like.dtype is torch.float64 and like.numel() >= _MANY
    dtype = torch.float32 if short else like.dtype
    drawn = probe(torch.empty(like.shape, dtype=dtype, device=like.device)).detach()
    return drawn.to(like.dtype)


def perturbed(tensor: Tensor, step: float = 1e-2) -> Tensor:
    """A point near by: every entry is at most two relative steps off, so that its sign stays;
    zeros become small and positive."""
    with torch.no_grad():
        given = tensor.detach()
        noise = _normal(given).clamp_(-2, 2).mul_(step)
        zero = given == 0
        moved = given + given * noise
        return torch.where(zero, noise.abs(), moved) if bool(zero.any()) else moved


def in_its_layout(by: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """``by(tensor)`` in the strides of ``tensor``; what holds no floating point numbers, or has
    elements that share a place, stays as it is."""
    given = tensor.detach()
    if not given.is_floating_point():
        return given
    if 0 in (s for s, n in zip(given.stride(), given.shape, strict=True) if n > 1):
        return given
    moved = torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device=given.device)
    return moved.copy_(by(given))


def shuffled(tensor: Tensor, flip: bool = False) -> Tensor:
    """The entries drawn anew from among themselves, with repeats; half of them with ``flip``ped
    sign."""
    with torch.no_grad():
        flat = tensor.detach().reshape(-1)
        noise, signs = weights([flat.real, flat.real])
        places = (noise.double().abs() * 1e6).long() % max(flat.numel(), 1)
        picked = flat[places]
        if flip:
            picked = torch.where(signs > 0, picked, -picked)
        return picked.reshape(tensor.shape)


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
    """Equal up to ``loose``, relative to the largest finite entry; None counts as zeros."""
    if left is None or right is None:
        other = right if left is None else left
        return other is None or not bool(other.any())
    left, right = left.detach(), right.detach()
    if left.shape != right.shape:
        return False
    if not left.numel():
        return True
    if left.dtype.is_floating_point and left.dtype == right.dtype:
        apart, scale = _distance(left, right)
        if math.isfinite(apart) and math.isfinite(scale):
            return apart <= loose * scale
    finite = right[right.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(
        left.to(right.dtype), right, rtol=loose, atol=loose * max(scale, 1e-30), equal_nan=True
    )


def _distance(left: Tensor, right: Tensor) -> tuple[float, float]:
    """The largest absolute difference, and the largest absolute entry of ``right``; nan where
    either is not a number. Block by block, so that differences stay in the cache."""
    worst = left.new_zeros(2)
    strides = left.stride()
    order = sorted(range(left.dim()), key=strides.__getitem__, reverse=True)  # as in memory
    flat = [t.permute(order).reshape(-1).split(_MANY) for t in (left, right)]
    for a, b in zip(*flat, strict=True):
        worst = torch.maximum(worst, torch.stack(((a - b).abs().max(), b.abs().max())))
    apart, scale = worst.tolist()
    return apart, scale


def _finite(tensor: Tensor) -> Tensor:
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0)


def same_where_finite(left: Tensor, right: Tensor, loose: float) -> bool:
    """``same`` but for the entries of which one side is not finite."""
    if same(left, right, loose):
        return True
    usable = left.isfinite() & right.isfinite()
    return same(left[usable], right[usable], loose)


Pull = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


@dataclass
class Trial:
    """A map from cotangents to gradients, tried on two random sets of cotangents."""

    pull: Pull
    loose: float
    first: list[Tensor]
    second: list[Tensor]
    of_first: Sequence[Tensor | None]
    of_second: Sequence[Tensor | None]

    @classmethod
    def of(cls, pull: Pull, like: Sequence[Tensor], loose: float) -> Trial:
        return cls.on(pull, (weights(like), weights(like)), loose)

    @classmethod
    def on(cls, pull: Pull, given: tuple[list[Tensor], list[Tensor]], loose: float) -> Trial:
        """On these two sets of cotangents."""
        with torch.no_grad():
            return cls(pull, loose, *given, pull(given[0]), pull(given[1]))

    def is_linear(self, by_rule: bool = False) -> bool:
        """Whether ``2 v - 3 w`` goes to ``2 pull(v) - 3 pull(w)``, where finite; and, unless it
        is a chain of calls that are linear ``by_rule``, 0 to 0, ``-v`` to ``-pull(v)``, and another
        mixture to the mixture of the results."""
        with torch.no_grad():
            mixed = self.pull([2 * a - 3 * b for a, b in zip(self.first, self.second, strict=True)])
            expected = [
                None if a is None or b is None else 2 * a - 3 * b
                for a, b in zip(self.of_first, self.of_second, strict=True)
            ]
            return self._agree(mixed, expected) and (
                by_rule or (self._is_odd() and self._mixes_well())
            )

    def _mixes_well(self) -> bool:
        """Another mixture: where few entries are rounded to integers, one may agree by chance."""
        p, q = 0.3711, 1.6183
        mixed = self.pull([p * a + q * b for a, b in zip(self.first, self.second, strict=True)])
        expected = [
            None if a is None or b is None else p * a + q * b
            for a, b in zip(self.of_first, self.of_second, strict=True)
        ]
        return self._agree(mixed, expected)

    def _is_odd(self) -> bool:
        nothing = self.pull([torch.zeros_like(a) for a in self.first])
        if any(n is not None and bool(_finite(n).any()) for n in nothing):
            return False
        opposite = self.pull([-a for a in self.first])
        return self._agree(opposite, [None if a is None else -a for a in self.of_first])

    def _agree(self, found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> bool:
        """Up to rounding, also where sums cancel: measured by how far tiny changes of the
        cotangents move the gradients."""
        apart = [
            k
            for k, (f, e) in enumerate(zip(found, expected, strict=True))
            if f is not None and e is not None and not same_where_finite(f, e, self.loose)
        ]
        if not apart:
            return True
        tiny = 1e-4 * self.loose
        moved = self.pull(
            [a * (1 + tiny * w) for a, w in zip(self.first, weights(self.first), strict=True)]
        )
        for k in apart:
            f, e, here, there = found[k], expected[k], self.of_first[k], moved[k]
            if f is None or e is None or here is None or there is None:
                return False
            # Gradients that vanish but for rounding (a norm of one entry) have no scale.
            silent = 1e-2 * self.loose * max(float(v.abs().max()) for v in self.first if v.numel())
            if max(float(_finite(f).abs().max()), float(_finite(e).abs().max())) <= silent:
                continue
            noise = 1e4 * float(_finite(here - there).abs().max())
            if float(_finite(f - e).abs().max()) > 10 * noise:
                return False
        return True

    def batches_well(self) -> bool:
        """Whether vmap over the map gives what single calls give; True where vmap refuses.

        A batching rule of torch may be wrong (that of _cdist_backward is, in torch 2.13).
        """
        pairs = zip(self.first, self.second, strict=True)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                batch = torch.func.vmap(
                    lambda *v: tuple(g for g in self.pull(v) if g is not None), randomness="same"
                )(*(torch.stack(pair) for pair in pairs))
        except Exception:  # the ladder of engines meets the same refusal, and climbs down
            return True
        singles = [[g for g in found if g is not None] for found in (self.of_first, self.of_second)]
        return all(
            same(found[k], single[j], self.loose)
            for k, single in enumerate(singles)
            for j, found in enumerate(batch)
        )
