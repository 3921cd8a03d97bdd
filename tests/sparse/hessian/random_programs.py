"""Random programs, weighed to one number: their Hessians against a backward through the backward.

``python -m tests.sparse.hessian.random_programs --count 2000 --seed 0`` tries that many; a program
is named by its seed and prints itself with ``--show``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

import pullback as pb
from pullback._errors import PullbackError

from ..random_programs import RandomProgram, Verdict, random_program
from .reference import dense_hessian
from .sweep import ROUNDING, planned

BENDS: tuple[Callable[[Tensor], Tensor], ...] = (lambda x: x, torch.sin, lambda x: x * x / 2)


def objective(program: RandomProgram) -> Callable[..., Tensor]:
    """Σ w · bend(output); every third program has no bend, every third a square."""
    bend, inner = BENDS[program.seed % 3], program.func
    generator = torch.Generator().manual_seed(program.seed)
    weights = torch.randn(1000, dtype=torch.float64, generator=generator)

    def func(*inputs: Tensor) -> Tensor:
        total, first = torch.zeros((), dtype=torch.float64), 0
        for out in inner(*inputs):
            flat = bend(out.reshape(-1))
            total = total + (weights[first : first + flat.numel()] * flat).sum()
            first += flat.numel()
        return total

    return func


def truth_at(program: RandomProgram, point: int) -> Tensor | None:
    torch.manual_seed(7 + point)
    try:
        return dense_hessian(objective(program), *program.inputs(point))
    except (RuntimeError, NotImplementedError):
        return None


def judge(program: RandomProgram) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truths: dict[int, Tensor] = {}
        for point in (0, 1):
            truth = truth_at(program, point)
            if truth is None:
                return Verdict("no derivative")
            truths[point] = truth
        try:
            return _holds(program, truths)
        except PullbackError as error:
            return Verdict("refused", str(error).partition("\n")[0])
        except Exception as error:
            return Verdict("crashed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def _holds(program: RandomProgram, truths: dict[int, Tensor]) -> Verdict:
    """Along one plan, and every fifth time without one: a capture takes longer than all the rest."""
    inputs, func = program.inputs(0), objective(program)
    argnums = tuple(range(len(inputs)))
    torch.manual_seed(7)
    plan = planned(func, inputs, program.seed // 3)
    how = f"mode {plan.mode}, coloring {plan.coloring.kind}, lifted {plan.lifted}"
    claimed = np.asarray(plan.pattern.to_scipy().todense()).astype(bool)
    verdict = Verdict("held", claimed=float(claimed.mean()), lifted=plan.lifted)
    everywhere = not any("no captured graph" in note for note in plan.notes)
    for point, truth in truths.items():
        least = ROUNDING * (1 + float(truth.abs().max()))
        entries = (truth.isfinite() & (truth.abs() > least)).numpy()
        missed = int((entries & ~claimed).sum())
        if missed and (everywhere or not point):
            return Verdict("missed", f"{missed} entries at point {point}, {how}")
    hessians = {how: pb.hessian(func, argnums, plan=plan)}
    if program.seed % 5 == 0:
        hessians["without a plan"] = pb.hessian(func, argnums, layout=torch.sparse_csr)
    for point, truth in truths.items():
        for how, hess in hessians.items():
            torch.manual_seed(7 + point)
            found = hess(*program.inputs(point)).to_dense()
            scale = 1 + float(truth.abs().max())
            if found.shape != truth.shape or not torch.allclose(
                found, truth, rtol=1e-6, atol=1e-7 * scale, equal_nan=True
            ):
                return Verdict("wrong values", f"at point {point}, {how}, {hess.engine}")
    return verdict


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sparse.hessian.random_programs")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print every program")
    options = parser.parse_args(arguments)
    began, kinds = time.monotonic(), Counter[str]()
    claimed: list[float] = []
    lifted = 0
    for seed in range(options.seed, options.seed + options.count):
        program, started = random_program(seed), time.monotonic()
        verdict = judge(program)
        print(f"\r{seed}: {time.monotonic() - started:.1f} s", end=" ", file=sys.stderr, flush=True)
        kinds[verdict.kind] += 1
        lifted += verdict.lifted
        claimed += [verdict.claimed] * (verdict.kind == "held")
        if verdict.kind not in ("held", "no derivative"):
            print(f"{verdict.kind}: {verdict.text}")
        if options.show or verdict.kind in ("missed", "wrong values", "crashed"):
            print(program)
    mean = np.mean(claimed) if claimed else 0.0
    print(
        f"{sum(kinds.values())} Hessians in {time.monotonic() - began:.0f} s: {dict(kinds)}; "
        f"{lifted} lifted; the patterns fill {mean:.0%}"
    )
    return int(any(kinds[k] for k in ("missed", "wrong values", "crashed")))


if __name__ == "__main__":
    sys.exit(main())
