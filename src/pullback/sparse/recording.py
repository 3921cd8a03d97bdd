"""Pure programs of pullback's own as graphs of ATen operators.

``make_fx`` does this for any program, and loads torch's compiler for it, which takes over a second;
it serves where a compiler is wanted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _inductor
from .graph import is_draw, is_needed, packet_name


class NotRecorded(Exception):  # noqa: N818 - it is no error: the program goes on as it is
    """Why there is no graph of a program."""


def recorded(run: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """``run(*tensors)`` as a graph, batches of ``vmap`` and transforms of ``torch.func`` resolved.

    Tensors that ``run`` closes over become attributes. ``meta["val"]`` of a node is a tensor of the
    meta device in its shape, strides and dtype. Raises NotRecorded where a number is read out of a
    tensor, data are written in place or drawn.
    """
    recorder = _Shielded() if _inductor.dynamo_is_loaded() else _Recorder()
    given = [t.detach() for t in tensors]  # one object for each, also where one is given twice
    for k, tensor in enumerate(given):
        recorder.bind(recorder.graph.placeholder(f"in_{k}"), tensor)
    with recorder:
        results = run(*given)
    recorder.graph.output(tuple(map(recorder.node_of, results)))
    return fx.GraphModule(recorder.root, recorder.graph)


aten = torch.ops.aten

# torch's batching rules change the shape of their own results so; no data are written.
_RESHAPES_IN_PLACE = {
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.transpose_.default: aten.transpose.int,
    aten.t_.default: aten.t.default,
}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root, self.graph = torch.nn.Module(), fx.Graph()
        self._nodes: Any = WeakTensorKeyDictionary()
        # A result that died and came back as another object would be taken for a constant.
        self._held: list[Tensor] = []
        self._constants = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads dynamo at the first call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RESHAPES_IN_PLACE:
            node = self.graph.call_function(
                _RESHAPES_IN_PLACE[func], (self.node_of(args[0]), *args[1:])
            )
            self.bind(node, func(*args))
            return args[0]
        inner = fx.node.map_aggregate(
            (args, kwargs), lambda a: self.node_of(a) if isinstance(a, Tensor) else a
        )
        node = self.graph.call_function(func, *inner)
        if is_draw(node) or is_needed(node):
            done = "draws random numbers" if is_draw(node) else "writes in place"
            raise NotRecorded(f"{packet_name(node)} {done}")
        result = func(*args, **kwargs)
        self.bind(node, result)
        return result

    def bind(self, node: fx.Node, result: Any) -> None:
        if isinstance(result, Tensor):
            self._nodes[result] = node
            self._held.append(result)
            node.meta["val"] = torch.empty_strided(
                result.shape, result.stride(), dtype=result.dtype, device="meta"
            )
        elif isinstance(result, (tuple, list)):
            for k, part in enumerate(result):
                self.bind(self.graph.call_function(operator.getitem, (node, k)), part)
        elif result is not None:
            raise NotRecorded(f"{packet_name(node)} reads a number out of a tensor")

    def node_of(self, tensor: Tensor) -> fx.Node:
        node: fx.Node | None = self._nodes.get(tensor)
        if node is None:
            name = f"constant_{self._constants}"
            self._constants += 1
            self.root.register_buffer(name, tensor, persistent=False)
            # At the front: nothing that was recorded before reads it.
            places = self.graph.find_nodes(op="placeholder")
            with (
                self.graph.inserting_after(places[-1]) if places else self.graph.inserting_before()
            ):
                node = self.graph.get_attr(name)
            self.bind(node, tensor)
        return node


class _Shielded(_Recorder):
    """For where dynamo is there, and could compile the recorder's own code."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)
