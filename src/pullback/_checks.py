"""Every check of a user's argument, and the wording of every refusal.

A check takes the public name of its caller first: the message starts with it, then names the
place in the argument, what is there, the rule, and what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import _torch
from ._errors import (
    ArgumentError,
    CotangentError,
    GraphError,
    TreeError,
    UnsupportedError,
)
from ._trees import Structure, Tree, flatten, same_structure


def shape_text(shape: Sequence[int]) -> str:
    return str(tuple(shape))


def dtype_text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def can_carry_gradients(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


@dataclass(frozen=True)
class Leaves:
    """The tensors of one argument, with the words that name each of them in a message."""

    tensors: tuple[Tensor, ...]
    structure: Structure
    names: tuple[str, ...]


def leaves_of(caller: str, argument: str, tree: Tree, name: str | None = None) -> Leaves:
    """Flatten ``tree``; refuse leaves that are not tensors. ``name`` is what the user calls it."""
    leaves, structure = flatten(tree)
    shown = name or argument
    for leaf, path in zip(leaves, structure.paths, strict=True):
        if not isinstance(leaf, Tensor):
            raise TreeError(
                f"{caller}: `{argument}{path}` is {_article(leaf)}, not a tensor. "
                f"Pass a tensor, or a tuple, list or dict of tensors."
            )
    if not leaves:
        raise TreeError(f"{caller}: `{argument}` holds no tensors. Pass at least one.")
    if isinstance(tree, dict) and name is None:
        names = tuple(_key_as_name(argument, path) for path in structure.paths)
    else:
        names = tuple(shown + path for path in structure.paths)
    return Leaves(tuple(leaves), structure, names)


def _key_as_name(argument: str, path: str) -> str:
    """A dict with string keys names its tensors: ``['w']`` is w, ``['w'][0]`` is w[0]."""
    key, quote, rest = path[2:].partition(path[1])
    return key + rest.removeprefix("]") if path[1] in "'\"" and quote else argument + path


def _article(value: object) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def outside_transforms(caller: str, tensors: Sequence[Tensor]) -> None:
    running = _torch.running_transform()
    if running is not None or any(map(_torch.is_transform_tensor, tensors)):
        where = f"a running torch.func.{running}" if running else "a torch.func transform"
        raise UnsupportedError(
            f"{caller}: called inside {where}, whose graph torch keeps to itself and takes apart "
            f"when it returns. Call {caller} on tensors outside the transform, or take products "
            f"inside it with pb.vjp."
        )


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


def graph_is_freed(caller: str, names: Sequence[str], node: str | None) -> NoReturn:
    what = f"; {node} needs what it had saved" if node else ""
    raise GraphError(
        f"{caller}: the graph behind {_listed(names)} was freed by an earlier backward{what}. "
        f"Compute {_listed(names)} again, or give that earlier call retain_graph=True "
        f"(torch frees by default, pb.record does not)."
    )


def reentrant_checkpoint(caller: str) -> NoReturn:
    raise UnsupportedError(
        f"{caller}: the graph holds a reentrant checkpoint, which torch only runs in a backward "
        f"that writes .grad. Use torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or "
        f"pb.record(..., accumulate=True)."
    )


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def cotangents_for(
    caller: str,
    outputs: Leaves,
    cotangents: Tree,
    *,
    argument: str = "cotangents",
    cast: bool = False,
) -> tuple[Tensor, ...]:
    """One cotangent per output, checked entry by entry.

    None stands for 1 at an output of one element; elsewhere the caller has to ask
    ``missing_cotangents`` first. ``cast`` lets through a real dtype that torch would convert.
    """
    if cotangents is None:
        given: list[Any] = [None] * len(outputs.tensors)
    else:
        given, structure = flatten(cotangents)
        if not same_structure(structure, outputs.structure):
            raise CotangentError(
                f"{caller}: `{argument}` is laid out as {_layout(cotangents)}, but the outputs are "
                f"laid out as {_layout(outputs.structure.rebuild(outputs.tensors))}; the two are "
                f"paired leaf by leaf. Pass one cotangent per output, in the same structure."
            )
    return tuple(
        _cotangent_for(caller, f"{argument}{path}", name, output, value, cast)
        for path, name, output, value in zip(
            outputs.structure.paths, outputs.names, outputs.tensors, given, strict=True
        )
    )


def missing_cotangents(outputs: Leaves, cotangents: Tree) -> list[int]:
    """Positions of the outputs that need a cotangent and were given none."""
    given = [None] * len(outputs.tensors)
    if cotangents is not None:
        leaves, structure = flatten(cotangents)
        if not same_structure(structure, outputs.structure):
            return []
        given = leaves
    return [
        k
        for k, (output, value) in enumerate(zip(outputs.tensors, given, strict=True))
        if value is None and output.numel() != 1
    ]




def _layout(tree: Tree) -> str:
    """``(tensor, {'a': tensor})``: the structure of a pytree in a line."""
    if isinstance(tree, Tensor):
        return "tensor"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {_layout(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, tuple):
        inner = ", ".join(map(_layout, tree))
        return f"({inner},)" if len(tree) == 1 else f"({inner})"
    if isinstance(tree, list):
        return "[" + ", ".join(map(_layout, tree)) + "]"
    return "None" if tree is None else type(tree).__name__


def _cotangent_for(
    caller: str, argument: str, name: str, output: Tensor, value: Any, cast: bool
) -> Tensor:
    if value is None:
        return torch.ones_like(output)
    if not isinstance(value, Tensor):
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` for `{name}` is {_article(value)}, not a "
            f"tensor. Write torch.full_like({name}, value) for one weight everywhere."
        )
    if value.shape != output.shape:
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` has shape {shape_text(value.shape)}, but "
            f"`{name}` has shape {shape_text(output.shape)}; the two are paired entry by entry. "
            f"{_shape_difference(value, output)}{_shape_remedy(argument, name, value, output)}"
        )
    if value.device != output.device:
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` is on {value.device}, but `{name}` is on "
            f"{output.device}. Write {argument}.to({name}.device)."
        )
    if value.dtype != output.dtype and not (cast and _torch_would_cast(value, output)):
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` has dtype {dtype_text(value.dtype)}, but "
            f"`{name}` has dtype {dtype_text(output.dtype)}. Write {argument}.to({name}.dtype)."
        )
    return value


def _torch_would_cast(value: Tensor, output: Tensor) -> bool:
    return value.dtype.is_complex == output.dtype.is_complex


def _shape_difference(value: Tensor, output: Tensor) -> str:
    if value.ndim != output.ndim:
        return f"One has {_axes(value.ndim)}, the other {_axes(output.ndim)}. "
    pairs = enumerate(zip(value.shape, output.shape, strict=True))
    parts = [f"axis {k} ({a} against {b})" for k, (a, b) in pairs if a != b]
    return f"They differ at {' and '.join(parts)}. "


def _axes(n: int) -> str:
    return "1 axis" if n == 1 else f"{n} axes"


def _shape_remedy(argument: str, name: str, value: Tensor, output: Tensor) -> str:
    remedies = []
    target = shape_text(output.shape)
    if value.ndim == 2 and value.shape[::-1] == output.shape:
        remedies.append(f"{argument}.t() if its rows are the columns of `{name}`")
    if value.numel() == output.numel():
        remedies.append(f"{argument}.reshape({target}) if its entries are already in C order")
    elif _broadcasts(value, output):
        remedies.append(f"{argument}.expand({target}) to repeat it along the missing axes")
    if not remedies:
        remedies.append(f"torch.ones_like({name}) and scale the entries that matter")
    return f"Write {', or '.join(remedies)}."


def _broadcasts(value: Tensor, output: Tensor) -> bool:
    try:
        return torch.broadcast_shapes(value.shape, output.shape) == output.shape
    except RuntimeError:
        return False


@dataclass(frozen=True)
class Offer:
    """A cotangent the user might have meant, and what it would have given."""

    code: str
    meaning: str
    results: tuple[str, ...]


def no_cotangent(
    caller: str, name: str, output: Tensor, offers: Sequence[Offer], argument: str = "cotangents"
) -> NoReturn:
    """The refusal for an output of several elements without a cotangent."""
    lines = [
        f"{caller}: `{name}` has shape {shape_text(output.shape)}: {output.numel()} numbers, not "
        f"one, so there are {output.numel()} gradients, one per entry. `{argument}` must say which "
        f"weighted sum of them is meant, with one weight per entry. For instance:"
    ]
    for offer in offers:
        lines.append(f"  {offer.code}")
        lines.append(f"      {offer.meaning}")
        lines.extend(f"      {result}" for result in offer.results)
    raise CotangentError("\n".join(lines))


def differentiable_inputs(caller: str, argument: str, inputs: Leaves) -> None:
    """Inputs named by the user must be able to receive a gradient."""
    for name, tensor in zip(inputs.names, inputs.tensors, strict=True):
        if tensor.requires_grad:
            continue
        if not can_carry_gradients(tensor.dtype):
            raise ArgumentError(
                f"{caller}: `{name}` in `{argument}` has dtype {dtype_text(tensor.dtype)}, and "
                f"only floating point and complex tensors receive gradients. Leave it out."
            )
        raise ArgumentError(
            f"{caller}: `{name}` in `{argument}` does not require a gradient. Leave it out, or "
            f"call .requires_grad_() on it before the outputs are computed."
        )


def one_of(caller: str, argument: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        choices = " or ".join(repr(choice) for choice in allowed)
        raise ArgumentError(f"{caller}: `{argument}` is {value!r}; it must be {choices}.")


def differentiable_primals(caller: str, primals: Leaves) -> None:
    for name, tensor in zip(primals.names, primals.tensors, strict=True):
        if not can_carry_gradients(tensor.dtype):
            raise ArgumentError(
                f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}, and only floating point "
                f"and complex tensors can be differentiated. Convert it with .float() or "
                f".double(), or close over it: lambda x: func(x, {name})."
            )


def chunk_size(caller: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ArgumentError(
            f"{caller}: `chunk_size` is {value!r}; it must be a positive whole number, or None for "
            f"all products at once."
        )
