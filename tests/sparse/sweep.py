"""Every operator of torch's own test database: does its detected pattern hold, and how tight is it?

``python -m tests.sparse.sweep`` prints a table; its exit code is 1 where a pattern misses an entry,
where detection crashes, or where more than 5 % of the operators fall to the pessimistic rule.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb
from pullback._adjoint import _generator
from pullback.sparse.arguments import Arguments, arguments_for, as_real
from pullback.sparse.capture import NotCaptured, capture
from pullback.sparse.detect import RULE_FAILED, detect
from pullback.sparse.state import State

BASELINE = Path(__file__).with_name("tightness.json")
SMALL = 200
LARGEST = 2000
PESSIMISTIC_AT_MOST = 0.05


@dataclass(frozen=True)
class Sample:
    """One call of an operator as a function of the tensors that it is differentiated in."""

    label: str
    func: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    outputs: int

    @property
    def size(self) -> int:
        """The number of input or output elements, whichever is more."""
        return max(sum(t.numel() for t in self.inputs), self.outputs)


@dataclass
class Outcome:
    """What became of an operator's samples: the entries that some point shows, those claimed, and
    what went wrong."""

    label: str
    samples: int = 0
    detected: int = 0
    shown: int = 0
    claimed: int = 0
    size: int = 0
    lifted: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    not_captured: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    pessimistic: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return bool(self.missed or self.wrong or self.crashed)


def operators(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """The operators of the database that have a gradient in ``dtype``, by name and variant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

    return {
        f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name: op
        for op in op_db
        if op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
    }


def seeded(seed: int) -> None:
    """``torch.manual_seed`` on the CPU alone: for devices that are not there it notes the stack.

    Also pullback's own stream of probes, so that what one operator meets does not depend on the
    tests before: a cast to half a precision is now and then no more linear than its rounding.
    """
    torch.default_generator.manual_seed(seed)
    _generator(torch.device("cpu")).manual_seed(seed)


def samples_of(label: str, op: Any, dtype: torch.dtype, most: int) -> Iterator[Sample]:
    """Small samples, spread over the database's list so that its options all have a chance."""
    seeded(0)
    np.random.seed(0)
    random.seed(0)
    found = []
    for k, given in enumerate(op.sample_inputs("cpu", dtype, requires_grad=True)):
        sample = _sample(f"{label}[{k}]", op, given)
        if sample is not None:
            found.append(sample)
        if len(found) >= 400:
            break
    small = [sample for sample in found if sample.size <= SMALL]
    if small:
        yield from small[:: max(1, -(-len(small) // most))]
    else:
        yield from sorted(found, key=lambda sample: sample.size)[:2]


def _sample(label: str, op: Any, given: Any) -> Sample | None:
    leaves, spec = pytree.tree_flatten((given.input, given.args, given.kwargs))
    smooth = [
        k
        for k, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf.requires_grad and leaf.layout is torch.strided
    ]
    if not 0 < sum(leaves[k].numel() for k in smooth) <= LARGEST:
        return None
    call = op.op
    rest = [None if k in smooth else leaf for k, leaf in enumerate(leaves)]

    def func(*tensors: Tensor) -> Any:
        filled = list(rest)
        for k, tensor in zip(smooth, tensors, strict=True):
            filled[k] = tensor
        first, args, kwargs = pytree.tree_unflatten(filled, spec)
        returned = call(first, *args, **kwargs)
        parts = [
            part
            for part in pytree.tree_leaves(returned)
            if isinstance(part, Tensor) and part.requires_grad
        ]
        return tuple(parts)

    inputs = tuple(leaves[k].detach().clone() for k in smooth)
    try:
        parts = func(*(t.clone().requires_grad_() for t in inputs))
    except Exception:  # it needs the strides or the storage of the tensors themselves
        return None
    outputs = sum(t.numel() for t in parts)
    return Sample(label, func, inputs, outputs) if 0 < outputs <= LARGEST else None


def true_entries(arguments: Arguments, func: Callable[..., Any], primals: Sequence[Tensor]) -> Any:
    """Where the Jacobian at a point is a number other than 0; None where there is none."""
    leaves = [t.detach().clone().requires_grad_() for t in primals]
    seeded(1)
    outputs = [as_real(t) for t in pytree.tree_leaves(arguments.call(func, leaves, []))]
    if not 0 < sum(t.numel() for t in outputs) <= LARGEST:
        return None
    rows = []
    for output in outputs:
        for entry in output.reshape(-1).unbind():
            found = torch.autograd.grad(entry, leaves, retain_graph=True, allow_unused=True)
            row = [
                torch.zeros(leaf.numel(), dtype=torch.bool)
                if g is None
                else (g.ne(0) & g.isfinite()).reshape(-1)
                for g, leaf in zip(found, leaves, strict=True)
            ]
            rows.append(torch.cat(row))
    return None if not rows else torch.stack(rows).numpy()


def perturbed(tensor: Tensor) -> Tensor:
    """Every entry a few percent away, so that signs and domains stay."""
    return tensor * (1 + 0.05 * torch.rand_like(tensor))


def points_of(primals: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The sample; a point near by; and one whose entries have changed places."""
    yield list(primals)
    seeded(2)
    yield [perturbed(t) for t in primals]
    shuffled = [t.reshape(-1)[torch.randperm(t.numel())].reshape(t.shape) for t in primals]
    yield [perturbed(t) for t in shuffled]


def examine(sample: Sample, outcome: Outcome, lifts: int = 5) -> None:
    """Add one sample's pattern, held against dense autograd at three points, to ``outcome``; its
    values, too, while fewer than ``lifts`` samples were lifted."""
    inputs = [t.detach().clone() for t in sample.inputs]
    arguments = arguments_for("sweep", inputs, tuple(range(len(inputs))))
    try:
        first = true_entries(arguments, sample.func, arguments.primals)
    except RuntimeError as error:
        outcome.refused.append(f"{sample.label}: by torch: {first_line(error)}")
        return
    if first is None:
        return
    outcome.samples += 1
    everywhere = True
    try:
        seeded(1)
        graph = capture("sweep", sample.func, arguments, State.of(sample.func)).graph
    except NotCaptured as reason:
        outcome.not_captured.append(f"{sample.label}: {first_line(reason)}")
        if reason.graph is None:
            return
        graph, everywhere = reason.graph, False
    detection = detect("sweep", graph)
    outcome.detected += 1
    claimed = np.asarray(detection.pattern.to_scipy().todense()).astype(bool)
    outcome.pessimistic |= detection.pessimistic
    for name, reason in detection.pessimistic.items():
        if reason.startswith(RULE_FAILED):
            raise RuntimeError(f"{name}: {reason}")
    shown = np.zeros_like(claimed)
    for place, primals in enumerate(points_of(arguments.primals)):
        if place and not everywhere:
            break
        try:
            truth = true_entries(arguments, sample.func, primals) if place else first
        except RuntimeError:
            continue
        if truth is None or truth.shape != claimed.shape:
            continue
        shown |= truth
        missed = int((truth & ~claimed).sum())
        if missed:
            outcome.missed.append(f"{sample.label}: {missed} entries at point {place}")
    if everywhere and outcome.lifted < lifts:
        examine_lifted(sample, arguments, outcome)
    outcome.shown += int(shown.sum())
    outcome.claimed += int(claimed.sum())
    outcome.size += claimed.size


def dense_jacobian(
    arguments: Arguments, func: Callable[..., Any], primals: Sequence[Tensor]
) -> Tensor:
    """A row per real output element, by one product each.

    Each gives every output a cotangent: the backward of a group norm is another where one has none.
    """
    leaves = [t.detach().clone().requires_grad_() for t in primals]
    seeded(1)
    outputs = [as_real(t) for t in pytree.tree_leaves(arguments.call(func, leaves, []))]
    zeros = [torch.zeros_like(out, memory_format=torch.contiguous_format) for out in outputs]
    rows = []
    for zero in zeros:
        for place in range(zero.numel()):
            zero.view(-1)[place] = 1
            found = torch.autograd.grad(
                outputs, leaves, zeros, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g.reshape(-1) for g in found]))  # may be a view of the zeros
            zero.view(-1)[place] = 0
    return torch.stack(rows)


def examine_lifted(sample: Sample, arguments: Arguments, outcome: Outcome) -> None:
    """A lifted matrix, where the operator can be lifted, against dense autograd at two points."""
    argnums = tuple(range(len(sample.inputs)))
    seeded(1)
    plan = pb.plan_jacobian(sample.func, *sample.inputs, argnums=argnums, lift=True)
    if not plan.lifted:
        return
    outcome.lifted += 1
    jac = pb.jacobian(sample.func, argnums, plan=plan)
    for place, primals in enumerate(list(points_of(arguments.primals))[:2]):
        try:
            truth = dense_jacobian(arguments, sample.func, primals)
        except RuntimeError:
            continue
        seeded(1)
        found = jac(*_as_given(sample, primals)).to_dense()
        # Where a product is not finite, zeros of others may not be what they are on their own.
        usable = truth.isfinite() & found.isfinite()
        found, truth = found[usable], truth[usable]
        scale = 1 + float(truth.abs().amax()) if truth.numel() else 1.0
        if not torch.allclose(found, truth, rtol=1e-6, atol=1e-6 * scale):
            outcome.wrong.append(f"{sample.label}: lifted values at point {place}")


def _as_given(sample: Sample, primals: Sequence[Tensor]) -> list[Tensor]:
    """The real primals in the dtypes of the sample."""
    return [
        torch.view_as_complex(p.contiguous()) if t.is_complex() else p
        for p, t in zip(primals, sample.inputs, strict=True)
    ]


def sweep_one(
    label: str, op: Any, dtype: torch.dtype = torch.float64, most: int = 5, lifts: int = 5
) -> Outcome:
    outcome = Outcome(label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for sample in samples_of(label, op, dtype, most):
                try:
                    examine(sample, outcome, lifts)
                except Exception as error:
                    text = f"{type(error).__name__}: {first_line(error)}"
                    outcome.crashed.append(f"{sample.label}: {text}")
        except Exception as error:  # some of the database's own samples fail on this build
            outcome.refused.append(f"{label}: no samples: {type(error).__name__}")
    return outcome


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]


def write_baseline(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Of each operator the patterns found, the entries that some point showed, and those claimed."""
    entries = {"torch": torch.__version__.partition("+")[0]} | {
        o.label: [o.detected, o.shown, o.claimed]
        for o in sorted(outcomes, key=lambda o: o.label)
        if o.detected
    }
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def baseline() -> dict[str, list[int]]:
    """What an earlier sweep found; nothing where it ran on another torch, with other samples."""
    entries: dict[str, Any] = json.loads(BASELINE.read_text())
    same = entries.pop("torch") == torch.__version__.partition("+")[0]
    return entries if same else {}


def report(outcomes: Sequence[Outcome], seconds: float) -> bool:
    """Print what was found; whether it is good enough."""
    tried = [o for o in outcomes if o.samples]
    loose = sorted((o for o in tried if o.claimed > o.shown), key=lambda o: o.shown - o.claimed)
    pessimistic = [o for o in tried if o.pessimistic]
    for title, lines in {
        "missed": [m for o in tried for m in o.missed],
        "wrong": [w for o in tried for w in o.wrong],
        "crashed": [c for o in outcomes for c in o.crashed],
        "refused": [r for o in outcomes for r in o.refused],
        "not captured": [n for o in outcomes for n in o.not_captured],
        "pessimistic": [f"{o.label}: {o.pessimistic}" for o in pessimistic],
        "without samples": [o.label for o in outcomes if not o.samples],
        "loose": [f"{o.label}: {o.shown} of {o.claimed} ({o.size})" for o in loose],
    }.items():
        print(f"\n{title}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    share = len(pessimistic) / max(len(tried), 1)
    whole = [o for o in tried if o.not_captured and len(o.not_captured) == o.samples]
    print(
        f"\n{len(outcomes)} operators, {len(tried)} with samples, {sum(o.samples for o in tried)} "
        f"samples in {seconds:.0f} s; {sum(len(o.missed) for o in tried)} misses; "
        f"{sum(o.lifted for o in tried)} samples lifted, {sum(len(o.wrong) for o in tried)} wrong; "
        f"{sum(len(o.crashed) for o in outcomes)} crashes; {len(whole)} operators never captured; "
        f"{len(pessimistic)} ({share:.1%}) use the pessimistic rule; "
        f"{len(tried) - len(loose)} exact; entries shown {sum(o.shown for o in tried)} of "
        f"{sum(o.claimed for o in tried)} claimed"
    )
    return not any(o.failed for o in outcomes) and share <= PESSIMISTIC_AT_MOST


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sparse.sweep", description=__doc__)
    parser.add_argument("--only", default="", help="operators whose name contains this")
    parser.add_argument("--dtype", default="float64", choices=["float64", "complex128"])
    parser.add_argument("--most", type=int, default=5, help="samples per operator")
    parser.add_argument(
        "--out", type=Path, help="write what was found, as a baseline, to this file"
    )
    options = parser.parse_args(arguments)
    dtype = getattr(torch, options.dtype)
    began = time.monotonic()
    outcomes = []
    for label, op in operators(dtype).items():
        if options.only in label:
            outcomes.append(sweep_one(label, op, dtype, options.most))
            print(f"\r{label:60}", end="", file=sys.stderr, flush=True)
    good = report(outcomes, time.monotonic() - began)
    if options.out:
        write_baseline(options.out, outcomes)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
