"""Tensors of a module that are asked for by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import nn

from .._errors import ArgumentError, UnsupportedError
from .words import article, listed

_MOST_LISTED = 8


def module_for_names(caller: str, func: object) -> nn.Module:
    """Refuse anything but a module that holds its tensors in sight."""
    if not isinstance(func, nn.Module):
        owner = getattr(func, "__self__", None)
        instead = (
            "Pass the module itself, whose call runs its forward"
            if isinstance(owner, nn.Module)
            else "For a function, make the tensors an argument and select it with argnums: "
            "func(parameters, x) with torch.func.functional_call(module, parameters, (x,)) in it"
        )
        raise ArgumentError(
            f"{caller}: `wrt` names tensors of a module, and `func` is {article(func)}, not an "
            f"nn.Module. {instead}."
        )
    if isinstance(func, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"{caller}: `wrt` names tensors of a module, and `func` is a scripted module, which "
            f"lets nothing take their place. Pass the module that it was scripted from."
        )
    return func


def wrt_option(caller: str, wrt: object) -> list[str]:
    """The names and patterns of ``wrt``, one after the other."""
    entries = [wrt] if isinstance(wrt, str) else wrt
    if not isinstance(entries, (list, tuple)) or not all(isinstance(e, str) for e in entries):
        raise ArgumentError(
            f"{caller}: `wrt` is {wrt!r}; it must be 'inputs', 'parameters', the name of a tensor "
            f"of the module, a pattern of names such as 'layers.*.weight', or a list of these."
        )
    if not entries:
        raise ArgumentError(
            f"{caller}: `wrt` is empty. Name at least one tensor of the module, or leave wrt out "
            f"to differentiate with respect to the arguments."
        )
    return list(entries)


def no_argnums_beside_names(caller: str, argnums: object) -> None:
    if argnums != 0:
        raise ArgumentError(
            f"{caller}: `wrt` names tensors of the module, and `argnums` is {argnums!r}; the "
            f"columns are those of the one or of the other. Leave argnums out."
        )


def unknown_tensor_name(
    caller: str, name: str, parameters: Sequence[str], buffers: Sequence[str]
) -> ArgumentError:
    known = [*parameters, *buffers]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    last = name.rpartition(".")[2]
    near += [k for k in known if k.rpartition(".")[2] == last and k not in near][: 4 - len(near)]
    if near:
        said = f"Near it: {', '.join(map(repr, near))}"
    elif known:
        more = ", ..." if len(known) > _MOST_LISTED else ""
        said = f"It has {', '.join(map(repr, known[:_MOST_LISTED]))}{more}"
    else:
        said = "It has none at all"
    return ArgumentError(
        f"{caller}: `wrt` asks for {name!r}, and the module has no parameter or buffer of that "
        f"name. {said}. module.named_parameters() lists them."
    )


def pattern_matches_nothing(
    caller: str, pattern: str, parameters: Sequence[str], buffers: Sequence[str]
) -> ArgumentError:
    if buffers:
        instead = (
            f"It matches buffers, which count only by their full names: "
            f"{', '.join(map(repr, buffers[:_MOST_LISTED]))}"
        )
    elif parameters:
        more = ", ..." if len(parameters) > _MOST_LISTED else ""
        instead = f"The parameters: {', '.join(map(repr, parameters[:_MOST_LISTED]))}{more}"
    else:
        instead = "The module has no parameters"
    return ArgumentError(
        f"{caller}: `wrt` asks for {pattern!r}, which matches no parameter of the module. "
        f"{instead}."
    )


def no_trained_parameters(caller: str, parameters: Sequence[str]) -> ArgumentError:
    instead = (
        f"It has frozen ones, which count by their names: wrt={list(parameters[:2])!r}, say, or "
        f"wrt='*' for all"
        if parameters
        else "It has no parameters at all; leave wrt out to differentiate with respect to the "
        "arguments"
    )
    return ArgumentError(
        f"{caller}: `wrt` is 'parameters', and no parameter of the module requires grad. {instead}."
    )


def not_initialized(caller: str, name: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `{name}` has no shape yet: its lazy module was never called. Call the module "
        f"once on a sample, then ask again."
    )


def way_past_a_name(caller: str, names: Sequence[str]) -> UnsupportedError:
    what = listed(names)
    return UnsupportedError(
        f"{caller}: the output depends on {what} on a way past the name: the module reads the "
        f"tensor itself from a list, a closure or a plain attribute, or something computed from it "
        f"in an earlier call. That part of the derivative would be missing. Register the tensor as "
        f"a parameter wherever it is used (nn.ParameterList for a list), and detach what is kept "
        f"from call to call."
    )


def plan_names(caller: str, planned: Sequence[str], given: Sequence[str]) -> None:
    if tuple(planned) != tuple(given):

        def told(names: Sequence[str]) -> str:
            more = ", ..." if len(names) > _MOST_LISTED else ""
            shown = ", ".join(map(repr, names[:_MOST_LISTED]))
            return f"the tensors [{shown}{more}]" if names else "the arguments (no wrt)"

        raise ArgumentError(
            f"{caller}: the plan was made with respect to {told(planned)}, and this call "
            f"differentiates with respect to {told(given)}. Pass the same wrt to both."
        )
