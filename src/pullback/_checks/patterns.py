"""What sparsity patterns are made from, compared with, and drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._errors import ArgumentError, TreeError
from .words import article, axes, shape_text

_READABLE = (torch.strided, torch.sparse_coo, torch.sparse_csr)


def matrix_for_pattern(caller: str, matrix: Any) -> None:
    """A SciPy sparse array or matrix with indices inside it, or a NumPy array; 2-D."""
    import scipy.sparse

    if isinstance(matrix, np.ndarray):
        _two_axes(caller, "matrix", matrix.shape)
        _numbers(caller, matrix)
    elif scipy.sparse.issparse(matrix):
        _two_axes(caller, "matrix", matrix.shape)
        if matrix.format in ("csr", "csc", "bsr"):
            _compressed(caller, "matrix", *_compressed_parts(matrix))
    else:
        raise TreeError(
            f"{caller}: `matrix` is {article(matrix)}, not a SciPy sparse array or a NumPy array. "
            f"{_matrix_remedy(matrix)}"
        )


def tensor_for_pattern(caller: str, tensor: object) -> Tensor:
    """A 2-D tensor with values, dense, COO or CSR, with indices inside it; COO is coalesced."""
    if not isinstance(tensor, Tensor):
        raise TreeError(
            f"{caller}: `tensor` is {article(tensor)}, not a tensor. Write "
            f"SparsityPattern.from_scipy(...) for SciPy matrices and NumPy arrays."
        )
    _two_axes(caller, "tensor", tensor.shape)
    if tensor.layout not in _READABLE:
        raise ArgumentError(
            f"{caller}: `tensor` has layout {tensor.layout}; the layouts read here are "
            f"torch.strided, torch.sparse_coo and torch.sparse_csr. Write tensor.to_sparse_csr() "
            f"or tensor.to_dense()."
        )
    if tensor.device.type == "meta":
        raise ArgumentError(
            f"{caller}: `tensor` is on the meta device, where it has no values. Make it on a "
            f"device that stores them, such as device='cpu'."
        )
    if tensor.layout == torch.sparse_csr:
        _csr_tensor(caller, tensor)
    elif tensor.layout == torch.sparse_coo:
        return _coo_tensor(caller, tensor)
    return tensor.detach()


def same_shape(caller: str, shape: tuple[int, int], other: tuple[int, int]) -> None:
    if shape != other:
        raise ArgumentError(
            f"{caller}: `other` has shape {shape_text(other)}, but this pattern has shape "
            f"{shape_text(shape)}; they are compared place by place. Compare patterns of one "
            f"function at arguments of one size."
        )


def drawing_axes(caller: str, ax: object) -> None:
    if ax is not None and not hasattr(ax, "add_collection"):
        raise TreeError(
            f"{caller}: `ax` is {article(ax)}, not a matplotlib Axes. Write figure.add_subplot(), "
            f"or leave `ax` out for a new figure."
        )


def entry_colors(
    caller: str, colors: Any, by: str, shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Return one whole number per column, or per row, -1 or more."""
    found = colors.detach().cpu().numpy() if isinstance(colors, Tensor) else np.asarray(colors)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{caller}: `colors` has shape {shape_text(found.shape)} and dtype {found.dtype}; it "
            f"must be one axis of whole numbers, one for each of the {by}. Pass the .colors of a "
            f"coloring."
        )
    sizes = {"rows": shape[0], "columns": shape[1]}
    if found.size != sizes[by]:
        other = "rows" if by == "columns" else "columns"
        remedy = f" Write by={other!r} if these color the {other}."
        raise ArgumentError(
            f"{caller}: `colors` has shape {shape_text(found.shape)}, but the pattern has "
            f"{sizes[by]} {by}; each of the {by} has one color."
            f"{remedy if found.size == sizes[other] else ''}"
        )
    if found.size and found.min() < -1:
        raise ArgumentError(
            f"{caller}: `colors` holds {found.min()}; colors count from 0, and -1 stands for "
            f"neutral. Write -1 where there is no color."
        )
    return found.astype(np.int64)


def _two_axes(caller: str, argument: str, shape: Sequence[int]) -> None:
    if len(shape) != 2:
        raise ArgumentError(
            f"{caller}: `{argument}` has {axes(len(shape))} (shape {shape_text(shape)}), and a "
            f"pattern has 2: rows and columns. Write {argument}.reshape(m, n) with one row per "
            f"output element and one column per input element."
        )


def _numbers(caller: str, matrix: npt.NDArray[Any]) -> None:
    if isinstance(matrix, np.ma.MaskedArray):
        raise ArgumentError(
            f"{caller}: `matrix` is a masked array, and a masked entry is neither zero nor "
            f"nonzero. Write matrix.filled(1) to count masked entries in, matrix.filled(0) to "
            f"leave them out."
        )
    if matrix.dtype.kind not in "biufc":
        raise ArgumentError(
            f"{caller}: `matrix` has dtype {matrix.dtype}, which does not hold plain numbers. "
            f"Write matrix.astype(float), or matrix != 0 for its nonzero places."
        )


def _matrix_remedy(matrix: object) -> str:
    if isinstance(matrix, Tensor):
        return "Write SparsityPattern.from_torch(...) for tensors."
    if isinstance(matrix, (list, tuple)):
        return "Write numpy.array(...) around it."
    return "Convert it, such as with scipy.sparse.csr_array(...)."


def _compressed_parts(matrix: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
    block = matrix.blocksize[1] if matrix.format == "bsr" else 1
    minor = matrix.shape[0] if matrix.format == "csc" else matrix.shape[1] // block
    return matrix.indptr, matrix.indices, minor


def _csr_tensor(caller: str, tensor: Tensor) -> None:
    indptr, indices = tensor.crow_indices().cpu().numpy(), tensor.col_indices().cpu().numpy()
    _compressed(caller, "tensor", indptr, indices, tensor.shape[1])


def _coo_tensor(caller: str, tensor: Tensor) -> Tensor:
    if tensor.dense_dim():
        raise ArgumentError(
            f"{caller}: `tensor` stores {axes(tensor.sparse_dim())} sparse and "
            f"{axes(tensor.dense_dim())} dense; both must be sparse. Write "
            f"tensor.to_dense().to_sparse()."
        )
    coalesced = tensor.detach().coalesce()
    indices = coalesced.indices().cpu().numpy()
    for axis, size in enumerate(tensor.shape):
        _inside(caller, "tensor", indices[axis], size)
    return coalesced


def _compressed(
    caller: str, argument: str, indptr: npt.NDArray[Any], indices: npt.NDArray[Any], minor: int
) -> None:
    """Broken compressed indices make SciPy read and write outside its arrays."""
    if indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] > indices.size:
        raise ArgumentError(
            f"{caller}: the index pointer of `{argument}` does not rise from 0 to the number of "
            f"stored entries, so `{argument}` is not a valid matrix. Build it from coordinates, "
            f"such as with scipy.sparse.coo_array((values, (rows, columns)), shape=...)."
        )
    _inside(caller, argument, indices[: indptr[-1]], minor)


def _inside(caller: str, argument: str, indices: npt.NDArray[Any], size: int) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        wrong = indices.min() if indices.min() < 0 else indices.max()
        raise ArgumentError(
            f"{caller}: `{argument}` stores an entry at index {wrong} of an axis of size {size}; "
            f"indices count from 0 to size - 1. Build `{argument}` with the shape that its indices "
            f"need, or correct them."
        )
