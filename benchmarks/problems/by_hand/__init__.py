"""Matrices of derivatives as a person would write them for one problem: vectorised torch, nothing
that differentiates.

The structure is known beforehand and costs nothing here: ``values`` fills a value array whose entry
k belongs at (``rows[k]``, ``cols[k]``). Rows ascend, as in CSR; within a row the columns may stand
in any order, which spares a writer the sorting at the edges of a grid. What is constant is copied
from a template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..catalogue import Problem
from ..numbers import arrays
from . import bundle, energies, meshes, networks, stencils

Places = NDArray[np.int64]
Values = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ByHand:
    """The places of the entries, and the function that computes them."""

    rows: Places
    cols: Places
    values: Values


def build(problem: Problem) -> ByHand | None:
    """The hand-written matrix of a problem, or None where nobody wrote one."""
    if problem.kind not in BUILDERS:
        return None
    constants = {name: torch.from_numpy(array) for name, array in arrays(problem).items()}
    x = constants.pop("x")
    rows, cols, values = BUILDERS[problem.kind](x, **constants)
    return ByHand(rows.reshape(-1), cols.reshape(-1), values)


BUILDERS: dict[str, Callable[..., tuple[Places, Places, Values]]] = {
    "brusselator2d": stencils.brusselator,
    "burgers1d": stencils.burgers,
    "heat5": stencils.heat,
    "shallow_water": stencils.shallow_water,
    "conv_tanh": networks.conv_tanh,
    "persample_mlp": networks.persample_mlp,
    "transpose": networks.transpose,
    "gather_scatter": meshes.gather_scatter,
    "fem_p1": meshes.fem_p1,
    "springs3d": meshes.springs3d,
    "bundle": bundle.bundle,
    "dense_mlp": networks.mlp,
    "wide_mlp": networks.mlp,
    "tall_mlp": networks.mlp,
    "rosenbrock": energies.rosenbrock,
    "arrowhead": energies.arrowhead,
    "band_quartic": energies.band_quartic,
    "broyden_squares": energies.broyden_squares,
    "minimal_surface": meshes.minimal_surface,
    "graph_quartic": meshes.graph_quartic,
    "spring_energy": partial(meshes.springs3d, sign=-1.0),
    "logsumexp_rows": energies.logsumexp_rows,
    "mlp_loss": energies.mlp_loss,
    "logistic": energies.logistic,
}
