"""Parts of a Jacobian: which can be asked for, and at which price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import ArgumentError, UnsupportedError
from .words import article, dtype_text, shape_text


def product_limit(caller: str, limit: object) -> None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise ArgumentError(
            f"{caller}: `max_products` is {limit!r}; it must be a whole number of products, or "
            f"None for what the structure gives cheaper than the whole matrix."
        )


def places_of_matrix(caller: str, indices: object, size: int, side: str) -> list[int]:
    """Row or column numbers, as whole numbers from 0."""
    asked = f"`indices` must be a list, a range or a 1-D tensor of whole numbers: {side} numbers"
    if isinstance(indices, Tensor):
        whole = not (indices.is_floating_point() or indices.is_complex())
        if indices.ndim != 1 or not whole or indices.dtype is torch.bool:
            raise ArgumentError(
                f"{caller}: `indices` has shape {shape_text(indices.shape)} and dtype "
                f"{dtype_text(indices.dtype)}; {asked}."
            )
        given: list[Any] = indices.tolist()
    else:
        try:
            given = [int(k.__index__()) for k in indices]  # type: ignore[attr-defined]
        except (TypeError, AttributeError):
            raise ArgumentError(f"{caller}: `indices` is {article(indices)}; {asked}.") from None
    for k in given:
        if not -size <= k < size:
            raise ArgumentError(
                f"{caller}: `indices` asks for {side} {k}, but the matrix has {size} {side}s. "
                f"Count from 0, or from -1 at the end."
            )
    return [k % size for k in given]


def number_of_blocks(caller: str, blocks: object, shape: tuple[int, int]) -> int:
    if not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 1:
        raise ArgumentError(
            f"{caller}: `blocks` is {blocks!r}; it must be a number of blocks, or None for one "
            f"per sample of a batch."
        )
    m, n = shape
    if m % blocks or n % blocks:
        raise ArgumentError(
            f"{caller}: `blocks` is {blocks}, and the matrix has shape {shape_text(shape)}, which "
            f"cannot be cut into that many blocks of one shape. Both sides must be multiples of it."
        )
    return blocks


def shared_batch(caller: str, outputs: Sequence[Any], inputs: Sequence[Any]) -> int:
    """The length of the first axis, which every tensor must have."""
    leaves = [*inputs, *outputs]
    lengths = {int(leaf.shape[0]) if leaf.shape else -1 for leaf in leaves}
    if len(lengths) == 1 and (length := lengths.pop()) >= 0:
        return length
    shapes = ", ".join(f"`{leaf.name}` {shape_text(leaf.shape)}" for leaf in leaves)
    raise ArgumentError(
        f"{caller}: a block for each sample needs a first axis of one length in all outputs and "
        f"selected inputs, and the shapes are {shapes}. Put the samples first, with x.movedim."
    )


def coupled_samples(
    caller: str,
    samples: tuple[int, int],
    ends: tuple[str, str] | None,
    link: Any,
) -> UnsupportedError:
    """``link`` is the call that couples the samples, or None where it is not known."""
    a, b = samples
    text = f"{caller}: samples {a} and {b} are not independent"
    if ends is not None:
        text += f": {ends[0]} may depend on {ends[1]}"
    is_norm = False
    if link is not None:
        made_by = f" in {link.formula}" if link.formula else ""
        where = f" at {link.line}" if link.line else ""
        text += f", through the backward of {link.call}{made_by}{where}"
        is_norm = "batch_norm" in link.call
    if is_norm:
        return UnsupportedError(
            f"{text}. That is a batch norm in training mode: it takes mean and variance of the "
            f"whole batch. Put it into evaluation mode, module.eval(), or take a LayerNorm or a "
            f"GroupNorm."
        )
    return UnsupportedError(
        f"{text}. A block for each sample would leave that out. Take what joins the samples out of "
        f"the function, or ask for the sparse matrix, pb.jacobian(func, layout=torch.sparse_csr)."
    )


def too_expensive(
    caller: str, needed: int, whole: int, limit: int | None, because: str, instead: str
) -> UnsupportedError:
    """``whole`` is what all of the matrix takes."""
    products = f"{needed:,} product{'s' * (needed != 1)}"
    if limit is not None:
        than = f"more than max_products={limit:,}"
    elif needed == whole:
        than = "as many as the whole matrix"
    else:
        than = f"where the whole matrix takes {whole:,}"
    return UnsupportedError(
        f"{caller}: it needs {products}, {than}: {because}. Pay for them with "
        f"max_products={needed}; {instead}."
    )
