"""The Hessian of every operator of torch's own test database, weighed to one number.

``python -m tests.sparse.hessian.sweep`` prints what fails; its exit code is 1 where a pattern misses
an entry, where values are not those of a backward through the backward, or where something crashes.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb

from ..sweep import Sample, first_line, operators, points_of, samples_of, seeded
from .reference import dense_hessian

LARGEST = 40
ROUNDING = 1e-13
WAYS = (("auto", "auto"), (True, "auto"), (False, "star"), (False, "acyclic"))


@dataclass
class Outcome:
    label: str
    samples: int = 0
    claimed: int = 0
    shown: int = 0
    full: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    by_torch: list[str] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)

    @property
    def failed(self) -> bool:
        return bool(self.missed or self.wrong or self.crashed)


def weighed(sample: Sample) -> Callable[..., Tensor]:
    """Σ w · outputs, with fixed weights of every output; real parts and imaginary ones, too."""
    seeded(1)
    outputs = pytree.tree_leaves(sample.func(*(t.clone().requires_grad_() for t in sample.inputs)))
    generator = torch.Generator().manual_seed(5)
    count = 2 * sum(t.numel() for t in outputs)
    weights = torch.randn(count + 1, dtype=torch.float64, generator=generator)

    def func(*tensors: Tensor) -> Tensor:
        total, first = torch.zeros((), dtype=torch.float64), 0
        for out in pytree.tree_leaves(sample.func(*tensors)):
            real = torch.view_as_real(out.resolve_conj()) if out.is_complex() else out
            flat = real.reshape(-1)
            total = total + (weights[first : first + flat.numel()] * flat).sum()
            first += flat.numel()
        return total

    return func


def differentiable(sample: Sample) -> bool:
    return all(t.dtype == torch.float64 for t in sample.inputs)


def planned(func: Callable[..., Tensor], inputs: Sequence[Tensor], turn: int) -> pb.Plan:
    """Along the ways to a plan in turn; by mirrors where the matrix is known to be symmetric."""
    lift, mode = WAYS[turn % len(WAYS)]
    options: dict[str, Any] = {"argnums": tuple(range(len(inputs))), "lift": lift}
    try:
        return pb.plan_hessian(func, *inputs, mode=mode, **options)
    except pb.UnsupportedError as error:
        if "symmetric" not in str(error):
            raise
        return pb.plan_hessian(func, *inputs, **options)


def examine(sample: Sample, outcome: Outcome, turn: int) -> None:
    """Add one sample's pattern at three points, and its values at two, to ``outcome``."""
    inputs = tuple(t.detach().clone() for t in sample.inputs)
    argnums = tuple(range(len(inputs)))
    func = weighed(sample)
    try:
        seeded(1)
        dense_hessian(func, *inputs)
    except (RuntimeError, NotImplementedError) as error:
        outcome.by_torch.append(f"{sample.label}: {first_line(error)}")
        return
    outcome.samples += 1
    seeded(1)
    try:
        plan = planned(func, inputs, turn)
    except pb.UnsupportedError as error:
        outcome.refused.append(f"{sample.label}: {first_line(error)}")
        return
    outcome.notes |= {note.partition("(")[0] for note in plan.notes}
    claimed = np.asarray(plan.pattern.to_scipy().todense()).astype(bool)
    hess = pb.hessian(func, argnums, plan=plan)
    everywhere = not any("no captured graph" in note for note in plan.notes)
    shown = np.zeros_like(claimed)
    for place, primals in enumerate(points_of(inputs)):
        truth = truth_at(func, primals)
        if truth is None:
            continue
        finite = truth.isfinite()
        scale = 1 + float(truth[finite].abs().amax()) if finite.any() else 1.0
        entries = (finite & (truth.abs() > ROUNDING * scale)).numpy()
        shown |= entries
        if everywhere and (entries & ~claimed).any():
            outcome.missed.append(
                f"{sample.label}: {int((entries & ~claimed).sum())} entries at point {place}"
            )
        seeded(1)
        found = hess(*primals).to_dense()
        usable = finite & found.isfinite()
        if not torch.allclose(found[usable], truth[usable], rtol=1e-6, atol=1e-7 * scale):
            outcome.wrong.append(
                f"{sample.label}: values at point {place}, {hess.engine}, "
                f"mode {plan.mode}, coloring {plan.coloring.kind}, lifted {plan.lifted}"
            )
        if (found.isfinite() != truth.isfinite()).any():
            outcome.notes.add("finite elsewhere than torch")
    outcome.shown += int(shown.sum())
    outcome.claimed += int(claimed.sum())
    outcome.full += claimed.size


def truth_at(func: Callable[..., Tensor], primals: Sequence[Tensor]) -> Tensor | None:
    """None outside the domain of the operator."""
    seeded(1)
    try:
        return dense_hessian(func, *primals)
    except (RuntimeError, NotImplementedError):
        return None


def small_samples(label: str, op: Any, most: int) -> list[Sample]:
    found = [s for s in samples_of(label, op, torch.float64, 10) if differentiable(s)]
    found.sort(key=lambda sample: sum(t.numel() for t in sample.inputs))
    small = [s for s in found if sum(t.numel() for t in s.inputs) <= LARGEST]
    return small[:: max(1, -(-len(small) // most))] or found[:1]


def sweep_one(label: str, op: Any, most: int = 3, turn: int = 0) -> Outcome:
    outcome = Outcome(label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            samples = small_samples(label, op, most)
        except Exception as error:  # some of the database's own samples fail on this build
            outcome.by_torch.append(f"{label}: no samples: {type(error).__name__}")
            return outcome
        for k, sample in enumerate(samples):
            try:
                examine(sample, outcome, turn + k)
            except Exception as error:
                outcome.crashed.append(
                    f"{sample.label}: {type(error).__name__}: {first_line(error)}"
                )
    return outcome


def report(outcomes: Sequence[Outcome], seconds: float) -> bool:
    loose = [o for o in outcomes if o.claimed > o.shown]
    for title, lines in {
        "missed": [m for o in outcomes for m in o.missed],
        "wrong": [w for o in outcomes for w in o.wrong],
        "crashed": [c for o in outcomes for c in o.crashed],
        "refused": [r for o in outcomes for r in o.refused],
        "refused by torch": [r for o in outcomes for r in o.by_torch],
        "notes": [f"{o.label}: {note}" for o in outcomes for note in sorted(o.notes)],
        "loose": [f"{o.label}: {o.shown} of {o.claimed} ({o.full})" for o in loose],
    }.items():
        print(f"\n{title}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    print(
        f"\n{len(outcomes)} operators, {sum(o.samples for o in outcomes)} samples in "
        f"{seconds:.0f} s; {sum(len(o.missed) for o in outcomes)} misses; "
        f"{sum(len(o.wrong) for o in outcomes)} wrong; "
        f"{sum(len(o.crashed) for o in outcomes)} crashes; "
        f"entries shown {sum(o.shown for o in outcomes)} of {sum(o.claimed for o in outcomes)}"
    )
    return not any(o.failed for o in outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sparse.hessian.sweep")
    parser.add_argument("--only", default="", help="operators whose name contains this")
    parser.add_argument("--most", type=int, default=3, help="samples per operator")
    parser.add_argument("--every", type=int, default=1, help="one operator of so many")
    options = parser.parse_args(arguments)
    began, outcomes = time.monotonic(), []
    named = [label for label in sorted(operators()) if options.only in label]
    database = operators()
    for turn, label in enumerate(named[:: options.every]):
        outcomes.append(sweep_one(label, database[label], options.most, turn))
        print(f"\r{label:60}", end="", file=sys.stderr, flush=True)
    return 0 if report(outcomes, time.monotonic() - began) else 1


if __name__ == "__main__":
    sys.exit(main())
