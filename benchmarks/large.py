"""``python -m benchmarks.large VIEWS ...``: bundle adjustment of many observations, and its memory.

Each size runs in a process of its own: a plan, and evaluations of it. Bytes count from where the
process stands with its problem made; 5213733 is GradBench's ba17.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

import pullback as pb

from .memory import peak_bytes
from .peers.client import ROOT
from .problems.catalogue import Problem
from .problems.in_torch import build

BA17 = (1936, 649_673, 5_213_733)
TINY = Problem("bundle", "bundle", (8, 60, 300))
T = TypeVar("T")


def problem(views: int) -> Problem:
    """As many cameras and points for each observation as ba17 has."""
    cameras, points = (max(count * views // BA17[2], 8) for count in BA17[:2])
    return Problem(f"bundle {views}", "bundle", (cameras, points, views))


def resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def watched(name: str, start: int, entries: int, run: Callable[[], T]) -> T:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    begin = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - begin
    gc.collect()
    peak, now = peak_bytes(), resident()
    print(
        f"  {name:18} {seconds:7.2f} s, peak {peak / 2**30:6.2f} GiB, "
        f"{(peak - start) / entries:6.1f} bytes per entry above the problem, "
        f"{(now - start) / entries:6.1f} held after",
        flush=True,
    )
    return found


def one(views: int, threads: int) -> None:
    torch.set_num_threads(threads)
    func, x = build(TINY)
    pb.jacobian(func, plan=pb.plan_jacobian(func, x))(x)  # imports, and compiles what any needs
    func, x = build(problem(views))
    start, entries = resident(), 29 * views
    print(f"{views:,} observations, {entries:,} entries, the process {start / 2**30:.2f} GiB")
    watched("one forward", start, entries, lambda: func(x.clone().requires_grad_()))
    plan = watched("plan", start, entries, lambda: pb.plan_jacobian(func, x))
    assert plan.pattern.nnz == entries
    print(f"  {plan.num_products} products in chunks of {plan.chunk_size}; {plan.bytes}")
    jac = pb.jacobian(func, plan=plan)
    for name in ("first evaluation", "second", "third"):
        watched(name, start, entries, lambda: jac(x))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("views", nargs="+", type=int)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if len(given.views) == 1:
        one(given.views[0], given.threads)
        return
    for views in given.views:
        command = [sys.executable, "-m", "benchmarks.large", str(views)]
        subprocess.run([*command, "--threads", str(given.threads)], cwd=ROOT, check=False)


if __name__ == "__main__":
    main()
