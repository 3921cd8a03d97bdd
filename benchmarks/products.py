"""Products: ``pb.vjp``, ``pb.jvp`` and ``pull.batched`` beside ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import pullback as pb

from .options import Options
from .timing import Row, Table, compare


@dataclass(frozen=True)
class Problem:
    name: str
    func: Callable[[Tensor], Tensor]
    x: Tensor


def problems() -> list[Problem]:
    torch.manual_seed(0)
    return [
        Problem("tutorial (x+1)²ᵀ, 4×5", lambda x: (x + 1).pow(2).t(), torch.randn(4, 5)),
        Problem("small MLP 16-32-8, batch 4", _mlp(16, 32, 8), torch.randn(4, 16)),
        Problem("big MLP 512-2048-64, batch 32", _mlp(512, 2048, 64), torch.randn(32, 512)),
        Problem("conv net, 3×32×32, batch 4", _conv_net(), torch.randn(4, 3, 32, 32)),
        Problem("chain of 200 elementwise ops, 1000", _chain, torch.randn(1000)),
    ]


def _mlp(inputs: int, hidden: int, outputs: int) -> torch.nn.Module:
    layers = torch.nn.Linear(inputs, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, outputs)
    return torch.nn.Sequential(*layers).requires_grad_(False)


def _conv_net() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(4),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 8 * 8, 10),
    ).requires_grad_(False)


def _chain(x: Tensor) -> Tensor:
    for _ in range(100):
        x = x.sin() * 1.1
    return x


def _vjp(problem: Problem, quick: bool) -> Row:
    func, x = problem.func, problem.x
    v = torch.randn_like(func(x))
    candidates = {
        "pb.vjp": lambda: pb.vjp(func, x)[1](v),
        "torch.func.vjp": lambda: torch.func.vjp(func, x)[1](v),
    }
    return compare(problem.name, candidates, quick=quick)


def _jvp(problem: Problem, quick: bool) -> Row:
    func, x = problem.func, problem.x
    t = torch.randn_like(x)
    candidates = {
        "pb.jvp": lambda: pb.jvp(func, (x,), (t,)),
        "torch.func.jvp": lambda: torch.func.jvp(func, (x,), (t,)),
    }
    return compare(problem.name, candidates, quick=quick)


def _basis(problem: Problem, quick: bool) -> Row:
    func, x = problem.func, problem.x
    rows = pb.cotangents.basis(func(x))[:256]

    def ours() -> object:
        return pb.vjp(func, x)[1].batched(rows)

    def vmapped() -> object:
        return torch.func.vmap(torch.func.vjp(func, x)[1])(rows)

    candidates = {"pull.batched": ours, "vmap(vjp_fn)": vmapped}
    if len(rows) == func(x).numel():
        candidates["torch.func.jacrev"] = lambda: torch.func.jacrev(func)(x)
    row = compare(f"{problem.name}: {len(rows)} rows", candidates, quick=quick)
    missing = 3 - len(row.timings)
    return Row(row.problem, row.timings + ("takes all rows",) * missing)


def run(options: Options) -> list[Table]:
    quick = options.quick
    every = problems()
    return [
        Table(
            "One forward and one VJP",
            ("pb.vjp", "torch.func.vjp"),
            tuple(_vjp(problem, quick) for problem in every),
        ),
        Table(
            "One forward and one JVP",
            ("pb.jvp", "torch.func.jvp"),
            tuple(_jvp(problem, quick) for problem in every),
        ),
        Table(
            "One forward and the rows of the Jacobian",
            ("pull.batched", "vmap(vjp_fn)", "torch.func.jacrev"),
            tuple(_basis(problem, quick) for problem in every),
            "The first 256 rows where the Jacobian has more.",
        ),
    ]
