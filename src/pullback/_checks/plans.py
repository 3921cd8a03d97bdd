"""Plans of sparse Jacobians, and calls along them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from torch import Tensor

from .. import _torch
from .._errors import ArgumentError, RecordFormatError, UnsupportedError
from .leaves import Leaves
from .words import dtype_text, shape_text


def lift_option(caller: str, lift: object) -> None:
    if not isinstance(lift, bool) and lift != "auto":
        raise ArgumentError(f"{caller}: `lift` is {lift!r}; it must be True, False or 'auto'.")


def unknown_frozen(caller: str, name: str, known: Sequence[str]) -> ArgumentError:
    there = ", ".join(f"`{k}`" for k in known) or "none"
    return ArgumentError(
        f"{caller}: `freeze` names {name!r}, but `func` reads no tensor of that name. The tensors "
        f"that it reads: {there}."
    )


def pattern_shape(caller: str, given: tuple[int, int], needed: tuple[int, int]) -> None:
    if given != needed:
        raise ArgumentError(
            f"{caller}: `pattern` has shape {given}, but the Jacobian has shape {needed}: a row "
            f"per output element, a column per element of the selected arguments (two each where "
            f"they are complex)."
        )


def no_forward_products(caller: str, mode: str, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: mode={mode!r} takes products J t, and there are none for this function: "
        f"{reason}. Use mode='rev', or 'auto'."
    )


def not_symmetric(caller: str, mode: str, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: mode={mode!r} reads entries from their mirrors, and the Hessian is not known "
        f"to be symmetric: {reason}. Use mode='rev', or 'auto'."
    )


def plan_needs_symmetry(caller: str, reason: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: the plan reads entries from their mirrors, and the Hessian of `func` is not "
        f"known to be symmetric: {reason}. {_plan_again('hessian')}"
    )


def plan_leaves(caller: str, kind: str, planned: Sequence[Any], found: Sequence[Any]) -> None:
    """The tensors that a plan was made for, against those of a call."""
    if len(planned) != len(found):
        raise ArgumentError(
            f"{caller}: the plan was made for {len(planned)} {kind} tensors, and there are "
            f"{len(found)}. {_plan_again(caller)}"
        )
    for want, have in zip(planned, found, strict=True):
        if want.shape != have.shape or want.dtype != have.dtype:
            raise ArgumentError(
                f"{caller}: the plan was made for `{want.name}` of shape "
                f"{shape_text(want.shape)} and dtype {dtype_text(want.dtype)}, but it has shape "
                f"{shape_text(have.shape)} and dtype {dtype_text(have.dtype)}. "
                f"{_plan_again(caller)}"
            )


def _plan_again(caller: str, kind: str = "jacobian") -> str:
    return f"Plan again for it: pb.plan_{_kind(caller, kind)}(func, *args)."


def _kind(caller: str, otherwise: str = "jacobian") -> str:
    return "hessian" if "hessian" in caller.lower() else otherwise


def plan_kind(caller: str, planned: str, wanted: str) -> None:
    if planned != wanted:
        raise ArgumentError(
            f"{caller}: the plan is one of a {planned}, and this is a {wanted}. Make one with "
            f"pb.plan_{wanted}(func, *args), or call pb.{planned}."
        )


def plan_argnums(caller: str, planned: tuple[int, ...], given: tuple[int, ...]) -> None:
    if planned != given:
        raise ArgumentError(
            f"{caller}: the plan was made with argnums={planned}, and this call differentiates "
            f"argnums={given}. Pass the same argnums to both."
        )


def plan_misses(caller: str, entry: tuple[int, int]) -> ArgumentError:
    i, j = entry
    return ArgumentError(
        f"{caller}: the plan does not fit `func`: output element {i} may depend on input element "
        f"{j}, and the plan's pattern has no entry ({i}, {j}). {_plan_again(caller)}"
    )


def fact_changed(caller: str, difference: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: {difference}, and the plan's pattern relies on it. {_plan_again(caller)} Or "
        f"leave plan out: with layout=torch.sparse_csr it is then planned anew when this happens."
    )


def fact_is_gone(caller: str, name: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: the plan's pattern relies on the content of `{name}`, which `func` no longer "
        f"reads. {_plan_again(caller)}"
    )


def jacobian_layout(caller: str, layout: object, allowed: Sequence[object]) -> None:
    if layout not in allowed:
        *others, last = (repr(k) if isinstance(k, str) else str(k) for k in allowed)
        raise ArgumentError(
            f"{caller}: `layout` is {layout!r}; it must be {', '.join(others)} or {last}."
        )


def not_a_plan(caller: str, plan: object) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `plan` is a {type(plan).__name__}, not a plan. Make one with "
        f"pb.plan_{_kind(caller)}(func, *args), or read one with pb.Plan.load(path)."
    )


def weights_do_not_fit(
    caller: str, given: Any, outputs: Sequence[tuple[int, ...]], rows: int
) -> ArgumentError:
    shape = getattr(given, "shape", None)
    what = type(given).__name__ if shape is None else f"of shape {shape_text(tuple(shape))}"
    wanted = " and ".join(map(shape_text, outputs))
    return ArgumentError(
        f"{caller}: `weights` is {what}, and the outputs of `func` have shape {wanted}: {rows} "
        f"rows of J. Pass a weight for each element, in the structure of the outputs or as a "
        f"vector of shape ({rows},), or a matrix of shape ({rows}, {rows})."
    )


def out_does_not_fit(caller: str, target: Any, fresh: Any) -> ArgumentError:
    def described(matrix: Any) -> str:
        layout = getattr(matrix, "layout", getattr(matrix, "format", type(matrix).__name__))
        shape = tuple(getattr(matrix, "shape", ()))
        return f"{str(layout).removeprefix('torch.')} of shape {shape}, {matrix.dtype}"

    given = described(target) if hasattr(target, "dtype") else f"a {type(target).__name__}"
    return ArgumentError(
        f"{caller}: `out` is {given}, but the result is {described(fresh)}. Pass a matrix that an "
        f"earlier call of the same jacobian returned, or leave out out."
    )


def real_graph(caller: str, *trees: Leaves) -> None:
    for leaves in trees:
        for name, tensor in zip(leaves.names, leaves.tensors, strict=True):
            if tensor.is_complex():
                raise UnsupportedError(
                    f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}, and the matrix is "
                    f"real. Differentiate pairs of reals: torch.view_as_real(...) of a complex "
                    f"output, and the real tensor that torch.view_as_complex made an input of."
                )


def entry_of_pattern(caller: str, row: object, col: object, shape: tuple[int, int]) -> None:
    if row is None and col is None:
        return
    for name, value, size in (("row", row, shape[0]), ("col", col, shape[1])):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < size:
            raise ArgumentError(
                f"{caller}: `{name}` is {value!r}; the matrix has {size} {name}s, counted from 0. "
                f"Give both places, or neither to ask which call made the pattern dense."
            )


def pattern_without_story(caller: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: this pattern does not know where it comes from: it was given, loaded or made "
        f"from another one. Ask the pattern of pb.plan_jacobian(func, *args)."
    )


_ROWS = {"jacobian": "output", "hessian": "gradient"}


def plan_is_wrong(
    caller: str,
    entry: tuple[int, int],
    truth: float,
    found: float,
    in_pattern: bool,
    kind: str = "jacobian",
) -> ArgumentError:
    what = (
        f"the plan gives {found:.6g}"
        if in_pattern
        else "the plan's pattern has no such entry, so it counts as zero"
    )
    return ArgumentError(
        f"{caller}: the plan is wrong at entry {entry}: autograd gives {truth:.6g} for the "
        f"derivative of {_ROWS[kind]} element {entry[0]} with respect to input element "
        f"{entry[1]}, and {what}. {_plan_again(caller, kind)}"
    )


def not_a_plan_file(caller: str, path: str, detail: str) -> RecordFormatError:
    return RecordFormatError(
        f"{caller}: {path} is no plan that Plan.save wrote, or it is damaged: {detail}"
    )


def plan_format(caller: str, path: str, found: object, wanted: int) -> RecordFormatError:
    return RecordFormatError(
        f"{caller}: {path} is written in format {found}, and this version reads format {wanted}. "
        f"{_plan_again(caller)}"
    )


def plan_torch(caller: str, path: str, found: str, here: str) -> RecordFormatError:
    return RecordFormatError(
        f"{caller}: {path} was made with torch {found}, and this is torch {here}, whose backward "
        f"passes may be others. {_plan_again(caller)}"
    )


def all_complex(caller: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    for leaf in (*inputs, *outputs):
        if not leaf.dtype.is_complex:
            raise ArgumentError(
                f"{caller}: holomorphic=True, but `{leaf.name}` has dtype "
                f"{dtype_text(leaf.dtype)}. A holomorphic function maps complex tensors to complex "
                f"tensors; leave holomorphic out for the real matrix of (re, im) rows and columns."
            )


def not_holomorphic(caller: str, entry: tuple[int, int]) -> ArgumentError:
    return ArgumentError(
        f"{caller}: holomorphic=True, but `func` is not: at entry {entry} its real derivatives "
        f"break the Cauchy-Riemann equations (as conj, abs, real and imag do). Leave holomorphic "
        f"out for the real matrix of (re, im) rows and columns."
    )


def indices_in_sight(
    caller: str, tensors: Sequence[Tensor], names: Sequence[str], guarded: Container[str]
) -> None:
    """Indices that a running transform has wrapped differ from slice to slice."""
    for tensor, name in zip(tensors, names, strict=True):
        if name in guarded and _torch.is_transform_tensor(tensor):
            raise UnsupportedError(
                f"{caller}: the pattern relies on the content of `{name}`, and a torch.func "
                f"transform batches it: every slice has a pattern of its own. Map over the other "
                f"arguments only, or loop over `{name}`."
            )


def plan_is_wrong_in_column(caller: str, column: int, kind: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: the plan is wrong in the derivatives with respect to input element {column}: "
        f"random products differ from those of autograd. {_plan_again(caller, kind)}"
    )
