"""Watching: a training step, plain, under ``pb.trace`` and under ``pb.ledger``; a script, run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tests.backward.corpus.whys import CASES
from torch import Tensor, nn

import pullback as pb

from .options import Options
from .timing import Row, Table, compare, timing_of

_STEPS = 4
_ROUNDS = 5


class Small(nn.Module):
    """Two layers of a transformer, 128 wide, over a vocabulary of 200."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
        self.embed = nn.Embedding(200, 128)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(128, 200)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.embed(tokens)))
        return out


@dataclass(frozen=True)
class Training:
    name: str
    model: nn.Module
    loss: Callable[[nn.Module], Tensor]

    def steps(self, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(_STEPS):
            optimizer.zero_grad()
            self.loss(self.model).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()


def trainings() -> list[Training]:
    torch.manual_seed(0)
    tokens = torch.randint(0, 200, (8, 64))
    rows = torch.randn(64, 64)

    def next_token(model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(tokens)[:, :-1].transpose(1, 2), tokens[:, 1:])

    small = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    large = [layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    wide = torch.randn(64, 1024)
    return [
        Training("transformer, 2 × 128, 8×64 tokens", Small(), next_token),
        Training(
            "MLP 4 × 1024, batch 64", nn.Sequential(*large), lambda m: m(wide).square().mean()
        ),
        Training("MLP 2 × 64, batch 64", small, lambda m: m(rows).square().mean()),
    ]


def _row(training: Training, quick: bool) -> Row:
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-4)

    def traced() -> None:
        with pb.trace():
            training.steps(optimizer)

    def kept() -> None:
        with pb.ledger(training.model):
            training.steps(optimizer)

    candidates = {
        "plain": lambda: training.steps(optimizer),
        "under trace": traced,
        "under trace and ledger": kept,
    }
    return compare(training.name, candidates, quick=quick)


_SCRIPT = """
import sys, time
import torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
net = nn.Sequential(nn.Embedding(200, 128), nn.TransformerEncoder(layer, 2,
                    enable_nested_tensor=False), nn.Linear(128, 200))
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
tokens = torch.randint(0, 200, (8, 64))
begun = time.perf_counter()
for _ in range(int(sys.argv[1])):
    optimizer.zero_grad()
    out = net(tokens)[:, :-1].transpose(1, 2)
    nn.functional.cross_entropy(out, tokens[:, 1:]).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
print(time.perf_counter() - begun)
"""


def _script_row(quick: bool) -> Row:
    """Each candidate in a process of its own, in turns; what is timed is the loop alone."""
    steps = "20" if quick else "200"
    runs = {"python": [sys.executable], "pullback run": [sys.executable, "-m", "pullback", "run"]}
    found: dict[str, list[float]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.py"
        path.write_text(_SCRIPT)
        for _ in range(2 if quick else _ROUNDS):
            for name, command in runs.items():
                done = subprocess.run(
                    [*command, str(path), steps], capture_output=True, text=True, check=True
                )
                found[name].append(float(done.stdout.split()[-1]))
    return Row(
        f"the transformer, {steps} steps",
        tuple(timing_of(name, seconds, 1) for name, seconds in found.items()),
    )


def _corpus_row(quick: bool) -> Row:
    """Every program of the corpus once, its question to ``pb.why`` included: the slowest."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for k, (name, case) in enumerate(list(CASES.items())[: 5 if quick else None]):
            path = Path(folder) / f"case{k}.py"
            path.write_text(case.source)
            code = compile(case.source, str(path), "exec")
            begun = time.perf_counter()
            exec(code, {"__name__": "__main__"})
            found[name] = time.perf_counter() - begun
    slowest = max(found, key=found.__getitem__)
    every = list(found.values())
    return Row(
        f"{len(found)} programs; the slowest: {slowest}",
        (timing_of("each", every, 1), timing_of("slowest", [found[slowest]] * 2, 1)),
    )


def run(options: Options) -> list[Table]:
    quick = options.quick
    return [
        Table(
            f"Training steps, plain and watched ({_STEPS} at a time)",
            ("plain", "under trace", "under trace and ledger"),
            tuple(_row(training, quick) for training in trainings()),
            "A step is zero_grad, forward, backward, clip_grad_norm_ and AdamW. A ledger traces, "
            "too; entering and leaving its block is in the times.",
        ),
        Table(
            "A script's training loop, by python and by pullback run",
            ("python", "pullback run"),
            (_script_row(quick),),
        ),
        Table(
            "Programs of the diagnosis corpus, each with its question",
            ("each", "slowest"),
            (_corpus_row(quick),),
            compare=False,
        ),
    ]
