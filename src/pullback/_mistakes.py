"""Which simple mistake makes one matrix of another: what a backward says of what is true."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .draw.numbers import number

_LOOSE = 1e-4


@dataclass(frozen=True)
class Compared:
    """A Jacobian as a backward has it, and by differences with their errors; infinite errors where
    they tell nothing."""

    found: Tensor
    truth: Tensor
    errors: Tensor

    def explains(self, made: Tensor) -> bool:
        """Whether ``made`` of the truth is what was found, and the truth is not."""
        known = self.errors.isfinite()
        scale = max(float(self.truth[known].abs().amax()), float(self.found[known].abs().amax()))
        allowed = 10 * self.errors + _LOOSE * made.abs() + 1e-7 * scale
        return bool(((made - self.found).abs() <= allowed)[known].all())

    def factor(self) -> float:
        """The one number that the entries are wrong by, or nan."""
        sure = self.errors.isfinite() & (self.truth.abs() > 100 * self.errors)
        if int(sure.sum()) < 1:
            return math.nan
        ratios = (self.found / self.truth)[sure]
        middle = float(ratios.median())
        return middle if bool(((ratios - middle).abs() <= _LOOSE * abs(middle)).all()) else math.nan


def likely_mistake(
    compared: Compared,
    values: Sequence[tuple[str, Tensor]] = (),
    sizes: Sequence[int] = (),
    pairs: tuple[bool, bool] = (False, False),
) -> str:
    """The mistake, in a clause; nothing where none of those known explains every entry.

    ``values`` are numbers that a backward may have left out, named, each to be broadcast against
    the matrix; ``sizes`` the axes that it may have averaged over; ``pairs`` says whether rows and
    columns come in pairs (re, im).
    """
    if not bool(compared.errors.isfinite().any()):
        return ""
    return next(_explanations(compared, values, sizes, pairs), "")


def _explanations(
    compared: Compared,
    values: Sequence[tuple[str, Tensor]],
    sizes: Sequence[int],
    pairs: tuple[bool, bool],
) -> Iterator[str]:
    found, truth = compared.found, compared.truth
    if not bool(found.any()):
        if bool((truth.abs() > 100 * compared.errors).any()):
            yield "Every entry is zero: a term is missing, or was taken for a constant"
        return
    factor = compared.factor()
    if not math.isnan(factor) and compared.explains(factor * truth):
        yield _scaled(factor, sizes)
    if any(pairs) and compared.explains(_conjugated(truth, pairs)):
        yield "It is the conjugate: a .conj() is missing, or one too many"
    m, n = truth.shape
    if m == n and m > 1 and compared.explains(truth.T):
        yield "It is the transpose: J v came out where J' v is due"
    for name, value in values:
        spread = value.broadcast_to(truth.shape)
        if _varies(spread):
            if compared.explains(truth / spread):
                yield f"A factor of {name} is missing"
            if compared.explains(truth * spread):
                yield f"There is a factor of {name} too many"
    yield from _in_blocks(compared)


def _scaled(factor: float, sizes: Sequence[int]) -> str:
    if abs(factor + 1) <= _LOOSE:
        return "The sign is flipped"
    for size in sizes:
        if size > 1 and abs(abs(factor) * size - 1) <= _LOOSE:
            return (
                f"Every entry is 1/{size} of what it should be: a mean over {size} where a sum is "
                f"due"
            )
        if size > 2 and abs(abs(factor) - size) <= _LOOSE * size:
            return f"Every entry is {size} times too large: a sum over {size} too many"
    if abs(factor) < 1 and abs(1 / factor - round(1 / factor)) <= _LOOSE:
        return f"A factor of {number(round(1 / factor))} is missing"
    return f"Every entry is {number(factor)} times what it should be"


def _conjugated(truth: Tensor, pairs: tuple[bool, bool]) -> Tensor:
    """Of rows and columns that come in pairs (re, im), with the sign of im turned."""
    signs = [torch.ones(size, dtype=truth.dtype) for size in truth.shape]
    for sign, paired in zip(signs, pairs, strict=True):
        if paired:
            sign[1::2] = -1
    return signs[0][:, None] * truth * signs[1]


def _varies(value: Tensor) -> bool:
    flat = value.reshape(-1)
    usable = flat.numel() and bool(flat.isfinite().all()) and bool((flat != 0).all())
    return bool(usable and (flat - flat[0]).abs().amax() > 1e-3 * flat.abs().amax())


def _in_blocks(compared: Compared) -> Iterator[str]:
    """Columns or rows that are missing while the others are right."""
    found, truth = compared.found, compared.truth
    shown = truth.abs() > 100 * compared.errors
    for axis, which in ((0, "inputs"), (1, "outputs")):
        silent = (found == 0).all(axis, keepdim=True) & shown.any(axis, keepdim=True)
        count = int(silent.sum())
        if 0 < count < silent.numel() and compared.explains(truth.masked_fill(silent, 0)):
            yield (
                f"What comes from {count} of the {silent.numel()} elements of the {which} is "
                f"missing, and the rest is right"
            )
