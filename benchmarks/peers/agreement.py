"""How far two programs' matrices are apart, and a matrix from what autograd says of it."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ..problems.in_torch import Func

TOLERANCE = 1e-9
BLOCK = 2**22


def disagreement(ours: scipy.sparse.csr_array, theirs: scipy.sparse.csr_array | Tensor) -> str:
    """Empty where the two agree to rounding, else a sentence on where they do not."""
    if tuple(theirs.shape) != ours.shape:
        return f"WRONG: its shape is {tuple(theirs.shape)}, that of pullback {ours.shape}"
    rows = max(1, BLOCK // max(1, ours.shape[1]))
    apart, place = 0.0, (0, 0)
    if isinstance(theirs, Tensor):
        for start in range(0, ours.shape[0], rows):
            gap = np.abs(
                _numpy(theirs[start : start + rows]) - ours[start : start + rows].toarray()
            )
            if gap.size and not gap.max() <= apart:  # a NaN is a difference too
                at = np.unravel_index(gap.argmax(), gap.shape)
                apart, place = float(gap.max()), (start + int(at[0]), int(at[1]))
                if np.isnan(apart):
                    break
    else:
        gap = (theirs - ours).tocoo()
        if gap.nnz:
            k = np.abs(gap.data).argmax()
            apart, place = float(abs(gap.data[k])), (int(gap.row[k]), int(gap.col[k]))
    largest = float(np.abs(ours.data).max(initial=0.0))
    if apart <= TOLERANCE * max(1.0, largest):
        return ""
    return (
        f"WRONG: entry {place} is {apart:.2e} from pullback's; the largest entry is {largest:.2e}"
    )


def check_product(func: Func, x: Tensor, jacobian: scipy.sparse.csr_array) -> None:
    """A random product v J, every entry of which counts, against that of ``torch.func.vjp``."""
    out, pull = torch.func.vjp(func, x)
    v = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(0))
    (expected,) = pull(v)
    row = scipy.sparse.csr_array(v.reshape(1, -1).numpy() @ jacobian)
    if text := disagreement(row, expected.reshape(1, -1)):
        raise ArithmeticError(f"v J is not that of autograd: {text}")


def _numpy(block: Tensor) -> np.ndarray:
    return block.detach().to(torch.float64).numpy()
