"""How the walk goes through an ``nn.Module``."""

from __future__ import annotations

from typing import Any

from torch import nn

from .containers import visit_entries
from .facts import Place
from .objects import entries_of, instance_state, module_of, name_of, visit_object
from .walk import Handler, Walk


def _visit_network(walk: Walk, place: Place, value: nn.Module) -> None:
    """As any object, but with the names that ``named_parameters`` gives."""
    module, name = module_of(type(value)), name_of(type(value))
    if module.startswith("torch.jit"):
        visit_object(walk, place, value)
        return
    walk.fact(place, "object", (module, name), f"a {name}")
    entries = entries_of(value)
    for key in ("_parameters", "_buffers", "_modules"):
        table = entries.get(key)
        if type(table) is dict:
            walk.hold(table)
            walk.claim(place.attr(key), table)
            visit_entries(walk, place.attr(key), table, place.attr)
    instance_state(walk, place, value)


HANDLERS: dict[type[Any], Handler] = {nn.Module: _visit_network}
