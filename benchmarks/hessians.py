"""Sparse Hessians: pullback beside hand-written code, torch's own, asdex and sparsejac."""

from __future__ import annotations

from . import matrices
from .options import Options
from .problems.catalogue import HESSIANS, QUICK_HESSIANS
from .timing import Table


def run(options: Options) -> list[Table]:
    return matrices.run("hessian", QUICK_HESSIANS if options.quick else HESSIANS, options)
