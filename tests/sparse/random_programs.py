"""Random programs of the kind that people write, held against dense autograd.

``python -m tests.sparse.random_programs --count 2000 --seed 0`` tries that many; a program is
named by its seed, and prints itself with ``--show``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

import pullback as pb
from pullback._errors import PullbackError
from pullback.sparse.arguments import arguments_for
from pullback.sparse.capture import NotCaptured, capture
from pullback.sparse.detect import detect
from pullback.sparse.state import State

from .random_steps import STEPS, Unfit

LARGEST = 48


@dataclass
class RandomProgram:
    """Steps, each with the numbers of the values that it reads; inputs come first."""

    seed: int
    shapes: list[tuple[int, ...]]
    names: list[str] = field(default_factory=list)
    steps: list[Callable[..., Tensor]] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def inputs(self, point: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1000 * self.seed + point)
        return [torch.randn(s, dtype=torch.float64, generator=generator) for s in self.shapes]

    @property
    def func(self) -> Callable[..., tuple[Tensor, ...]]:
        steps, sources, outputs = self.steps, self.sources, self.outputs

        def program(*inputs: Tensor) -> tuple[Tensor, ...]:
            values = list(inputs)
            for step, reads in zip(steps, sources, strict=True):
                values.append(step(*(values[k] for k in reads)))
            return tuple(values[k] for k in outputs)

        return program

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: inputs {self.shapes}"]
        first = len(self.shapes)
        for k, (name, reads) in enumerate(zip(self.names, self.sources, strict=True)):
            lines.append(f"  v{first + k} = {name}({', '.join(f'v{r}' for r in reads)})")
        return "\n".join([*lines, f"  return {', '.join(f'v{k}' for k in self.outputs)}"])


def random_program(seed: int) -> RandomProgram:
    rng = np.random.default_rng(seed)
    shapes: list[tuple[int, ...]] = [(6,), (3, 4), (2, 3, 3), (4, 4), (8,), (2, 6)]
    picked = [shapes[k] for k in rng.integers(len(shapes), size=rng.integers(1, 4))]
    program = RandomProgram(seed, picked)
    torch.manual_seed(seed)
    values = [t.requires_grad_() for t in program.inputs(0)]
    length = int(rng.integers(2, 26))
    # Some programs stay local, so that their patterns stay sparse to the end.
    kinds = [k for k, step in STEPS.items() if step.local or rng.random() < 0.6]
    while len(program.steps) < length:
        _grow(program, kinds, values, rng)
    count = int(rng.integers(1, 4))
    last = range(len(values) - 1, max(len(values) - 1 - 2 * count, len(picked) - 1), -1)
    live = [k for k in last if values[k].requires_grad]
    program.outputs = live[:count] or [len(picked) - 1]
    return program


def _grow(
    program: RandomProgram, kinds: Sequence[str], values: list[Tensor], rng: np.random.Generator
) -> None:
    """One step more, if the drawn one fits the values that there are and its result is sane."""
    kind = STEPS[kinds[rng.integers(len(kinds))]]
    recent = np.exp(-0.3 * np.arange(len(values))[::-1])
    reads = tuple(int(k) for k in rng.choice(len(values), size=kind.arity, p=recent / recent.sum()))
    chosen = [values[k] for k in reads]
    try:
        step = kind.make(rng, *chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = step(*chosen)
    except Unfit:
        return
    if 0 < result.numel() <= LARGEST and bool(result.detach().abs().max() < 1e3):
        program.names.append(kind.name)
        program.steps.append(step)
        program.sources.append(reads)
        values.append(result)


@dataclass
class Verdict:
    """``kind`` is "held", "not captured", "refused", "missed", "wrong values" or "crashed"."""

    kind: str
    text: str = ""
    claimed: float = 0.0
    pessimistic: tuple[str, ...] = ()
    lifted: bool = False


def dense(program: RandomProgram, point: int, seed: int) -> Tensor:
    """The Jacobian of all outputs by all inputs, a backward pass per row."""
    inputs = [t.requires_grad_() for t in program.inputs(point)]
    torch.manual_seed(seed)
    rows = []
    for output in program.func(*inputs):
        for entry in output.reshape(-1).unbind():
            if not entry.requires_grad:
                rows.append(torch.zeros(sum(t.numel() for t in inputs), dtype=torch.float64))
                continue
            found = torch.autograd.grad(
                entry, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g.reshape(-1) for g in found]))
    return torch.stack(rows)


def judge(program: RandomProgram) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            verdict = _pattern_holds(program)
            return verdict if verdict.kind == "missed" else _values_hold(program, verdict)
        except PullbackError as error:
            return Verdict("refused", str(error).partition("\n")[0])
        except Exception as error:
            return Verdict("crashed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def _pattern_holds(program: RandomProgram) -> Verdict:
    inputs, func = program.inputs(0), program.func
    arguments = arguments_for("random program", inputs, tuple(range(len(inputs))))
    torch.manual_seed(7)
    try:
        captured = capture("random program", func, arguments, State.of(func))
    except NotCaptured as reason:
        return Verdict("not captured", str(reason))
    detection = detect("random program", captured.graph)
    claimed = np.asarray(detection.pattern.to_scipy().todense()).astype(bool)
    for point, seed in ((0, 7), (1, 8)):
        truth = (dense(program, point, seed) != 0).numpy()
        missed = int((truth & ~claimed).sum())
        if missed:
            return Verdict("missed", f"{missed} entries at point {point}")
    return Verdict("held", claimed=claimed.mean(), pessimistic=tuple(detection.pessimistic))


def _values_hold(program: RandomProgram, verdict: Verdict) -> Verdict:
    """The values along a plan, where plans are to be had, at both points."""
    if not hasattr(pb, "plan_jacobian"):
        return verdict
    inputs, func = program.inputs(0), program.func
    argnums = tuple(range(len(inputs)))
    torch.manual_seed(7)
    jacs = {"": pb.jacobian(func, argnums=argnums, layout=torch.sparse_csr)}
    for lift in (True, False):
        plan = pb.plan_jacobian(func, *inputs, argnums=argnums, lift=lift)
        jacs[f", lift={lift}"] = pb.jacobian(func, argnums=argnums, plan=plan)
        verdict.lifted |= plan.lifted
    for point, seed in ((0, 7), (1, 8)):
        truth = dense(program, point, seed)
        for how, jac in jacs.items():
            torch.manual_seed(seed)
            found = jac(*program.inputs(point)).to_dense()
            if found.shape != truth.shape or not torch.allclose(
                found, truth, rtol=1e-6, atol=1e-6 * (1 + float(truth.abs().max()))
            ):
                return Verdict("wrong values", f"at point {point}{how}")
    return verdict


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sparse.random_programs", description=__doc__
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print every program")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    used: Counter[str] = Counter()
    claimed: list[float] = []
    lifted = 0
    for seed in range(options.seed, options.seed + options.count):
        program = random_program(seed)
        used.update(set(program.names))
        verdict = judge(program)
        kinds[verdict.kind] += 1
        claimed += [verdict.claimed] * (verdict.kind == "held")
        lifted += verdict.lifted
        reasons.update(verdict.pessimistic)
        if verdict.kind in ("not captured", "refused"):
            reasons[f"{verdict.kind}: {verdict.text}"] += 1
        elif verdict.kind != "held":
            print(f"{verdict.kind}: {verdict.text}")
        if options.show or verdict.kind in ("missed", "wrong values", "crashed"):
            print(program)
    print(f"{lifted} programs can be lifted")
    _summary(kinds, reasons, used, claimed, time.monotonic() - began)
    return int(any(kinds[k] for k in ("missed", "wrong values", "crashed")))


def _summary(
    kinds: Counter[str],
    reasons: Counter[str],
    used: Counter[str],
    claimed: list[float],
    seconds: float,
) -> None:
    print(f"{sum(kinds.values())} programs in {seconds:.0f} s: {dict(kinds)}")
    if claimed:
        print(
            f"the patterns fill {np.mean(claimed):.0%} on average, half of them below "
            f"{np.median(claimed):.0%}"
        )
    for text, count in reasons.most_common(20):
        print(f"  {count} x {text}")
    print(f"steps never drawn: {sorted(set(STEPS) - set(used))}")


if __name__ == "__main__":
    sys.exit(main())
