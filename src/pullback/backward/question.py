"""What ``pb.why`` is asked: one tensor, perhaps outputs, and all that is known beside them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import _checks
from .._checks import Leaves
from .._errors import GraphError, UnsupportedError
from .accounts import Account
from .bookkeeper import watched_by
from .cuts import cuts_of, path_of_cuts, reads_of
from .enginecalls import EngineCall, latest_calls
from .graph import Graph, walk
from .origins import AnyOrigin, Cut, LeafOrigin, Origin, noted_origin, reaches
from .outcome import Job
from .record import BackwardRecord
from .recorder import run_pass
from .targets import targets_of


class _Looks(threading.local):
    running = False


_looks = _Looks()


@dataclass
class Question:
    """``name`` is what the user calls ``tensor``; ``out`` is None where no outputs were given."""

    caller: str
    name: str
    tensor: Tensor
    out: Leaves | None
    account: Account | None = None
    calls: Sequence[EngineCall] = ()
    watched: bool = False
    _freed: str | None = field(default=None, init=False)
    _seen: dict[float, BackwardRecord | None] = field(default_factory=dict, init=False)

    @classmethod
    def about(cls, caller: str, name: str, tensor: Tensor, out: Leaves | None) -> Question:
        found = watched_by(tensor)
        if found is not None:
            return cls(caller, name, tensor, out, found.account, found.keeper.calls, watched=True)
        asked = cls(caller, name, tensor, out)
        asked.calls = [call for call in latest_calls() if asked.concerns(call)]
        return asked

    def concerns(self, call: EngineCall) -> bool:
        """Whether the outputs of ``call`` came from the tensor, or are those that were given."""
        origins = [root.origin for root in call.roots if root.origin is not None]
        if self.out is not None:
            asked = {id(origin) for origin in self.roots()[0]}
            return any(id(origin) in asked for origin in origins)
        return path_of_cuts(origins, (), self.origin()) is not None

    @property
    def grad(self) -> Tensor | None:
        """``.grad``, without torch's warning where a tensor keeps none."""
        kept = self.tensor.is_leaf or self.tensor.retains_grad
        return self.tensor.grad if kept else None

    @property
    def differentiable(self) -> Leaves | None:
        """The outputs that have a graph."""
        if self.out is None:
            return None
        kept = [k for k, tensor in enumerate(self.out.tensors) if tensor.requires_grad]
        if not kept:
            return None
        return Leaves(
            tuple(self.out.tensors[k] for k in kept),
            self.out.structure,
            tuple(self.out.names[k] for k in kept),
        )

    def graph(self) -> Graph | None:
        out = self.differentiable
        return None if out is None else walk(out.tensors)

    def calls_that_reach(self) -> list[EngineCall]:
        """The engine calls whose outputs came from the tensor, as far as is known."""
        target = self.origin()
        return [
            call
            for call in self.calls
            if any(root.origin is None or reaches(root.origin, target) for root in call.roots)
            and not any(root.cuts for root in call.roots)
        ]

    def calls_known_to_reach(self) -> list[EngineCall]:
        """The backwards that ended well and surely went through the tensor."""
        target = self.origin()
        return [
            call
            for call in self.calls
            if call.writes
            and not call.running
            and not call.error
            and any(root.origin is not None and reaches(root.origin, target) for root in call.roots)
        ]

    def origin(self) -> AnyOrigin:
        if self.tensor.grad_fn is None:
            return LeafOrigin(self.tensor)
        found = noted_origin(self.tensor.grad_fn)
        return LeafOrigin(self.tensor) if found is None else found

    def roots(self) -> tuple[list[AnyOrigin], list[Cut]]:
        """Where to search from: the outputs given, or those of the engine calls seen."""
        origins: list[AnyOrigin] = []
        cuts: list[Cut] = []
        if self.out is not None:
            for tensor in self.out.tensors:
                cuts.extend(cuts_of(tensor))
                found = None if tensor.grad_fn is None else noted_origin(tensor.grad_fn)
                if found is not None:
                    origins.append(found)
            return origins, cuts
        for call in self.calls:
            origins.extend(root.origin for root in call.roots if root.origin is not None)
            cuts.extend(each for root in call.roots for each in root.cuts)
        return origins, cuts

    def cuts_on_the_way(self) -> list[Cut] | None:
        """The cuts between the outputs and the tensor, the one next to the tensor last.

        Empty where a gradient can flow all the way; None where nothing traced leads there.
        """
        origins, cuts = self.roots()
        return path_of_cuts(origins, cuts, self.origin())

    def reads(self) -> list[Cut]:
        return reads_of(self.origin())

    def python_nodes(self) -> list[Origin]:
        """Nodes between the outputs and the tensor whose backward is a user's Python."""
        seen: set[int] = set()
        stack, _ = self.roots()
        target = self.origin()
        found: list[Origin] = []
        while stack:
            origin = stack.pop()
            if id(origin) in seen or not isinstance(origin, Origin):
                continue
            seen.add(id(origin))
            if origin.name.endswith("Backward") and reaches(origin, target):
                found.append(origin)  # torch's own carry the number of an overload
            stack.extend(origin.parents)
        return found

    def recovered(self) -> str | None:
        """The gradient that a backward from the outputs would bring, where one can be run."""
        seen = self.look()
        deposit = None if seen is None else seen.deposits.get(self.name)
        return None if deposit is None else plainly(deposit)

    @property
    def freed(self) -> str:
        """What a backward from the outputs says of their freed graph; empty if it is whole."""
        if self._freed is None:
            self._freed = ""
            self.look()
        return self._freed

    def look(self, factor: float = 1.0) -> BackwardRecord | None:
        """One backward from the outputs with cotangents of this factor, seen and not deposited.

        None where it cannot be run: no way leads there, or the graph was freed. Run once: hooks
        and checkpoints in the graph run with it.
        """
        if factor not in self._seen:
            self._seen[factor] = self._look(factor)
        return self._seen[factor]

    def _look(self, factor: float) -> BackwardRecord | None:
        out, graph = self.differentiable, self.graph()
        if out is None or graph is None or not self.tensor.requires_grad:
            return None
        if _looks.running:  # a hook in the graph that is looked at asks in its turn
            return None
        values = tuple(torch.full_like(tensor, factor).detach() for tensor in out.tensors)
        targets = targets_of({self.name: self.tensor}, graph, asked=True)
        if targets.items[0].port is None:
            return None
        _looks.running = True
        try:
            return run_pass(Job(self.caller, graph, out, values, targets))
        except GraphError as error:
            self._freed = str(error)
            return None
        except (UnsupportedError, RuntimeError):
            return None
        finally:
            _looks.running = False


def plainly(tensor: Tensor) -> str:
    """The entries of a small tensor; the shape of a larger one."""
    if tensor.numel() <= 8 and tensor.layout is torch.strided:
        return str(tensor.detach().cpu().tolist())
    return f"a tensor of shape {_checks.shape_text(tuple(tensor.shape))}"
