"""Contracts about gradients: what can be asserted, and what cannot be known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn.parameter import is_lazy

from .._errors import ArgumentError, GraphError, UnsupportedError
from .words import article, listed

_PLACE = re.compile(r".+:[0-9]+")


def nothing_to_reach(caller: str, argument: str, module: str, frozen: int) -> ArgumentError:
    if frozen:
        return ArgumentError(
            f"{caller}: `{argument}` is a {module} whose {frozen} parameters are all frozen "
            f"(requires_grad is False), so there is nothing to assert. Thaw it, or pass the "
            f"tensors that must get a gradient by name: {{'weight': module.weight}}."
        )
    return ArgumentError(
        f"{caller}: `{argument}` is a {module} without parameters, so there is nothing to assert. "
        f"Pass a module that has some, or tensors."
    )


def initialized(caller: str, tensors: Mapping[str, Tensor]) -> None:
    lazy = [name for name, tensor in tensors.items() if is_lazy(tensor)]
    if lazy:
        raise ArgumentError(
            f"{caller}: {listed(lazy)} {'is' if len(lazy) == 1 else 'are'} not initialized: the "
            f"lazy module has not run, so nothing was computed from it. Run the forward pass first."
        )


def allowed_cuts(caller: str, allow: object, reasons: Sequence[str]) -> tuple[str, ...]:
    """Reasons and places, each ``file.py:12``; a single one may stand alone."""
    given = (allow,) if isinstance(allow, str) else allow
    if not isinstance(given, (tuple, list, set, frozenset)):
        raise ArgumentError(
            f"{caller}: `allow` is {article(allow)}; it must be a tuple of reasons and places, "
            f"such as ('detach', 'train.py:12')."
        )
    for entry in given:
        if not isinstance(entry, str) or not (entry in reasons or _PLACE.fullmatch(entry)):
            raise ArgumentError(
                f"{caller}: `allow` holds {entry!r}, which is neither a reason "
                f"({', '.join(reasons)}) nor a place such as 'train.py:12'."
            )
    return tuple(given)


def no_trace(caller: str, outputs: Sequence[str]) -> GraphError:
    """Neither a graph nor a cut is known."""
    return GraphError(
        f"{caller}: {listed(outputs)} {_have(outputs)} no graph, and nothing is noted of where it "
        f"was lost, so cuts cannot be ruled out. Compute {_them(outputs)} inside `with "
        f"pb.trace():`, from tensors that require a gradient."
    )


def partly_traced(
    caller: str, outputs: Sequence[str], nodes: Sequence[str], total: int
) -> GraphError:
    shown = ", ".join(dict.fromkeys(nodes[:4]))
    return GraphError(
        f"{caller}: {len(nodes)} of the {total} nodes behind {listed(outputs)} were not built "
        f"inside `with pb.trace():` ({shown}), so what was cut off among them cannot be known. Put "
        f"the whole forward pass inside the block."
    )


def more_cuts_than_noted(caller: str, outputs: Sequence[str]) -> UnsupportedError:
    return UnsupportedError(
        f"{caller}: behind {listed(outputs)} is a value with more cuts than are noted, and those "
        f"that are left out cannot be held against the places in `allow`. Allow their reasons "
        f"instead (allow=('no_grad',), say), or assert on a part of the program."
    )


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
