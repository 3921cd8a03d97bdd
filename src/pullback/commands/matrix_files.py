"""A Jacobian on disk: SciPy's, torch's and MatrixMarket's files, and a picture beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._checks import commands as checks
from ..sparse.plan import Plan

MATRIX_SUFFIXES = (".npz", ".pt", ".mtx")
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
# Up to here a picture shows single entries, and their colors can be told apart.
_SMALL = 80
_SCIPY_DTYPES = (torch.float32, torch.float64)


def check_files(caller: str, out: Path | None, spy: Path | None, layout: str) -> None:
    """Refuse names that cannot be written before any work is done."""
    if out is not None:
        checks.output_suffix(caller, "--out", out, MATRIX_SUFFIXES)
        if layout == "strided" and out.suffix.lower() != ".pt":
            raise checks.dense_needs_torch(caller, out)
    if spy is not None:
        checks.output_suffix(caller, "--spy", spy, PICTURE_SUFFIXES)


def check_dtype(caller: str, out: Path | None, dtype: torch.dtype) -> None:
    if out is not None and out.suffix.lower() != ".pt" and dtype not in _SCIPY_DTYPES:
        raise checks.dtype_not_for_scipy(caller, out, str(dtype).removeprefix("torch."))


def write_matrix(out: Path, found: Any) -> str:
    """Write a Jacobian, a CSR or COO tensor or (``.pt`` alone) dense ones; say what reads it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    suffix = out.suffix.lower()
    if suffix == ".pt":
        torch.save(found, out)
        return "torch.load"
    stored = as_scipy(found)
    if suffix == ".npz":
        import scipy.sparse

        with out.open("wb") as file:
            scipy.sparse.save_npz(file, stored)
        return "scipy.sparse.load_npz"
    import scipy.io

    with out.open("wb") as file:
        scipy.io.mmwrite(file, stored)
    return "scipy.io.mmread"


def as_scipy(matrix: Tensor) -> Any:
    """The same matrix as SciPy has it, with every stored entry: zeros are kept."""
    import scipy.sparse

    m, n = matrix.shape
    if matrix.layout is torch.sparse_coo:
        rows, cols = matrix._indices().cpu().numpy()
        return scipy.sparse.coo_array((matrix._values().cpu().numpy(), (rows, cols)), shape=(m, n))
    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    return scipy.sparse.csr_array(tuple(part.cpu().numpy() for part in parts), shape=(m, n))


def draw_spy(path: Path, plan: Plan, title: str) -> None:
    """The pattern, tinted by the products that its entries are read from while it is small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coloring = plan.coloring
    small = max(plan.pattern.shape) <= _SMALL
    if small and plan.mode in ("rev", "fwd"):
        by_rows = coloring.kind == "rows"
        figure = plan.pattern.plot(
            colors=coloring.colors, by="rows" if by_rows else "columns", title=title
        )
    else:
        figure = plan.pattern.plot(title=title)
    figure.savefig(path, dpi=150)
