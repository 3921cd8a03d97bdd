"""Every ATen call of a stretch of Python, recorded as one graph.

The tape lies below autograd, so it sees what the forward and the backward really do: custom
functions, checkpoints and nested transforms included. Beside the calls it notes whatever would
make a replay differ from the program: values read out of tensors, shapes that follow from data,
random draws, writes to tensors that the program did not make.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _inductor, _torch
from .draws import Draws
from .reads import COTANGENT, LITERAL, VARYING, Interceptor, Read, Taint

# These move the running statistics although their schemas declare no write.
_HIDDEN_WRITES = {
    "native_batch_norm": (3, 4),
    "cudnn_batch_norm": (3, 4),
    "miopen_batch_norm": (3, 4),
}
_PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
)
# The key in a node's ``meta`` that torch carries over when a graph is traced again.
NOTE = "custom"


class Tape(TorchDispatchMode):
    """Records into ``graph`` while it is entered.

    ``constants`` are the tensors that came from elsewhere, by the name of their attribute;
    ``literals`` the names of those that the recorded program made itself out of Python numbers.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.literals: set[str] = set()
        self.reads: list[Read] = []
        self.cuts: list[Read] = []
        self.shapes_from_data: list[Read] = []
        self.written: dict[str, Tensor] = {}
        self.problems: list[str] = []
        self.draws = Draws()
        self._nodes: Any = WeakTensorKeyDictionary()
        self._sized: Any = WeakTensorKeyDictionary()
        self._taints: dict[int, Taint] = {}
        self._lines: dict[int, str] = {}
        self.quiet = self._off = False
        self._keep_dynamo_off()

    def input(self, tensor: Tensor, name: str, taint: Taint = VARYING) -> fx.Node:
        node = self.graph.placeholder(name)
        self._nodes[tensor] = node
        with self.unwatched():
            self._taints[_storage(tensor)] = taint
        return node

    def node_of(self, tensor: Tensor) -> fx.Node:
        node: fx.Node | None = self._nodes.get(tensor)
        return node if node is not None else self._constant(tensor)

    def is_sized_by_data(self, tensor: object) -> bool:
        """Whether as many entries are in it as data that vary have picked."""
        return isinstance(tensor, Tensor) and self._sized.get(tensor) is not None

    def knows(self, tensor: Tensor) -> bool:
        return self._nodes.get(tensor) is not None

    def literal(self, tensor: Tensor) -> None:
        """A tensor that the program made of data from outside of torch."""
        self._constant(tensor, literal=True)

    def saw(self, tensors: Sequence[Tensor | None]) -> bool:
        """Whether the tape recorded how each of these tensors was made."""
        return all(t is None or self._nodes.get(t) is not None for t in tensors)

    def taint_of(self, tensor: Tensor) -> Taint:
        if self._nodes.get(tensor) is None:
            self._constant(tensor)
        return self._taints.get(_storage(tensor), LITERAL)

    @contextmanager
    def recording(self) -> Iterator[None]:
        with self.draws.watched(), Interceptor(self), self:
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing of what happens inside is recorded."""
        self._off = True
        try:
            with self.unwatched():
                yield
        finally:
            self._off = False

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """What happens inside is the tape's own doing, or for human eyes: it is no read."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    def module(self, results: Sequence[Any]) -> fx.GraphModule:
        self.graph.output(tuple(results))
        return _torch.graph_module(self.root, self.graph)

    def restore(self) -> None:
        """Put back what the recorded program wrote to tensors that it did not make."""
        with torch.no_grad():
            for name, before in self.written.items():
                self.constants[name].detach().copy_(before)

    def _constant(self, tensor: Tensor, literal: bool = False) -> fx.Node:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = tensor
        if literal:
            self.literals.add(name)
        self.root.register_buffer(name, tensor, persistent=False)
        node = self.graph.get_attr(name)
        self._nodes[tensor] = node
        place = _storage(tensor)
        if literal:
            self._taints[place] = LITERAL
        else:
            # Autograd hands some tensors on as new objects on the same memory.
            alias = self._taints.get(place, LITERAL)
            self._taints[place] = alias | Taint(sources=frozenset({name}))
        return node

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports dynamo at the first call, which takes a second

    def _keep_dynamo_off(self) -> None:
        if _inductor.dynamo_is_loaded():
            self.__class__ = _Shielded

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self._keep_dynamo_off()
        kwargs = kwargs or {}
        if self._off:
            return func(*args, **kwargs)
        before, self.quiet = self.quiet, True
        try:
            return self._record(func, args, kwargs, quiet=before)
        finally:
            self.quiet = before

    def _record(self, func: OpOverload, args: Any, kwargs: Any, quiet: bool) -> Any:
        if func is torch.ops.aten.lift_fresh.default and self._nodes.get(args[0]) is None:
            self._constant(args[0], literal=True)
        tensors = _tensors((args, kwargs))
        taint = LITERAL
        for tensor in tensors:
            taint = taint | self.taint_of(tensor)
        self._keep_what_is_written(func, args, kwargs)
        result, drawn = self.draws.run(func, args, kwargs)
        returned = _tensors(result)
        if not returned and func._schema.returns:
            if not quiet:
                self.reads.append(Read(_name(func), _torch.user_line(), taint))
            return result
        follows = LITERAL
        sizing = _what_sizes_the_result(func, args, tensors)
        if sizing:
            for tensor in sizing:
                follows = follows | self.taint_of(tensor)
            self.shapes_from_data.append(Read(_name(func), _torch.user_line(), follows))
        self._follow_sizes(tensors, returned, bool(sizing) and follows.varies)
        node = self._emit(func, args, kwargs, drawn)
        self._bind(node, result)
        self._spread(func, args, kwargs, returned, VARYING if drawn is not None else taint)
        if drawn is not None and drawn.node is None:
            drawn.node = self.graph.call_function(
                torch.ops.aten.clone.default, (self.node_of(returned[0]),)
            )
            drawn.others = [
                self.graph.call_function(torch.ops.aten.clone.default, (self.node_of(r),))
                for r in returned[1:]
            ]
        return result

    def _follow_sizes(self, tensors: list[Tensor], returned: list[Tensor], picked: bool) -> None:
        sizes = {t.shape for t in tensors if self._sized.get(t) is not None}
        for result in returned:
            if picked or result.shape in sizes:
                self._sized[result] = True

    def _emit(self, func: OpOverload, args: Any, kwargs: Any, drawn: Any) -> fx.Node:
        inner_args, inner_kwargs = fx.node.map_aggregate(
            (args, kwargs), lambda a: self._argument(func, a)
        )
        if drawn is not None and drawn.node is not None:
            # A draw made again under a restored state: the first one is used once more.
            if func._schema.is_mutable:
                inner_args = (inner_args[0], drawn.node)
                return self._call(torch.ops.aten.copy_.default, inner_args, {})
            return self._call(_repeated, (drawn.node, *drawn.others), {})
        return self._call(func, inner_args, inner_kwargs)

    def _argument(self, func: OpOverload, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.node_of(value)
        if value is None or isinstance(value, _PLAIN):
            return value
        self.problems.append(f"{_name(func)} takes a {type(value).__name__}, which is no data")
        return None

    def _call(self, target: Callable[..., Any], args: Any, kwargs: Any) -> fx.Node:
        node = self.graph.call_function(target, args, kwargs)
        running = _torch.running_node()
        if running is None:
            line = _torch.user_line()
            self._lines[_torch.next_sequence_number() - 1] = line
            node.meta[NOTE] = {"line": line, "formula": ""}
        else:
            line = self._lines.get(running.number, "")
            built_in = running.built_in and _torch.runs_a_formula()
            node.meta[NOTE] = {"line": line, "formula": running.name if built_in else ""}
        return node

    def _bind(self, node: fx.Node, result: Any) -> None:
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif isinstance(result, (tuple, list)):
            for k, part in enumerate(result):
                if isinstance(part, (Tensor, tuple, list)):
                    self._bind(self.graph.call_function(operator.getitem, (node, k)), part)

    def _spread(
        self, func: OpOverload, args: Any, kwargs: Any, returned: list[Tensor], taint: Taint
    ) -> None:
        written = [_storage(t) for t in _targets(func, args, kwargs)]
        for place in written:
            self._taints[place] = self._taints.get(place, LITERAL) | taint
        views = any(r.alias_info is not None for r in func._schema.returns)
        for tensor in returned:
            place = _storage(tensor)
            if not views and place not in written:
                self._taints[place] = taint

    def _keep_what_is_written(self, func: OpOverload, args: Any, kwargs: Any) -> None:
        """A copy of every constant as it was before the program's first write to it."""
        targets = {_storage(t) for t in _targets(func, args, kwargs)}
        if not targets:
            return
        for name, constant in self.constants.items():
            if name not in self.literals | self.written.keys() and _storage(constant) in targets:
                with torch.no_grad():
                    self.written[name] = constant.detach().clone()


class _Shielded(Tape):
    """A tape whose own code is never compiled: for where dynamo is there to do so."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def reads_of_cotangents(tape: Tape) -> str:
    """How the backward looked at the values of its cotangent, in words, or nothing."""
    for read in tape.reads + tape.shapes_from_data:
        if COTANGENT.sources <= read.taint.sources:
            at = f" at {read.where}" if read.where else ""
            return f"its backward reads the values of its cotangent ({read.what}{at})"
    return ""


def first_cut(tape: Tape) -> str:
    """The first call that makes the backward another one than the derivative, or nothing."""
    for cut in tape.cuts:
        return f"it {cut.what} at {cut.where}" if cut.where else f"it {cut.what}"
    return ""


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a call's arguments or results, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for entry in value for tensor in _tensors(entry)]


def _repeated(first: Any, *others: Any) -> Any:
    return (first, *others) if others else first


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (NotImplementedError, RuntimeError):  # sparse and other storage-free layouts
        return id(tensor)


def _name(func: OpOverload) -> str:
    return str(func.overloadpacket.__name__)


def _targets(func: OpOverload, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that a call writes to."""
    places = _HIDDEN_WRITES.get(_name(func), ())
    found = [args[k] for k in places if len(args) > k]
    if func._schema.is_mutable:
        for k, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[k] if k < len(args) else kwargs.get(argument.name)
                found += _tensors(value)
    return [t for t in found if isinstance(t, Tensor)]


def _what_sizes_the_result(func: OpOverload, args: Any, tensors: list[Tensor]) -> list[Tensor]:
    """The tensors whose data, and not their shapes alone, decide on the shape of the result."""
    if _name(func) in ("index", "_unsafe_index"):
        return [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    if _name(func) == "masked_select":
        return [args[1]]
    return tensors if torch.Tag.dynamic_output_shape in func.tags else []
