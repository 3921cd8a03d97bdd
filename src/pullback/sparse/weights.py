"""The weights W of a product J' W J: a diagonal, or a matrix with a pattern of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .._trees import Structure, flatten, same_structure
from .leaf import Leaf
from .pattern import SparsityPattern


class Weights(NamedTuple):
    """``values`` are those of the diagonal where ``pattern`` is None; None is the identity."""

    pattern: SparsityPattern | None
    values: Tensor | None


def weights_of(
    caller: str, given: Any, outputs: Sequence[Leaf], structure: Structure, like: Tensor
) -> Weights:
    """``given`` as weights of the elements of ``outputs``, in the dtype and device of ``like``."""
    if given is None:
        return Weights(None, None)
    m = sum(leaf.numel for leaf in outputs)
    if _is_matrix(given, m):
        return _matrix(given, like)
    leaves, found = flatten(given)
    tensors = [torch.as_tensor(leaf) for leaf in leaves if isinstance(leaf, (Tensor, np.ndarray))]
    alike = same_structure(found, structure) and len(tensors) == len(outputs)
    shaped = alike and all(
        tuple(t.shape) == leaf.shape and not leaf.dtype.is_complex
        for t, leaf in zip(tensors, outputs, strict=True)
    )
    flat_already = isinstance(given, (Tensor, np.ndarray)) and tuple(given.shape) == (m,)
    if not shaped and not flat_already:
        raise _checks.weights_do_not_fit(caller, given, [leaf.shape for leaf in outputs], m)
    flat = [t.reshape(-1).to(dtype=like.dtype, device=like.device) for t in tensors]
    return Weights(None, flat[0] if len(flat) == 1 else torch.cat(flat))


def _is_matrix(given: Any, m: int) -> bool:
    shape = getattr(given, "shape", ())
    return tuple(shape) == (m, m) and (m != 1 or hasattr(given, "tocsr"))


def _matrix(given: Any, like: Tensor) -> Weights:
    if isinstance(given, Tensor):
        sorted_by_place = given.to_sparse_coo().coalesce()
        values = sorted_by_place.values()
        pattern = SparsityPattern.from_torch(sorted_by_place)
    else:
        import scipy.sparse

        stored = scipy.sparse.csr_array(given)
        stored.sum_duplicates()
        values = torch.from_numpy(stored.data)
        pattern = SparsityPattern.from_scipy(stored)
    return Weights(pattern, values.to(dtype=like.dtype, device=like.device))
