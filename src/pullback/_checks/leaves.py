"""The tensors of one argument: flattened, named, and of a kind that can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .. import _torch
from .._errors import ArgumentError, TreeError, UnsupportedError
from .._trees import Structure, Tree, flatten
from .words import article


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
                f"{caller}: `{argument}{path}` is {article(leaf)}, not a tensor. "
                f"Pass a tensor, or a tuple, list or dict of tensors."
            )
    if not leaves:
        raise TreeError(f"{caller}: `{argument}` holds no tensors. Pass at least one.")
    named = isinstance(tree, dict) and name is None
    names = structure.names if named else tuple(shown + path for path in structure.paths)
    return Leaves(tuple(leaves), structure, tuple(n or shown for n in names))


def outside_transforms(caller: str, tensors: Sequence[Tensor]) -> None:
    running = _torch.running_transform()
    if running is not None or any(map(_torch.is_transform_tensor, tensors)):
        where = f"a running torch.func.{running}" if running else "a torch.func transform"
        raise UnsupportedError(
            f"{caller}: called inside {where}, whose graph torch keeps to itself and takes apart "
            f"when it returns. Call {caller} on tensors outside the transform, or take products "
            f"inside it with pb.vjp."
        )


def real_only(caller: str, tensors: Sequence[Tensor]) -> None:
    if any(tensor.is_complex() for tensor in tensors):
        raise ArgumentError(
            f"{caller}: complex tensors have no row sums to compare. Weigh their real and "
            f"imaginary parts: torch.view_as_real(...)."
        )


def a_tensor(caller: str, argument: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TreeError(f"{caller}: `{argument}` is {article(value)}. Pass one tensor.")
