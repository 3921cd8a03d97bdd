"""The colored Jacobian of a program as one pure function, as the compiler takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pullback import _inductor
from pullback.sparse.arguments import Arguments, arguments_for
from pullback.sparse.captured import Captured
from pullback.sparse.evaluate import values_of
from pullback.sparse.plan import Plan
from pullback.sparse.planning import plan_of
from pullback.sparse.products import Replay
from pullback.sparse.study import Study, study

from .programs import Program

Run = Callable[..., tuple[Tensor, ...]]


def interpreted(
    module: fx.GraphModule,
    mode: Any,
    threads: int,
    last: Callable[[fx.GraphModule], None],
    alike: bool = False,
) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """In place of a compiler: the graph that would be compiled, run operator by operator."""
    module = _inductor._copied(module)
    last(module)
    aten = torch.ops.aten
    for node in module.graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default  # a compiler reads views whatever the strides are
    module.recompile()
    return lambda tensors: module(*tensors)


class Case:
    """``run(*tensors)`` gives the values of the Jacobian and the outputs, by products of a plan."""

    def __init__(self, func: Callable[..., Any], args: Sequence[Any], **options: Any) -> None:
        self._func, self._options = func, options
        arguments = self._split(args)
        self.study: Study = study("case", func, arguments, has_aux=options.get("has_aux", False))
        self.plan: Plan | None = None
        if self.study.captured is not None:
            self.plan = plan_of("case", self.study, arguments)
            self.tensors = self.at(args)
            self._primals = arguments.primals

    @classmethod
    def of(cls, program: Program) -> Case:
        func, args = program.make()
        return cls(func, args, argnums=program.argnums, has_aux=program.has_aux)

    def _split(self, args: Sequence[Any]) -> Arguments:
        return arguments_for("case", args, self._options.get("argnums", 0), self._func)

    def at(self, args: Sequence[Any]) -> list[Tensor]:
        return self.study.tensors(self._split(args), self.study.reading)

    @property
    def captured(self) -> Captured:
        assert self.study.captured is not None
        return self.study.captured

    def run(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        plan = self.plan
        assert plan is not None
        source = Replay(self.captured, tensors, self._primals)
        values = values_of(plan.assembly, source, max(1, plan.assembly.num_products), plan.dtype)
        return (values, *source.outputs)
