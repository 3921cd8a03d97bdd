"""Tensors with a graph: there is one, it is whole, and the pass can run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from .._errors import ArgumentError, GraphError, UnsupportedError
from .leaves import Leaves
from .words import can_carry_gradients, dtype_text, listed


def has_graph(caller: str, outputs: Leaves) -> None:
    """Refuse outputs that no gradient can flow back from."""
    for name, output in zip(outputs.names, outputs.tensors, strict=True):
        if output.requires_grad:
            continue
        if not can_carry_gradients(output.dtype):
            raise GraphError(
                f"{caller}: `{name}` has dtype {dtype_text(output.dtype)}, and only floating point "
                f"and complex tensors carry gradients. Differentiate the values before they were "
                f"rounded, compared or turned into indices."
            )
        raise GraphError(
            f"{caller}: `{name}` has no autograd graph (requires_grad is False), so nothing can "
            f"flow back from it. Make an input with requires_grad=True before computing `{name}`, "
            f"and look for torch.no_grad(), .detach(), .data or .item() on the way to it."
        )


def has_values(caller: str, outputs: Leaves) -> None:
    """Refuse tensors whose entries cannot be read one by one."""
    for name, output in zip(outputs.names, outputs.tensors, strict=True):
        if output.is_nested:
            raise UnsupportedError(
                f"{caller}: `{name}` is a nested tensor, whose parts differ in shape. Pass its "
                f"parts: {name}.unbind()."
            )
        if output.device.type == "meta":
            raise UnsupportedError(
                f"{caller}: `{name}` is on the meta device and has no values. Compute it on a real "
                f"device."
            )


def some_reached(caller: str, outputs: Sequence[str], unreached: Sequence[str], count: int) -> None:
    if len(unreached) == count:
        raise GraphError(
            f"{caller}: {listed(outputs)} {'does' if len(outputs) == 1 else 'do'} not depend on "
            f"{listed(unreached)}: no gradient can flow there. Pass tensors that the outputs were "
            f"computed from; a slice or copy made afterwards is another tensor."
        )


def graph_is_freed(caller: str, names: Sequence[str], node: str | None) -> NoReturn:
    what = f"; {node} needs what it had saved" if node else ""
    raise GraphError(
        f"{caller}: the graph behind {listed(names)} was freed by an earlier backward{what}. "
        f"Compute {listed(names)} again, or give that earlier call retain_graph=True "
        f"(torch frees by default, pb.record does not)."
    )


def reentrant_checkpoint(caller: str) -> NoReturn:
    raise UnsupportedError(
        f"{caller}: the graph holds a reentrant checkpoint, which torch only runs in a backward "
        f"that writes .grad. Use torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or "
        f"pb.record(..., accumulate=True)."
    )


def differentiable_inputs(caller: str, argument: str, inputs: Leaves) -> None:
    """Inputs named by the user must be able to receive a gradient."""
    for name, tensor in zip(inputs.names, inputs.tensors, strict=True):
        if tensor.requires_grad:
            continue
        inside = f" in `{argument}`" if not name.startswith(argument) else ""
        if not can_carry_gradients(tensor.dtype):
            raise ArgumentError(
                f"{caller}: `{name}`{inside} has dtype {dtype_text(tensor.dtype)}, and "
                f"only floating point and complex tensors receive gradients. Leave it out."
            )
        raise ArgumentError(
            f"{caller}: `{name}`{inside} does not require a gradient. Leave it out, or "
            f"call .requires_grad_() on it before the outputs are computed."
        )


def graph_is_gone(caller: str, reason: str) -> GraphError:
    return GraphError(f"{caller}: the graph of the record cannot be asked again: {reason}.")
