"""Sparse Jacobians: pullback beside hand-written code, ``torch.func``, asdex and sparsejac."""

from __future__ import annotations

from . import matrices
from .options import Options
from .problems.catalogue import FULL, QUICK
from .timing import Table


def run(options: Options) -> list[Table]:
    return matrices.run("jacobian", QUICK if options.quick else FULL, options)
