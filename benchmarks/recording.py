"""Recording: ``pb.record`` beside the plain backward of the same graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import pullback as pb

from .options import Options
from .timing import Row, Table, compare


@dataclass(frozen=True)
class Problem:
    name: str
    model: nn.Module
    run: Callable[[nn.Module], Tensor]


class Chain(nn.Module):
    """2,500 times a sine and a scaling: 5,000 operations on 1,000 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1000))

    def forward(self) -> Tensor:
        x: Tensor = self.start
        for _ in range(2500):
            x = x.sin() * 0.999
        return x


def problems() -> list[Problem]:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 64, 64)
    tokens = torch.randn(8, 128, 512)
    rows = torch.randn(256, 1024)
    return [
        Problem("MLP 4 × 1024, batch 256", _mlp(), lambda m: m(rows).square().mean()),
        Problem("conv net, 16×3×64×64", _conv_net(), lambda m: m(images).square().mean()),
        Problem("transformer block 512, 8×128", _block(), lambda m: m(tokens).square().mean()),
        Problem("chain of 5,000 ops on 1,000 numbers", Chain(), lambda m: m().sum()),
    ]


def _mlp() -> nn.Module:
    hidden = [layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(1024, 10))


def _conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _block() -> nn.Module:
    return nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.1, batch_first=True)


def _row(problem: Problem, quick: bool) -> Row:
    loss = problem.run(problem.model)

    def fresh(run: Callable[[], object]) -> Callable[[], object]:
        def candidate() -> object:
            problem.model.zero_grad()
            return run()

        return candidate

    candidates = {
        "backward": fresh(lambda: loss.backward(retain_graph=True)),
        "record, accumulate": fresh(lambda: pb.record(loss, accumulate=True, retain_graph=True)),
        "record, look": fresh(lambda: pb.record(loss)),
        'look, keep="tensors"': fresh(lambda: pb.record(loss, keep="tensors")),
    }
    return compare(problem.name, candidates, quick=quick)


def _traced(problem: Problem, quick: bool) -> Row:
    def traced() -> object:
        with pb.trace():
            return problem.run(problem.model)

    candidates = {"forward": lambda: problem.run(problem.model), "forward under trace": traced}
    return compare(problem.name, candidates, quick=quick)


def run(options: Options) -> list[Table]:
    quick = options.quick
    every = problems()
    return [
        Table(
            "A backward pass, plain and recorded",
            ("backward", "record, accumulate", "record, look", 'look, keep="tensors"'),
            tuple(_row(problem, quick) for problem in every),
            "The graph is retained in all of them, so that the forward is not timed. A look also "
            "searches the process for tensors whose .grad it must leave alone: 20 to 40 ms.",
        ),
        Table(
            "A forward pass, plain and traced",
            ("forward", "forward under trace"),
            tuple(_traced(problem, quick) for problem in every),
        ),
    ]
