"""Cotangents: one per output, paired entry by entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._errors import ArgumentError, CotangentError, TreeError
from .._trees import Tree, flatten, same_structure
from .leaves import Leaves
from .words import article, dtype_text, layout, shape_difference, shape_remedy, shape_text


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
                f"{caller}: `{argument}` is laid out as {layout(cotangents)}, but the outputs are "
                f"laid out as {layout(outputs.structure.rebuild(outputs.tensors))}; the two are "
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


def _cotangent_for(
    caller: str, argument: str, name: str, output: Tensor, value: Any, cast: bool
) -> Tensor:
    if value is None:
        return torch.ones_like(output)
    if not isinstance(value, Tensor):
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` for `{name}` is {article(value)}, not a "
            f"tensor. Write torch.full_like({name}, value) for one weight everywhere."
        )
    if value.shape != output.shape:
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` has shape {shape_text(value.shape)}, but "
            f"`{name}` has shape {shape_text(output.shape)}; the two are paired entry by entry. "
            f"{shape_difference(value, output)}{shape_remedy(argument, name, value, output)}"
        )
    if value.device != output.device:
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` is on {value.device}, but `{name}` is on "
            f"{output.device}. Write {argument}.to({name}.device)."
        )
    if value.layout != output.layout and value.layout is not torch.strided:
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` is sparse, but `{name}` is dense. Write "
            f"{argument}.to_dense()."
        )
    if value.dtype != output.dtype and not (cast and _torch_would_cast(value, output)):
        raise CotangentError(
            f"{caller}: the cotangent `{argument}` has dtype {dtype_text(value.dtype)}, but "
            f"`{name}` has dtype {dtype_text(output.dtype)}. Write {argument}.to({name}.dtype)."
        )
    return value


def _torch_would_cast(value: Tensor, output: Tensor) -> bool:
    return value.dtype.is_complex == output.dtype.is_complex


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


def batched_cotangents_for(caller: str, outputs: Leaves, batch: Tree) -> tuple[Tensor, ...]:
    """One batch of cotangents per output, ``B`` of them along a leading axis."""
    given, structure = flatten(batch)
    if not same_structure(structure, outputs.structure):
        raise CotangentError(
            f"{caller}: `cotangents` is laid out as {layout(batch)}, but the outputs are laid out "
            f"as {layout(outputs.structure.rebuild(outputs.tensors))}; the two are paired leaf by "
            f"leaf. Pass one batch of cotangents per output, in the same structure."
        )
    size: int | None = None
    for value, path, name, output in zip(
        given, outputs.structure.paths, outputs.names, outputs.tensors, strict=True
    ):
        argument = f"cotangents{path}"
        if not isinstance(value, Tensor):
            raise CotangentError(
                f"{caller}: the batch `{argument}` for `{name}` is {article(value)}, not a "
                f"tensor. Stack the cotangents along a new leading axis with torch.stack."
            )
        if value.shape[1:] != output.shape or value.ndim == 0:
            wanted = ", ".join(["B", *map(str, output.shape)]) + ("," if output.ndim == 0 else "")
            one = value.shape == output.shape
            remedy = f"{argument}.unsqueeze(0)" if one else f"pb.cotangents.basis({name})"
            raise CotangentError(
                f"{caller}: the batch `{argument}` has shape {shape_text(value.shape)}, but B "
                f"cotangents for `{name}` have shape ({wanted}): a leading axis, then the shape of "
                f"`{name}`. Write {remedy} for {'this one cotangent' if one else 'all rows of J'}."
            )
        if size is not None and value.shape[0] != size:
            raise CotangentError(
                f"{caller}: the batch `{argument}` holds {value.shape[0]} cotangents, but the "
                f"batches before it hold {size}; product k takes entry k of each. Give every "
                f"output the same number."
            )
        size = value.shape[0]
        if value.device != output.device:
            raise CotangentError(
                f"{caller}: the batch `{argument}` is on {value.device}, but `{name}` is on "
                f"{output.device}. Write {argument}.to({name}.device)."
            )
        if value.dtype != output.dtype and not _torch_would_cast(value, output):
            raise CotangentError(
                f"{caller}: the batch `{argument}` has dtype {dtype_text(value.dtype)}, but "
                f"`{name}` has dtype {dtype_text(output.dtype)}. Write {argument}.to({name}.dtype)."
            )
    return tuple(given)


def named_cotangents(caller: str, cotangents: object) -> None:
    if not isinstance(cotangents, Mapping):
        raise TreeError(
            f"{caller}: `cotangents` is {article(cotangents)}, not a mapping. Give each cotangent "
            f"a name: {{'uniform': v1, 'first row': v2}}."
        )
    if not cotangents:
        raise ArgumentError(f"{caller}: `cotangents` is empty. Name at least one cotangent.")


def named_cotangent_missing(caller: str, argument: str, out: Leaves, position: int) -> NoReturn:
    name, output = out.names[position], out.tensors[position]
    raise CotangentError(
        f"{caller}: `{argument}` has no cotangent for `{name}`, which holds {output.numel()} "
        f"numbers. Write pb.cotangents.ones({name}) for the gradient of their sum."
    )
