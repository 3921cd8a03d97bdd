"""The outputs and tensors that a contract is about, with what the user calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from .. import _checks
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from ..backward.provenance import parameter_name


def outputs_given(caller: str, outputs: Tree, names: CallerNames) -> Leaves:
    """Also outputs without a graph: that they have none may be what is to be found out."""
    name = None
    if isinstance(outputs, Tensor):
        name = names.of(outputs) or names.first_argument()
    out = _checks.leaves_of(caller, "outputs", outputs, name=name)
    _checks.outside_transforms(caller, out.tensors)
    _checks.has_values(caller, out)
    return out


def tensors_given(caller: str, argument: str, given: Tree, names: CallerNames) -> dict[str, Tensor]:
    """Name to tensor: of modules, the parameters that require a gradient."""
    if isinstance(given, nn.Module):
        return _of_module(caller, argument, given)
    if not isinstance(given, (Tensor, Mapping, tuple, list)) and isinstance(given, Iterable):
        given = list(given)
    found: dict[str, Tensor] = {}
    for key, part in _parts(argument, given):
        if isinstance(part, nn.Module):
            inner = _of_module(caller, key, part)
            found.update((f"{key}.{name}", tensor) for name, tensor in inner.items())
            continue
        leaves = _checks.leaves_of(caller, argument, part, name=key)
        _checks.outside_transforms(caller, leaves.tensors)
        for shown, tensor in zip(leaves.names, leaves.tensors, strict=True):
            own = None if isinstance(given, Mapping) else names.of(tensor) or parameter_name(tensor)
            found[own if own is not None and own not in found else shown] = tensor
    return found


def _parts(argument: str, given: Tree) -> list[tuple[str, Tree]]:
    if isinstance(given, Mapping) and given:
        return [(str(key), part) for key, part in given.items()]
    if isinstance(given, (tuple, list)) and given:
        return [(f"{argument}[{k}]", part) for k, part in enumerate(given)]
    return [(argument, given)]


def _of_module(caller: str, argument: str, module: nn.Module) -> dict[str, Tensor]:
    every = dict(module.named_parameters())
    found: dict[str, Tensor] = {name: p for name, p in every.items() if p.requires_grad}
    if not found:
        raise _checks.nothing_to_reach(caller, argument, type(module).__name__, len(every))
    _checks.outside_transforms(caller, list(found.values()))
    _checks.initialized(caller, found)
    return found
