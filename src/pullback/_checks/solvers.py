"""What solvers hand over, and what a root has to be, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import scipy.sparse
import torch
from torch import Tensor

from .._errors import ArgumentError, GraphError, TreeError, UnsupportedError
from .words import dtype_text, shape_text


def start_of_solver(caller: str, name: str, tensor: Tensor) -> None:
    """The sample point of a solver's function: real, and of a dtype that numpy has."""
    if tensor.dtype.is_complex:
        raise UnsupportedError(
            f"{caller}: `{name}` is complex. Solve for its parts: pass torch.view_as_real({name}) "
            f"and let `func` begin with torch.view_as_complex."
        )
    if tensor.dtype not in (torch.float64, torch.float32, torch.float16):
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}. Solvers need floating "
            f"point numbers that numpy has: float64, or float32."
        )


def solver_array(caller: str, name: str, given: Any, size: int, shape: Sequence[int]) -> None:
    """An array that a solver passes, against the sample that the function was prepared with."""
    if given.dtype.kind not in "fiub":
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {given.dtype}; it must hold real numbers."
        )
    if given.size != size:
        raise ArgumentError(
            f"{caller}: `{name}` has {given.size} elements, shape {shape_text(given.shape)}, but "
            f"the function was prepared for {size}, shape {shape_text(shape)}. Prepare it again "
            f"with a sample of the new size."
        )


def solver_value(caller: str, returned: object) -> Tensor:
    """What a solver's function returned: one tensor."""
    if not isinstance(returned, Tensor):
        raise TreeError(
            f"{caller}: `func` returned a {type(returned).__name__}; a solver needs one tensor. "
            f"Join several with torch.cat([a.reshape(-1), b.reshape(-1)])."
        )
    if not returned.is_floating_point():
        raise ArgumentError(
            f"{caller}: `func` returned dtype {dtype_text(returned.dtype)}; a solver needs real "
            f"floating point numbers. Of complex ones take torch.view_as_real."
        )
    return returned


def solver_scalar(caller: str, value: Tensor) -> None:
    if value.numel() != 1:
        raise ArgumentError(
            f"{caller}: `func` returned shape {shape_text(value.shape)}, {value.numel()} elements; "
            f"an objective is one number. For a vector use pullback.interop.scipy.residual, or "
            f"return its sum."
        )


def rate_of_state(caller: str, value: Tensor, state: Tensor) -> None:
    if value.numel() != state.numel():
        raise ArgumentError(
            f"{caller}: `func` returned shape {shape_text(value.shape)} for a state of shape "
            f"{shape_text(state.shape)}; a rate has one element for each of the state."
        )


def written_argument(caller: str, name: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `func` wrote into `{name}` in place: the solver's own memory, and what "
        f"autograd differentiates. Let it write into a copy: {name} = {name}.clone()."
    )


def as_many_equations(caller: str, equations: int, unknowns: int) -> None:
    if equations != unknowns:
        raise ArgumentError(
            f"{caller}: `residual` has {equations} elements and `solution` {unknowns}. A root "
            f"depends on the parameters in one way only where there are as many equations as "
            f"unknowns; for least squares pass the gradient of the sum of squares as `residual`."
        )


def real_solution(caller: str, name: str, tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TreeError(
            f"{caller}: `{name}` is a {type(tensor).__name__}, not a tensor. A numpy array becomes "
            f"one by torch.from_numpy."
        )
    if tensor.dtype.is_complex:
        raise UnsupportedError(
            f"{caller}: `{name}` is complex. Write the equation for torch.view_as_real({name})."
        )
    if not tensor.is_floating_point():
        raise ArgumentError(
            f"{caller}: `{name}` has dtype {dtype_text(tensor.dtype)}; it must be floating point."
        )
    return tensor


def not_a_root(caller: str, residual: float, away: float, allowed: float) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `solution` is no root of `residual`: |residual| is {residual:.3g}, and a "
        f"Newton step from there has length {away:.3g}, where {allowed:.3g} is allowed. Solve to a "
        f"tighter tolerance, check that the parameters are those it was solved with, or accept it "
        f"by a larger `tolerance`."
    )


def singular(caller: str, detail: str) -> GraphError:
    return GraphError(
        f"{caller}: the residual's Jacobian with respect to the solution is singular: {detail}. "
        f"The root is not isolated there, and has no derivative with respect to the parameters. "
        f"Fix what is left free by one more equation."
    )


def hidden_parameters(caller: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `residual` reads a tensor that requires grad and is none of `params`; its "
        f"gradient would be left out. Pass it as one of them (of a module, its parameters by "
        f"torch.func.functional_call), or detach it."
    )


def nothing_needs_the_root(caller: str) -> ArgumentError:
    return ArgumentError(f"{caller}: `params` is empty. Pass what the solution depends on.")


def parameters_changed(caller: str) -> GraphError:
    return GraphError(
        f"{caller}: a tensor of `params` was changed in place after the call, so the root is no "
        f"longer that of the equation. Change it out of place, or solve and call again."
    )


def one_point_at_a_time(caller: str) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: many points at once are not solved at once. Loop over them, or stack their "
        f"equations into one residual."
    )


def square_matrix(caller: str, matrix: Any, size: int) -> Any:
    """The matrix of ``jac`` as SciPy or numpy has it."""
    if isinstance(matrix, Tensor):
        matrix = matrix.detach().cpu()
        if matrix.layout is torch.strided:
            matrix = matrix.reshape(size, -1).numpy()
        else:
            csr = matrix.to_sparse_csr()
            parts = (csr.values(), csr.col_indices(), csr.crow_indices())
            values, columns, starts = (part.numpy() for part in parts)
            matrix = scipy.sparse.csr_array((values, columns, starts), shape=tuple(csr.shape))
    if matrix.shape != (size, size):
        raise ArgumentError(
            f"{caller}: `jac` gives a matrix of shape {shape_text(matrix.shape)}; the residual's "
            f"Jacobian with respect to the solution has shape {shape_text((size, size))}."
        )
    return matrix
