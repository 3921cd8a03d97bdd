"""The only reader of Inductor, torch's compiler of graphs, and of what it needs to be called.

Nothing here is imported before something is compiled: Inductor takes seconds to load. A process
that turns warnings into errors can load it: torch's own deprecations stay inside.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx

from ._tracing import ONE_AT_A_TIME, recorded, recorded_functional

Run = Callable[..., tuple[Tensor, ...]]
Kernel = Callable[[list[Tensor]], Sequence[Tensor]]

# As library calls they are faster than as the loops that Inductor's table makes of thin ones.
_LIBRARY = "mm bmm addmm baddbmm addmv mv dot"

# What a user may have set for graphs of their own, and must not reach ours.
_OURS = {
    "cpp_wrapper": False,
    "freezing": False,
    "fx_graph_cache": True,
    "max_autotune": False,
    "size_asserts": False,  # whoever calls has looked, and the constants stay as they are
    "triton.cudagraphs": False,
    "cpp.dynamic_threads": False,
}

# The writes to one matrix may read nothing in common, and belong in one loop all the same: each
# alone would go through all of its memory.
_FUSED = {"aggressive_fusion": True, "score_fusion_memory_threshold": 0}


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fake_mode() -> Any:
    """A mode whose tensors have shapes and no content; one graph is traced in one mode."""
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True, allow_non_fake_inputs=True)


def fakes_of(mode: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [mode.from_tensor(t.detach(), static_shapes=True) for t in tensors]


def memory_of(fake: Tensor) -> int:
    """What is equal for two fake tensors if one is a view of the other."""
    return int(fake.untyped_storage()._cdata)


def functional_graph(run: Run, fakes: Sequence[Tensor], mode: Any) -> fx.GraphModule:
    """``run`` as one graph of ATen operators that write nothing in place.

    Tensors that ``run`` closes over become attributes of the module.
    """
    with quiet(), mode, torch.no_grad():
        return recorded_functional(run, *fakes)


def decomposed_graph(module: fx.GraphModule, fakes: Sequence[Tensor], mode: Any) -> fx.GraphModule:
    """The graph in the operators that Inductor lowers, equal calls merged."""
    with quiet(), mode, torch.no_grad():
        from torch._functorch.compile_utils import fx_graph_cse
        from torch._inductor.decomposition import select_decomp_table

        library = {getattr(torch.ops.aten, name) for name in _LIBRARY.split()}
        table = {
            op: rule
            for op, rule in select_decomp_table().items()
            if getattr(op, "overloadpacket", op) not in library
        }
        traced = recorded(module, *fakes, table=table)
        traced.graph = fx_graph_cse(traced.graph)
        traced.recompile()
    return traced


def kernel_of(
    module: fx.GraphModule,
    mode: Any,
    threads: int,
    last: Callable[[fx.GraphModule], None],
    alike: bool = False,
) -> Kernel:
    """Compile a graph for ``threads`` threads; ``last`` changes it after Inductor's own passes.
    With ``alike``, loops of one range are one loop, even where they read nothing in common.

    The kernel takes one list of tensors, which it empties, and has none of the bookkeeping of
    ``torch.compile``: no guards, no profiler, no hooks. The graph stays as it is.
    """
    with quiet(), torch.no_grad(), ONE_AT_A_TIME:
        from torch._guards import TracingContext, tracing
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.fx_passes.post_grad import remove_noop_ops

        module = _copied(module)
        ours = {**_OURS, **(_FUSED if alike else {}), "cpp.threads": threads}
        with config.patch(ours), tracing(TracingContext(mode)):
            remove_noop_ops(module.graph)
            last(module)
            end = module.graph.output_node()
            end.meta["user_visible_output_idxs"] = list(range(len(cast(Any, end.args[0]))))
            fakes = [n.meta["val"] for n in module.graph.find_nodes(op="placeholder")]
            code = compile_fx_inner(module, fakes, is_inference=True)
    # A graph without operators comes back as a plain function.
    return cast(Kernel, getattr(code, "current_callable", None) or code)


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    """Inductor changes the graph that it compiles."""
    graph = fx.Graph()
    end = graph.output(graph.graph_copy(module.graph, {}))
    end.meta = dict(module.graph.output_node().meta)
    return fx.GraphModule(module, graph)


def dynamo_is_loaded() -> bool:
    """Whether torch's tracer of Python code is in this process, and may look at ours."""
    return "torch._dynamo" in sys.modules
