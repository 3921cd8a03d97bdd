"""Fourier transforms: dense along their dims, apart everywhere else."""

from __future__ import annotations

from .axes import alone, mixed
from .base import Result, Step, rule


@rule("_fft_c2c _fft_r2c _fft_c2r", "self")
def _fft(step: Step) -> Result:
    dep = alone(step, "self")
    return mixed(dep, list(step["dim"]), step.out.shape)
