"""A record, and what it answers to a basis of cotangents, as the JSON data that the explorer reads.

Arrays are their bytes in base64, little-endian, with their type: what the page computes with is
what torch computed, bit for bit.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import views
from .events import Cotangent, Edge, PassData, PassNode
from .formulas import formulas_of
from .quantities import Place, Quantities, entries_of, quantities_of, size_of
from .responses import Responses, Rows, Structure, Vector

VERSION = 1
# A page holds no more values of one tensor, nor of all of them, than this many entries.
DRAWN = 65_536
_ALL = 1_000_000


def document_of(data: PassData, responses: Responses) -> dict[str, Any]:
    known = quantities_of(data)
    return {
        "version": VERSION,
        "title": ", ".join(output.name for output in data.outputs),
        "torch": data.torch_version,
        "summary": views.summary(data),
        "outputs": [_output(data, known, k) for k in range(len(data.outputs))],
        "leaves": [_leaf(data, known, k) for k in range(len(data.leaves))],
        "nodes": [_node(data, known, node) for node in data.nodes],
        "seeds": [_edge(known, edge, Place("seed", k, 0)) for k, edge in enumerate(data.seeds)],
        "quantities": _quantities(known),
        "basis": {
            "kind": responses.kind,
            "names": list(responses.names),
            "vectors": None if responses.vectors is None else _rows(responses.vectors),
            "reason": responses.reason,
        },
        "responses": {str(number): _rows(rows) for number, rows in responses.of.items()},
        "structure": None if responses.structure is None else _structure(responses.structure),
    }


def answer_of(values: Mapping[int, Vector]) -> dict[str, Any]:
    """What a live page is sent for a cotangent of its reader's: quantities by their numbers."""
    drawn = {number: array for number, array in values.items() if array.size <= DRAWN}
    return {"values": {str(number): numbers(array) for number, array in drawn.items()}}


def numbers(array: Vector) -> dict[str, Any]:
    """An array of float32, float64 or int32, in C order."""
    kind = {"float64": "f8", "float32": "f4", "int32": "i4"}[array.dtype.name]
    raw = np.ascontiguousarray(array).astype(f"<{kind}").tobytes()
    return {"type": kind, "data": base64.b64encode(raw).decode("ascii")}


def tensor_numbers(tensor: Tensor) -> dict[str, Any]:
    """A tensor's entries, as float32 where their own floats are shorter."""
    entries = entries_of(tensor)
    wide = entries.double() if entries.dtype in (torch.float64, torch.int64) else entries.float()
    return numbers(wide.numpy())


def _output(data: PassData, known: Quantities, k: int) -> dict[str, Any]:
    output = data.outputs[k]
    values = output.values
    v = output.cotangent.values
    return {
        "name": output.name,
        "shape": list(output.shape),
        "dtype": output.dtype,
        "node": output.node,
        "slot": output.slot,
        "values": None if values is None or values.numel() > DRAWN else tensor_numbers(values),
        "v": None if v is None or v.numel() > DRAWN else tensor_numbers(v),
    }


def _leaf(data: PassData, known: Quantities, k: int) -> dict[str, Any]:
    leaf = data.leaves[k]
    return {
        "name": leaf.label,
        "shape": list(leaf.shape),
        "dtype": leaf.dtype,
        "node": leaf.node,
        "deposit": known.number_at.get(Place("deposit", k, 0)),
        "hadGrad": leaf.had_grad,
        "hooks": list(leaf.hooks),
    }


def _node(data: PassData, known: Quantities, node: PassNode) -> dict[str, Any]:
    call = node.call
    return {
        "name": node.name,
        "leaf": None if node.leaf is None else data.leaf(node.leaf).label,
        "upstream": [
            known.number_at.get(Place("upstream", node.index, slot))
            for slot in range(len(node.upstream))
        ],
        "edges": [
            _edge(known, edge, Place("edge", node.index, k)) for k, edge in enumerate(node.edges)
        ],
        "error": node.conservation_error if np.isfinite(node.conservation_error) else None,
        "hooks": [*node.hooks, *node.sending_hooks],
        "formula": list(formulas_of(node.name)),
        "call": None
        if call is None
        else {
            "function": call.function,
            "file": call.file,
            "line": call.line,
            "code": call.code,
            "module": call.module,
        },
    }


def _edge(known: Quantities, edge: Edge, place: Place) -> dict[str, Any]:
    return {
        "to": edge.target,
        "slot": edge.slot,
        "position": edge.position,
        "sent": known.number_at.get(place),
    }


def _quantities(known: Quantities) -> list[dict[str, Any]]:
    left = _ALL
    found = []
    for item in known.items:
        held = item.values is not None and size_of(item) <= min(DRAWN, left)
        left -= size_of(item) if held else 0
        found.append(_quantity(item, held))
    return found


def _quantity(item: Cotangent, held: bool) -> dict[str, Any]:
    stats = item.stats
    measured = (stats.norm, stats.min, stats.max, stats.zeros)
    return {
        "shape": list(item.shape),
        "dtype": item.dtype,
        "stats": [value if np.isfinite(value) else str(value) for value in measured],
        "nonfinite": stats.nonfinite,
        "values": tensor_numbers(item.values) if held and item.values is not None else None,
    }


def _rows(rows: Rows) -> dict[str, Any]:
    return {
        "starts": numbers(rows.starts.astype(np.int32)),
        "indices": numbers(rows.indices.astype(np.int32)),
        "values": numbers(rows.values),
        "width": rows.width,
    }


def _structure(structure: Structure) -> dict[str, Any]:
    return {
        "shape": list(structure.shape),
        "leaves": list(structure.leaves),
        "starts": numbers(structure.starts),
        "columns": numbers(structure.columns),
        "by": structure.by,
        "colors": numbers(structure.colors),
        "products": structure.products,
        "reason": structure.reason,
    }
