"""``python -m tests.costs.footprint LIFT``: the memory of a process that plans and evaluates.

Prints a JSON object of bytes: what the plan and its first evaluation leave behind, the peaks of
planning, of one forward and of a further evaluation, and what ``plan.bytes`` says.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pullback as pb

N = 1_000_000


def coupled(x: Tensor) -> Tensor:
    around = x.roll(1) + x.roll(-1) + x.roll(1000) + x.roll(-1000)
    return x.tanh() * around


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def added(run: Callable[[], object]) -> tuple[int, Any]:
    """The most memory that the process holds while ``run`` runs, above what it held before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = status("VmRSS")
    result = run()
    return status("VmHWM") - before, result


def _give_back() -> None:
    """What malloc holds between small objects and nobody uses is no memory that is kept."""
    ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    torch.set_num_threads(1)
    lift = sys.argv[1] == "lifted"
    small = torch.rand(5_000, dtype=torch.float64)
    pb.jacobian(coupled, plan=pb.plan_jacobian(coupled, small, lift=lift))(
        small
    )  # imports, kernels
    x = torch.rand(N, dtype=torch.float64)
    forward, _ = added(lambda: coupled(x.clone().requires_grad_()))
    gc.collect()
    before = status("VmRSS")
    planning, plan = added(lambda: pb.plan_jacobian(coupled, x, lift=lift))
    jac = pb.jacobian(coupled, plan=plan, chunk_size=1)
    jac(x)
    gc.collect()
    _give_back()
    kept = status("VmRSS") - before
    evaluating, found = added(lambda: jac(x))
    assert found._nnz() == plan.pattern.nnz
    told = {
        "one product": plan.bytes_per_product,
        "forward": forward,
        "planning": planning,
        "kept": kept,
        "evaluating": evaluating,
        **plan.bytes._asdict(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
