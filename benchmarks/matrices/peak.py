"""``python -m benchmarks.matrices.peak REQUEST``: print the bytes that one candidate adds.

REQUEST is a JSON object: the fields of the problem, ``candidate`` and ``threads``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor

from ..memory import peak_bytes
from ..peers.dense import variants
from ..problems.catalogue import TINY, Problem
from ..problems.in_torch import Func, build
from .derivative import DERIVATIVES
from .ours import COMPILED, LIFTED, PLAIN, without_graph


def added(candidate: str, problem: Problem) -> int:
    evaluate(
        candidate, problem.matrix, *build(TINY[problem.matrix])
    )  # imports, and compiles what any problem needs
    func, x = build(problem)
    without_graph(func, x)
    before = peak_bytes()
    evaluate(candidate, problem.matrix, func, x)
    return peak_bytes() - before


def evaluate(candidate: str, matrix: str, func: Func, x: Tensor) -> Tensor:
    if candidate not in (PLAIN, LIFTED, COMPILED):
        return variants(0, matrix)["jacrev by 256"](func, x)
    derivative = DERIVATIVES[matrix]
    plan = derivative.plan(func, x, lift=False if candidate == PLAIN else "auto")
    run = derivative.matrix(func, plan=plan, compile=candidate == COMPILED)
    return without_graph(run, x)


def main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    candidate, threads = request.pop("candidate"), request.pop("threads")
    torch.set_num_threads(threads)
    problem = Problem(**{**request, "size": tuple(request["size"])})
    print(added(candidate, problem))


if __name__ == "__main__":
    main()
