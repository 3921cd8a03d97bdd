"""From a functional program to a clean graph of ATen operators, ready to be compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from ... import _inductor
from . import clean
from .fold import fold_uniform
from .reason import NotCompiled
from .worth import worth_compiling

Run = Callable[..., tuple[Tensor, ...]]


@dataclass
class Traced:
    """A graph whose inputs are those of the program, then ``constants``."""

    module: fx.GraphModule
    constants: list[Tensor]
    mode: Any


def traced(run: Run, tensors: Sequence[Tensor]) -> Traced:
    """One graph of ``run`` at the shapes, strides and dtypes of ``tensors``.

    Raises NotCompiled where the graph cannot be compiled, or where that would not pay.
    """
    for tensor in tensors:
        _plain(tensor)
    mode = _inductor.fake_mode()
    fakes = _inductor.fakes_of(mode, tensors)
    module = _inductor.functional_graph(run, fakes, mode)
    module.graph.eliminate_dead_code()
    _refuse(module.graph)
    if reason := worth_compiling(module.graph):
        raise NotCompiled(reason)
    clean.rolls_as_slices(module)
    module, constants = _lifted(module, fakes, mode, [])
    module, constants = _lifted(module, fakes, mode, constants)
    fold_uniform(module)
    return Traced(module, constants, mode)


def _lifted(
    module: fx.GraphModule, fakes: Sequence[Tensor], mode: Any, constants: list[Tensor]
) -> tuple[fx.GraphModule, list[Tensor]]:
    """Lift constants and decompose; decompositions may make constants of their own."""
    found = [*constants, *clean.lift_constants(module)]
    for tensor in found:
        _plain(tensor)
    inputs = [*fakes, *_inductor.fakes_of(mode, found)]
    return _inductor.decomposed_graph(module, inputs, mode), found


def _plain(tensor: Tensor) -> None:
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        raise NotCompiled(f"a {type(tensor).__name__} with layout {tensor.layout} is no plain one")
    if tensor.device.type not in ("cpu", "cuda"):
        raise NotCompiled(f"tensors on {tensor.device} are left to replay")
    if tensor.is_neg() or tensor.is_conj():
        raise NotCompiled("a tensor is a lazy conjugate or negative of another")


def _refuse(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target).removeprefix("aten.")
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            raise NotCompiled(f"{name} draws random numbers")
        for value in tree_leaves(node.meta.get("val")):
            if isinstance(value, Tensor) and value.dtype.is_complex:
                raise NotCompiled(f"{name} gives complex numbers, for which nothing is generated")
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            raise NotCompiled(f"{name} writes in place")
