"""Graphs without writes are taken as recorded; others lose their writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.sparse import writes


def smooth(x: Tensor) -> Tensor:
    return (x[1:] * x[:-1]).sin()


def in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] *= x[:-1]
    return y.sin_()


@pytest.mark.parametrize(("func", "traces"), [(smooth, 0), (in_place, 1)])
def test_only_a_graph_that_writes_is_traced_again(
    func: Callable[[Tensor], Tensor], traces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    again = writes._traced_again
    monkeypatch.setattr(writes, "_traced_again", lambda *a: (seen.append(1), again(*a))[1])
    x = torch.rand(9, dtype=torch.float64)
    plan = pb.plan_jacobian(func, x)
    assert len(seen) == traces
    assert not plan.notes
    torch.testing.assert_close(
        pb.jacobian(func, plan=plan)(x).to_dense(), torch.func.jacrev(func)(x)
    )


def test_planning_does_not_import_dynamo() -> None:
    program = (
        "import sys, torch, pullback as pb\n"
        "pb.plan_jacobian(lambda x: (x[1:] * x[:-1]).sin(), torch.rand(9))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_function_that_torch_compiled_is_planned_as_it_stands() -> None:
    def func(x: Tensor) -> Tensor:
        return torch.compile(lambda z: z.sin() * z[0], backend="eager")(x)

    x = torch.rand(5)
    for _ in range(2):
        plan = pb.plan_jacobian(func, x)
        assert plan.pattern.nnz == 9
