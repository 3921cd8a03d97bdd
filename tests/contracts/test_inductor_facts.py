"""Facts of Inductor that compiled programs rest on, each tried on the installed version."""

from __future__ import annotations

import secrets
import subprocess
import sys

import torch
from torch import Tensor, fx

from pullback import _inductor
from pullback.sparse.compiled.trace import Traced, traced


def kernel_of(found: Traced, threads: int = 1) -> _inductor.Kernel:
    return _inductor.kernel_of(found.module, found.mode, threads, lambda module: None)


def graph_of(shift: float) -> Traced:
    return traced(lambda x: (x.sin() * shift,), [torch.rand(7, dtype=torch.float64)])


def test_a_kernel_takes_a_list_and_empties_it() -> None:
    kernel = kernel_of(graph_of(2.0))
    x = torch.rand(7, dtype=torch.float64)
    given = [x]
    (found,) = kernel(given)
    assert given == []
    torch.testing.assert_close(found, x.sin() * 2)


def test_a_kernel_checks_neither_shapes_nor_dtypes() -> None:
    """Why Compiled looks at both itself, and why constants, which nobody changes, cost nothing."""
    kernel = kernel_of(graph_of(2.0))
    assert len(kernel([torch.rand(8, dtype=torch.float64)])[0]) == 7
    (found,) = kernel([torch.zeros(14, dtype=torch.float32)[:7]])
    assert found.dtype == torch.float64


def test_a_kernel_reads_memory_and_not_lazy_negatives() -> None:
    """Why Compiled refuses them."""
    kernel = kernel_of(graph_of(2.0))
    x = torch.rand(7, dtype=torch.float64)
    (found,) = kernel([torch._neg_view(x)])
    torch.testing.assert_close(found, x.sin() * 2)


def test_sums_into_an_expanded_base_are_wrong() -> None:
    """Why bases are cloned; pytorch issue 183986. Once this fails, the clone can go."""
    index = torch.tensor([3, 0, 0, 2, 4, 1])

    def program(v: Tensor) -> tuple[Tensor, ...]:
        return (v.new_zeros(5).expand(3, 5).index_add(1, index, v),)

    v = torch.rand(3, 6, dtype=torch.float64)
    found = traced(program, [v])
    (sums,) = kernel_of(found)([v, *found.constants])
    assert not torch.allclose(sums, program(v)[0])


def test_views_in_one_mode_are_known_as_such() -> None:
    mode = _inductor.fake_mode()
    (x,) = _inductor.fakes_of(mode, [torch.rand(3, 4)])
    assert _inductor.memory_of(x) == _inductor.memory_of(x.t())
    assert _inductor.memory_of(x) != _inductor.memory_of(x.clone())


def test_the_graph_is_left_as_it_is() -> None:
    found = graph_of(5.0)
    before = str(found.module.graph)
    kernel_of(found)
    assert str(found.module.graph) == before
    assert isinstance(found.module, fx.GraphModule)


SCRIPT = """
import sys, torch
from pullback import _inductor
from pullback.sparse.compiled.trace import traced
factor = float(sys.argv[1])
found = traced(lambda x: (x.cos() * factor,), [torch.rand(7)])
_inductor.kernel_of(found.module, found.mode, 1, lambda module: None)
from torch._dynamo.utils import counters
print(counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"])
"""


def test_a_second_process_takes_kernels_from_disk() -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(secrets.randbits(40))]
    seen = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["1", "0"], ["0", "1"]]
