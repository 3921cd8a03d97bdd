"""Every check of a user's argument, and the wording of every refusal.

A check takes the public name of its caller first: the message starts with it, then names the
place in the argument, what is there, the rule, and what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return bool(torch.broadcast_shapes(value.shape, output.shape) == output.shape)
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


IN_PLACE_NOTE = (
    "If the tensor changed in place is an argument of func, let func work on a copy: "
    "x = x.clone(). A derivative is taken at the value that func was given."
)


def output_and_aux(caller: str, returned: Tree) -> tuple[Tree, Tree]:
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise TreeError(
            f"{caller}: with has_aux=True `func` must return a tuple (output, aux), but it "
            f"returned {_returned(returned)}. Return both, or leave has_aux out."
        )
    return returned


def _returned(value: Tree) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "a tensor" if isinstance(value, Tensor) else _article(value)


def refuse_outputs(caller: str, returned: Tree) -> NoReturn:
    """The refusal for outputs of a function that hold something other than tensors."""
    leaves, structure = flatten(returned)
    for leaf, path in zip(leaves, structure.paths, strict=True):
        if not isinstance(leaf, Tensor):
            where = f" at [output]{path}" if path else ""
            raise TreeError(
                f"{caller}: `func` returned {_article(leaf)}{where}, not a tensor. Return tensors "
                f"only; what is not to be differentiated goes into aux: "
                f"return output, aux with has_aux=True."
            )
    raise TreeError(f"{caller}: `func` returned no tensors. Return at least one.")


def differentiable_outputs(caller: str, outputs: Leaves) -> None:
    for name, tensor in zip(outputs.names, outputs.tensors, strict=True):
        if not can_carry_gradients(tensor.dtype):
            raise ArgumentError(
                f"{caller}: `{name}`, an output of `func`, has dtype {dtype_text(tensor.dtype)}, "
                f"and only floating point and complex tensors have derivatives. Return it as aux "
                f"with has_aux=True, or return the values before they were rounded or compared."
            )


def primals_are_a_tuple(caller: str, primals: object) -> None:
    if not isinstance(primals, tuple):
        raise TreeError(
            f"{caller}: `primals` is {_returned(primals)}, not a tuple; `func` is called as "
            f"func(*primals). Write (x,) for a single argument."
        )


def tangents_for(caller: str, primals: Leaves, tangents: Tree) -> tuple[Tensor, ...]:
    """One tangent per primal, of its shape and on its device; dtypes are torch's business."""
    given, structure = flatten(tangents)
    if not same_structure(structure, primals.structure):
        raise TreeError(
            f"{caller}: `tangents` is laid out as {_layout(tangents)}, but `primals` is laid out "
            f"as {_layout(primals.structure.rebuild(primals.tensors))}; the two are paired leaf by "
            f"leaf. Pass one tangent per primal, in the same structure."
        )
    for value, path, name, primal in zip(
        given, structure.paths, primals.names, primals.tensors, strict=True
    ):
        if not isinstance(value, Tensor):
            raise TreeError(
                f"{caller}: the tangent `tangents{path}` for `{name}` is {_article(value)}, not a "
                f"tensor. Write torch.zeros_like({name}) to hold that argument fixed."
            )
        if value.shape != primal.shape:
            raise ArgumentError(
                f"{caller}: the tangent `tangents{path}` has shape {shape_text(value.shape)}, but "
                f"`{name}` has shape {shape_text(primal.shape)}; the two are paired entry by "
                f"entry. {_shape_difference(value, primal)}"
                f"{_shape_remedy(f'tangents{path}', name, value, primal)}"
            )
        if value.device != primal.device:
            raise ArgumentError(
                f"{caller}: the tangent `tangents{path}` is on {value.device}, but `{name}` is on "
                f"{primal.device}. Write tangents{path}.to({name}.device)."
            )
    return tuple(given)


def batched_cotangents_for(caller: str, outputs: Leaves, batch: Tree) -> tuple[Tensor, ...]:
    """One batch of cotangents per output, ``B`` of them along a leading axis."""
    given, structure = flatten(batch)
    if not same_structure(structure, outputs.structure):
        raise CotangentError(
            f"{caller}: `cotangents` is laid out as {_layout(batch)}, but the outputs are laid out "
            f"as {_layout(outputs.structure.rebuild(outputs.tensors))}; the two are paired leaf by "
            f"leaf. Pass one batch of cotangents per output, in the same structure."
        )
    size: int | None = None
    for value, path, name, output in zip(
        given, outputs.structure.paths, outputs.names, outputs.tensors, strict=True
    ):
        argument = f"cotangents{path}"
        if not isinstance(value, Tensor):
            raise CotangentError(
                f"{caller}: the batch `{argument}` for `{name}` is {_article(value)}, not a "
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


HIDDEN_BACKWARD = (
    "a part of the backward pass does not show up when it is differentiated again; a backward "
    "that computes outside autograd, or one that is not linear in its cotangent, does that."
)


NOT_ADJOINT = (
    "it gives another Jacobian than the backward pass: <v, J t> and <J' v, t> differ at a random "
    "v and t."
)


def no_jvp(caller: str, reverse: Exception, forward: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: torch can push this tangent through `func` neither way.\n"
        f"  Through the backward pass: {first_line(reverse)}\n"
        f"  Through forward mode: {first_line(forward)}\n"
        f"Write the backward of custom Functions with differentiable torch operations, or give "
        f"them a static method jvp."
    )


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def argnums_for(caller: str, argnums: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """Which of ``count`` arguments are meant, counted from 0."""
    given = argnums if isinstance(argnums, tuple) else (argnums,)
    for k in given:
        if not isinstance(k, int) or isinstance(k, bool):
            raise ArgumentError(
                f"{caller}: `argnums` is {argnums!r}; it must be the position of an argument, or a "
                f"tuple of positions."
            )
        if not -count <= k < count:
            arguments = "1 argument" if count == 1 else f"{count} arguments"
            raise ArgumentError(
                f"{caller}: `argnums` asks for argument {k}, but `func` was given {arguments}. "
                f"Count from 0, or from -1 at the end."
            )
    places = tuple(k % count for k in given)
    if not places or len(set(places)) != len(places):
        raise ArgumentError(
            f"{caller}: `argnums` is {argnums!r}; it must name at least one argument, and none "
            f"twice."
        )
    return places


def real(caller: str, tensors: Leaves, what: str) -> None:
    """Refuse complex tensors where a real matrix is promised."""
    for name, tensor in zip(tensors.names, tensors.tensors, strict=True):
        if tensor.is_complex():
            raise UnsupportedError(
                f"{caller}: `{name}`, an {what} of `func`, has dtype {dtype_text(tensor.dtype)}, "
                f"and the matrix is real. Write func with pairs of reals: "
                f"torch.view_as_complex on the way in, torch.view_as_real on the way out."
            )


def operand(
    caller: str,
    name: str,
    value: object,
    matrix: tuple[tuple[int, int], torch.dtype, torch.device],
    size: int,
    shapes: Sequence[str],
) -> None:
    """A vector, or a matrix of vectors, that is multiplied with an operator."""
    shape, dtype, device = matrix
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"{caller}: `{name}` is {_article(value)}, not a tensor. Pass a tensor, or use "
            f".to_scipy() for numpy arrays."
        )
    wanted = " or ".join(shapes)
    axis = -1 if name == "v" else 0
    if value.ndim not in range(1, len(shapes) + 1) or value.shape[axis] != size:
        raise ArgumentError(
            f"{caller}: `{name}` has shape {shape_text(value.shape)}, but the matrix has shape "
            f"{shape_text(shape)}, so `{name}` must have shape {wanted}, with one entry per "
            f"{'row' if name == 'v' else 'column'}. Flatten pytrees and tensors in C order: "
            f"torch.cat([t.reshape(-1) for t in ...])."
        )
    if value.dtype != dtype:
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {dtype_text(value.dtype)}, but the matrix has dtype "
            f"{dtype_text(dtype)}. Write {name}.to(torch.{dtype_text(dtype)})."
        )
    if value.device != device:
        raise ArgumentError(
            f"{caller}: `{name}` is on {value.device}, but the matrix is on {device}. Write "
            f"{name}.to({str(device)!r})."
        )


def numpy_dtype(caller: str, dtype: torch.dtype) -> Any:
    try:
        return torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError:
        raise UnsupportedError(
            f"{caller}: the matrix has dtype {dtype_text(dtype)}, which numpy does not have. "
            f"Build the operator at float32 primals."
        ) from None


def real_only(caller: str, tensors: Sequence[Tensor]) -> None:
    if any(tensor.is_complex() for tensor in tensors):
        raise ArgumentError(
            f"{caller}: complex tensors have no row sums to compare. Weigh their real and "
            f"imaginary parts: torch.view_as_real(...)."
        )


def named_cotangents(caller: str, cotangents: object) -> None:
    if not isinstance(cotangents, Mapping):
        raise TreeError(
            f"{caller}: `cotangents` is {_article(cotangents)}, not a mapping. Give each cotangent "
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


def known_name(caller: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        listed = ", ".join(map(repr, known))
        raise ArgumentError(f"{caller}: no cotangent is named {name!r}; there are {listed}.")


def one_tensor(caller: str, argument: str, value: object) -> Tensor:
    """A single floating point or complex tensor, for builders that address its entries."""
    if not isinstance(value, Tensor):
        if isinstance(value, (tuple, list, dict)):
            raise TreeError(
                f"{caller}: `{argument}` is {_article(value)}, not a tensor. Build one cotangent "
                f"per output and put them into {_article(value)} like the outputs."
            )
        raise TreeError(
            f"{caller}: `{argument}` is {_article(value)}, not a tensor. Pass the output itself."
        )
    _weighable(caller, argument, value)
    return value


def cotangent_targets(caller: str, argument: str, value: Tree) -> None:
    leaves = leaves_of(caller, argument, value)
    for name, tensor in zip(leaves.names, leaves.tensors, strict=True):
        _weighable(caller, name, tensor)


def _weighable(caller: str, name: str, tensor: Tensor) -> None:
    if not can_carry_gradients(tensor.dtype):
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}, and only floating point and "
            f"complex tensors have cotangents. Convert it with .float() or .double()."
        )


def entry(caller: str, out: Tensor, index: tuple[int, ...]) -> None:
    if len(index) != out.ndim:
        numbers = "1 number" if len(index) == 1 else f"{len(index)} numbers"
        raise ArgumentError(
            f"{caller}: `index` has {numbers}, but `out` has {_axes(out.ndim)} "
            f"(shape {shape_text(out.shape)}); an entry is named by one number per axis. "
            f"Use cotangents.rows or cotangents.mask to weigh more than one entry."
        )
    for axis, (k, size) in enumerate(zip(index, out.shape, strict=True)):
        if not isinstance(k, int) or isinstance(k, bool):
            raise ArgumentError(
                f"{caller}: `index` holds {k!r} at axis {axis}; it must be a whole number. "
                f"Use cotangents.rows or cotangents.mask to weigh more than one entry."
            )
        if not -size <= k < size:
            raise ArgumentError(
                f"{caller}: `index` is {k} at axis {axis}, but `out` has shape "
                f"{shape_text(out.shape)}. {_range_of(axis, size)}"
            )


def _range_of(axis: int, size: int) -> str:
    if size == 0:
        return f"Axis {axis} is empty: there is no entry to name."
    return f"Use a number from {-size} to {size - 1} there."


def rows_of(caller: str, out: Tensor, weights: Mapping[int, float | Tensor]) -> None:
    if out.ndim == 0:
        raise ArgumentError(
            f"{caller}: `out` has shape (), so it has no rows. Use cotangents.ones(out) and scale "
            f"it."
        )
    if not isinstance(weights, Mapping):
        raise ArgumentError(
            f"{caller}: `weights` is {_article(weights)}, not a mapping. Write {{row: weight}}, "
            f"such as {{0: 1.0}}."
        )
    size = out.shape[0]
    places: dict[int, int] = {}
    for row, weight in weights.items():
        if not isinstance(row, int) or isinstance(row, bool):
            raise ArgumentError(
                f"{caller}: `weights` names row {row!r}; a row is named by a whole number."
            )
        if not -size <= row < size:
            raise ArgumentError(
                f"{caller}: `weights` names row {row}, but `out` has shape "
                f"{shape_text(out.shape)}. {_range_of(0, size)}"
            )
        if row % size in places:
            raise ArgumentError(
                f"{caller}: `weights` names one row as {places[row % size]} and as {row}. Give "
                f"their sum once."
            )
        places[row % size] = row
        if isinstance(weight, Tensor) and weight.shape not in (out.shape[1:], ()):
            raise ArgumentError(
                f"{caller}: the weight of row {row} has shape {shape_text(weight.shape)}, but a "
                f"row of `out` has shape {shape_text(out.shape[1:])}. Give one weight per entry of "
                f"the row, or a number for all of it."
            )


def boolean_mask(caller: str, out: Tensor, chosen: object) -> None:
    if not isinstance(chosen, Tensor) or chosen.dtype != torch.bool:
        found = (
            f"has dtype {dtype_text(chosen.dtype)}"
            if isinstance(chosen, Tensor)
            else f"is {_article(chosen)}"
        )
        raise ArgumentError(
            f"{caller}: `chosen` {found}; it must be a boolean tensor. Write a comparison, such as "
            f"out > 0, or chosen.bool()."
        )
    if chosen.shape != out.shape:
        raise ArgumentError(
            f"{caller}: `chosen` has shape {shape_text(chosen.shape)}, but `out` has shape "
            f"{shape_text(out.shape)}; the two are paired entry by entry. "
            f"{_shape_difference(chosen, out)}{_shape_remedy('chosen', 'out', chosen, out)}"
        )
    if chosen.device != out.device:
        raise ArgumentError(
            f"{caller}: `chosen` is on {chosen.device}, but `out` is on {out.device}. Write "
            f"chosen.to(out.device)."
        )


def usable_sum(caller: str, total: Tensor) -> None:
    if total == 0 or not torch.isfinite(total):
        raise ArgumentError(
            f"{caller}: the weights of `v` add up to {total.item()}, and cannot be scaled to add "
            f"up to 1. Divide by v.abs().sum() or v.norm() if the size of v is what matters."
        )
