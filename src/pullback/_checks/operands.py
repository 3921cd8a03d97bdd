"""What an operator is multiplied with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import ArgumentError, UnsupportedError
from .leaves import Leaves
from .words import article, dtype_text, shape_text


def real(caller: str, tensors: Leaves, what: str) -> None:
    """Refuse complex tensors where a real matrix is promised."""
    for name, tensor in zip(tensors.names, tensors.tensors, strict=True):
        if tensor.is_complex():
            raise UnsupportedError(
                f"{caller}: `{name}`, an {what} of `func`, has dtype {dtype_text(tensor.dtype)}, "
                f"and the matrix is real. Write func with pairs of reals: "
                f"torch.view_as_complex on the way in, torch.view_as_real on the way out."
            )


def operand(
    caller: str,
    name: str,
    value: object,
    matrix: tuple[tuple[int, int], torch.dtype, torch.device],
    size: int,
    shapes: Sequence[str],
) -> None:
    """A vector, or a matrix of vectors, that is multiplied with an operator."""
    shape, dtype, device = matrix
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"{caller}: `{name}` is {article(value)}, not a tensor. Pass a tensor, or use "
            f".to_scipy() for numpy arrays."
        )
    wanted = " or ".join(shapes)
    axis = -1 if name == "v" else 0
    if value.ndim not in range(1, len(shapes) + 1) or value.shape[axis] != size:
        raise ArgumentError(
            f"{caller}: `{name}` has shape {shape_text(value.shape)}, but the matrix has shape "
            f"{shape_text(shape)}, so `{name}` must have shape {wanted}, with one entry per "
            f"{'row' if name == 'v' else 'column'}. Flatten pytrees and tensors in C order: "
            f"torch.cat([t.reshape(-1) for t in ...])."
        )
    if value.dtype != dtype:
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {dtype_text(value.dtype)}, but the matrix has dtype "
            f"{dtype_text(dtype)}. Write {name}.to(torch.{dtype_text(dtype)})."
        )
    if value.device != device:
        raise ArgumentError(
            f"{caller}: `{name}` is on {value.device}, but the matrix is on {device}. Write "
            f"{name}.to({str(device)!r})."
        )


def not_an_operator(caller: str, other: object) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `other` is {article(other)}; it must be another JacobianOperator with the same "
        f"columns, such as pb.JacobianOperator(net, other_batch, wrt='parameters')."
    )


def same_columns(caller: str, mine: Sequence[Any], theirs: Sequence[Any]) -> None:
    if list(mine) != list(theirs):
        raise ArgumentError(
            f"{caller}: the columns of this operator are those of tensors of the shapes "
            f"{', '.join(map(str, mine))}, and those of `other` of the shapes "
            f"{', '.join(map(str, theirs))}. Build both with respect to the same tensors."
        )


def numpy_dtype(caller: str, dtype: torch.dtype) -> Any:
    try:
        return torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError:
        raise UnsupportedError(
            f"{caller}: the matrix has dtype {dtype_text(dtype)}, which numpy does not have. "
            f"Build the operator at float32 primals."
        ) from None
