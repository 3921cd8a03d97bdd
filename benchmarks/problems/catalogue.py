"""Which problems are measured, and at which sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One function at one size; ``kind`` and ``size`` find it in every framework.

    ``source`` is a file with its numbers; they are drawn where it is empty. ``matrix`` is what is
    asked of the function: its "jacobian" or, where it returns one number, its "hessian".
    """

    name: str
    kind: str
    size: tuple[int, ...]
    source: str = ""
    matrix: str = "jacobian"


def _brusselator(n: int) -> Problem:
    return Problem(f"brusselator2d {n}", "brusselator2d", (n,))


def _burgers(n: int) -> Problem:
    return Problem(f"burgers1d {n:,}", "burgers1d", (n,))


def _heat(n: int) -> Problem:
    return Problem(f"heat5 {n}×{n}", "heat5", (n,))


def _shallow(n: int) -> Problem:
    return Problem(f"shallow_water {n}×{n}", "shallow_water", (n,))


def _conv(side: int, channels: int, out: int, pad: int) -> Problem:
    name = f"conv_tanh {side}×{side}×{channels} to {out}"
    return Problem(name, "conv_tanh", (side, channels, out, pad))


def _stack(side: int, channels: int) -> Problem:
    return Problem(f"conv_relu_conv {side}×{side}×{channels}", "conv_relu_conv", (side, channels))


def _mlp(batch: int) -> Problem:
    return Problem(f"persample_mlp {batch}", "persample_mlp", (batch, 16, 32, 8))


def _transpose(rows: int, columns: int) -> Problem:
    return Problem(f"transpose {rows}×{columns}", "transpose", (rows, columns))


def _gather(nodes: int) -> Problem:
    return Problem(f"gather_scatter {nodes:,}", "gather_scatter", (nodes, 4 * nodes))


def _attention(length: int) -> Problem:
    return Problem(f"attention {length}", "attention", (length, 16))


def _fem(n: int) -> Problem:
    return Problem(f"fem_p1 {n}×{n}", "fem_p1", (n,))


def _springs(n: int) -> Problem:
    return Problem(f"springs3d {n}×{n}", "springs3d", (n,))


def _bundle(name: str, cameras: int, points: int, views: int) -> Problem:
    return Problem(f"bundle {name}", "bundle", (cameras, points, views))


def _dense(name: str, inputs: int, hidden: int, outputs: int) -> Problem:
    return Problem(f"{name} {inputs} to {outputs}", name, (inputs, hidden, outputs))


def _energy(kind: str, *size: int, shown: str = "") -> Problem:
    return Problem(f"{kind} {shown or f'{size[0]:,}'}", kind, size, matrix="hessian")


def _grid(kind: str, n: int) -> Problem:
    return _energy(kind, n, shown=f"{n}×{n}")


def _graph(kind: str, nodes: int, elements: int) -> Problem:
    return _energy(kind, nodes, elements * nodes)


def _softmax_rows(rows: int) -> Problem:
    return _energy("logsumexp_rows", rows, 8, 24, shown=f"{rows:,}×8")


LINES = ("rosenbrock", "arrowhead", "band_quartic", "broyden_squares")

TINY = {"jacobian": _transpose(2, 3), "hessian": _energy("rosenbrock", 5)}

QUICK = (
    _brusselator(8),
    _brusselator(32),
    _burgers(1000),
    _heat(32),
    _shallow(16),
    _conv(16, 3, 2, 0),
    _stack(8, 2),
    _mlp(64),
    _transpose(40, 50),
    _gather(1000),
    _attention(16),
    _fem(16),
    _springs(12),
    _bundle("small", 8, 60, 300),
    _dense("dense_mlp", 64, 64, 64),
    _dense("tall_mlp", 32, 32, 512),
)

FULL = (
    *map(_brusselator, (8, 16, 32, 64, 128, 256, 512)),
    *map(_burgers, (1000, 10_000, 100_000, 1_000_000)),
    *map(_heat, (32, 100, 316)),
    *map(_shallow, (32, 128)),
    _conv(28, 3, 2, 0),
    _conv(32, 8, 8, 1),
    *(_stack(side, 4) for side in (16, 32)),
    *map(_mlp, (256, 1024)),
    _transpose(4, 5),
    _transpose(400, 500),
    _transpose(2000, 2500),
    *map(_gather, (1000, 10_000)),
    *map(_attention, (32, 64)),
    *map(_fem, (32, 128)),
    *map(_springs, (16, 64)),
    _bundle("ba1", 49, 7776, 31843),
    _bundle("ba3", 161, 48126, 182072),
    _bundle("ba4", 372, 47423, 204472),
    _bundle("ba10", 1197, 126327, 563734),
    _dense("dense_mlp", 256, 256, 256),
    _dense("wide_mlp", 4096, 64, 64),
    _dense("tall_mlp", 64, 64, 4096),
)

QUICK_HESSIANS = (
    *(_energy(kind, 1000) for kind in LINES),
    _grid("minimal_surface", 32),
    _graph("graph_quartic", 1000, 2),
    _graph("spring_energy", 333, 3),
    _softmax_rows(125),
    _energy("attention_energy", 8, 4),
    _energy("mlp_loss", 64, 64, 64),
    _energy("logistic", 64, 500),
)

HESSIANS = (
    *(_energy(kind, n) for kind in LINES for n in (1000, 10_000, 100_000)),
    *(_grid("minimal_surface", n) for n in (32, 100, 316)),
    *(_graph("graph_quartic", n, 2) for n in (1000, 10_000, 100_000)),
    *(_graph("spring_energy", n, 3) for n in (333, 3333, 33_333)),
    *map(_softmax_rows, (125, 1250, 12_500)),
    _energy("attention_energy", 32, 8),
    _energy("mlp_loss", 256, 256, 64),
    _energy("logistic", 64, 2000),
)


def chosen(problems: Sequence[Problem], names: Sequence[str]) -> tuple[Problem, ...]:
    """Those whose name contains one of ``names``; all of them where there are none."""
    if not names:
        return tuple(problems)
    return tuple(p for p in problems if any(name in p.name for name in names))


def with_files(problems: Sequence[Problem], folder: Path) -> tuple[Problem, ...]:
    """The bundle adjustments with GradBench's input files, where ``folder`` holds them."""
    return tuple(_with_file(problem, folder) for problem in problems)


def _with_file(problem: Problem, folder: Path) -> Problem:
    if problem.kind != "bundle":
        return problem
    cameras, points, views = problem.size
    file = folder / f"{problem.name.split()[1]}_n{cameras}_m{points}_p{views}.txt"
    return replace(problem, source=str(file.resolve())) if file.exists() else problem
