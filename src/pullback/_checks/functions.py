"""Functions to be differentiated: their arguments, tangents and outputs."""

from __future__ import annotations

import re
from typing import NoReturn

from torch import Tensor

from .._errors import ArgumentError, TreeError, UnsupportedError
from .._trees import Tree, flatten, same_structure
from .leaves import Leaves
from .words import (
    article,
    can_carry_gradients,
    dtype_text,
    first_line,
    layout,
    shape_difference,
    shape_remedy,
    shape_text,
)


def differentiable_primals(caller: str, primals: Leaves) -> None:
    for name, tensor in zip(primals.names, primals.tensors, strict=True):
        if not can_carry_gradients(tensor.dtype):
            raise ArgumentError(
                f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}, and only floating point "
                f"and complex tensors can be differentiated. Convert it with .float() or "
                f".double(), or close over it: lambda x: func(x, {name})."
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
    return "a tensor" if isinstance(value, Tensor) else article(value)


def refuse_outputs(caller: str, returned: Tree) -> NoReturn:
    """The refusal for outputs of a function that hold something other than tensors."""
    leaves, structure = flatten(returned)
    for leaf, path in zip(leaves, structure.paths, strict=True):
        if not isinstance(leaf, Tensor):
            where = f" at [output]{path}" if path else ""
            raise TreeError(
                f"{caller}: `func` returned {article(leaf)}{where}, not a tensor. Return tensors "
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


def one_number(caller: str, outputs: Leaves) -> None:
    """Refuse outputs that have more than one second derivative for a pair of inputs."""
    if len(outputs.tensors) == 1 and outputs.tensors[0].numel() == 1:
        return
    what = f"{len(outputs.tensors)} tensors"
    if len(outputs.tensors) == 1:
        what = f"a tensor of shape {shape_text(tuple(outputs.tensors[0].shape))}"
    raise ArgumentError(
        f"{caller}: `func` returned {what}, and a Hessian is of one number. Return the number that "
        f"the second derivatives are of, out.sum() for one; or pass cotangents=v, of the shape of "
        f"the output, for the Hessian of v · func."
    )


def once_differentiable(caller: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: a custom Function of `func` is marked @once_differentiable: its backward may "
        f"not be differentiated. Take the mark away and write the backward with torch's "
        f"operations, on tensors of ctx.saved_tensors."
    )


_NO_DERIVATIVE = re.compile(r"derivative for '?(?:aten::)?(\w+)'? is not implemented")


def no_second_derivative(caller: str, error: Exception) -> UnsupportedError | None:
    """The refusal for what autograd said while it differentiated a backward; None where it said
    something else."""
    found = _NO_DERIVATIVE.search(first_line(error))
    if found is None:
        return None
    call = found[1].removeprefix("_").removesuffix("_backward")
    return UnsupportedError(
        f"{caller}: torch has no derivative of the backward of {call} ({found[1]}), which `func` "
        f"calls. Write {call} in `func` with operations that have one: sums, products, powers."
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
            f"{caller}: `tangents` is laid out as {layout(tangents)}, but `primals` is laid out "
            f"as {layout(primals.structure.rebuild(primals.tensors))}; the two are paired leaf by "
            f"leaf. Pass one tangent per primal, in the same structure."
        )
    for value, path, name, primal in zip(
        given, structure.paths, primals.names, primals.tensors, strict=True
    ):
        if not isinstance(value, Tensor):
            raise TreeError(
                f"{caller}: the tangent `tangents{path}` for `{name}` is {article(value)}, not a "
                f"tensor. Write torch.zeros_like({name}) to hold that argument fixed."
            )
        if value.shape != primal.shape:
            raise ArgumentError(
                f"{caller}: the tangent `tangents{path}` has shape {shape_text(value.shape)}, but "
                f"`{name}` has shape {shape_text(primal.shape)}; the two are paired entry by "
                f"entry. {shape_difference(value, primal)}"
                f"{shape_remedy(f'tangents{path}', name, value, primal)}"
            )
        if value.device != primal.device:
            raise ArgumentError(
                f"{caller}: the tangent `tangents{path}` is on {value.device}, but `{name}` is on "
                f"{primal.device}. Write tangents{path}.to({name}.device)."
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


def _in_a_line(value: object) -> str:
    text = repr(value)
    return text if "\n" not in text and len(text) <= 80 else article(value)


def argnums_for(caller: str, argnums: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """Which of ``count`` arguments are meant, counted from 0."""
    given = argnums if isinstance(argnums, tuple) else (argnums,)
    for k in given:
        if not isinstance(k, int) or isinstance(k, bool):
            plan = " A plan is handed in as `plan=`." if type(k).__name__ == "Plan" else ""
            raise ArgumentError(
                f"{caller}: `argnums` is {_in_a_line(argnums)}; it must be the position of an "
                f"argument, or a tuple of positions.{plan}"
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


def compiled_region() -> NoReturn:
    raise UnsupportedError(
        "pullback: this product may be differentiated again, and it runs through a region that "
        "torch.compile compiled, whose backward torch cannot differentiate. Pass the function "
        "that is not compiled; or take the product under torch.no_grad()."
    )


def no_hvp(caller: str, reverse: Exception, forward: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: torch can differentiate the gradient of `func` neither way.\n"
        f"  Reverse over reverse: {first_line(reverse)}\n"
        f"  Forward over reverse: {first_line(forward)}\n"
        f"Write the backward of custom Functions with differentiable torch operations."
    )


def gradient_of_nothing(caller: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: the Jacobian of what backward gives is not symmetric: u · H w and w · H u "
        f"differ for random u and w. The backward of `func` is then the gradient of no function: a "
        f"straight-through estimator has such a one. Take pb.JacobianOperator of the gradient."
    )
