"""Which user call made each autograd node: ``with pb.trace(): ...``.

Inside the block, every torch call reads the thread's autograd sequence number before and after;
the nodes it made are the ones numbered in between. They carry a note of the call from then on, so
a record made later, or in another place, finds it. No stacks are captured: one walk to the first
frame outside of torch, cached per instruction.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from . import calls, modules

_parameter_names: WeakIdKeyDictionary = WeakIdKeyDictionary()


def parameter_name(tensor: Tensor) -> str | None:
    """The name under which a module seen by ``trace`` knows ``tensor``."""
    name = _parameter_names.get(tensor)
    return name if isinstance(name, str) else None


class trace:  # noqa: N801 - used as a function: with pb.trace(): ...
    """Remember which user call made each node of the graphs built inside the block.

    Records, explanations and drawings made from those graphs then quote the expression, the file
    and the line, and name the parameters of every ``nn.Module`` that ran inside the block. ``why``
    and ``diagnose`` find there where a gradient was cut off, who wrote in place, and which backward
    freed a graph.

    Nodes made by ``autograd.Function.apply`` are not seen by torch's function modes and stay
    without a call. Trace eager code: around a function compiled by ``torch.compile`` the block
    makes torch compile it anew. Values and gradients are not changed; each torch call costs some
    ten microseconds more. Blocks may be nested; each thread traces its own calls.

    >>> import torch, pullback as pb
    >>> x = torch.ones(3, requires_grad=True)
    >>> with pb.trace():
    ...     y = x.exp().sum()
    >>> [node.call.function for node in pb.record(y).nodes if node.call]
    ['sum', 'exp']
    """

    def __init__(self) -> None:
        self._seen: WeakSet[nn.Module] = WeakSet()
        self._hooks: list[tuple[RemovableHandle, ...]] = []

    def __enter__(self) -> trace:
        before = nn.modules.module.register_module_forward_pre_hook(self._note_module)
        after = nn.modules.module.register_module_forward_hook(_leave_module, always_call=True)
        self._hooks.append((before, after))
        calls.begin_block()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks.pop():
            hook.remove()
        if not self._hooks:
            modules.forget()
        calls.end_block()

    def parameters(self) -> list[Tensor]:
        """Every parameter, still alive, of the modules that ran inside the block."""
        found = {id(p): p for module in self._seen for p in module.parameters()}
        return list(found.values())

    def _note_module(self, module: nn.Module, inputs: Any) -> None:
        if module not in self._seen:
            self._seen.add(module)
            note_parameters(module)
        modules.enter(module)
        calls.resume()


def _leave_module(module: nn.Module, inputs: Any, output: Any) -> None:
    modules.leave(module)


def note_parameters(module: nn.Module) -> None:
    """Keep the longest name of each parameter: the one that the outermost module knows it by."""
    for name, parameter in module.named_parameters():
        known = _parameter_names.get(parameter)
        if known is None or len(known) < len(name):
            _parameter_names[parameter] = name
