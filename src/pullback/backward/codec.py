"""Frozen dataclasses to JSON and back, exactly: tensors by their bytes, floats by their digits.

Decoding follows the type annotations and builds nothing else, so a file cannot name a class or
run code.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import types
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .._checks import dtype_text
from .._errors import RecordFormatError


def encode(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _encode_tensor(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, value: Any, where: str) -> Any:
    """Build a value of the annotated type ``kind``; ``where`` names the place in a refusal."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(kind, value, where)
    if origin is tuple:
        item = get_args(kind)[0]
        if not isinstance(value, list):
            _refuse(where, "a list", value)
        variadic = get_args(kind)[-1] is Ellipsis
        kinds = [item] * len(value) if variadic else list(get_args(kind))
        if len(kinds) != len(value):
            _refuse(where, f"a list of {len(kinds)}", value)
        return tuple(
            decode(k, v, f"{where}[{n}]") for n, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if kind is Tensor:
        return _decode_tensor(value, where)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if kind is float:
        return _decode_float(value, where)
    if type(value) is not kind:
        _refuse(where, kind.__name__, value)
    return value


def _decode_union(kind: Any, value: Any, where: str) -> Any:
    options = get_args(kind)
    if value is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return decode(rest[0], value, where)
    if type(value) not in rest:
        _refuse(where, " or ".join(option.__name__ for option in rest), value)
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    hints = _hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(value, dict) or set(value) != set(names):
        _refuse(where, f"an object with the fields {', '.join(names)}", value)
    return kind(**{name: decode(hints[name], value[name], f"{where}.{name}") for name in names})


def _decode_float(value: Any, where: str) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(where, "a number", value)
    return float(value)


def _encode_tensor(tensor: Tensor) -> dict[str, Any]:
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
        parts = {"indices": encode(tensor.indices()), "values": encode(tensor.values())}
        return {"layout": "sparse_coo", "shape": list(tensor.shape), **parts}
    if tensor.layout is not torch.strided or tensor.is_mkldnn:
        tensor = tensor.to_dense()
    flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    data = base64.b64encode(flat.view(torch.uint8).numpy().tobytes()).decode("ascii")
    return {"dtype": dtype_text(tensor.dtype), "shape": list(tensor.shape), "data": data}


def _decode_tensor(value: Any, where: str) -> Tensor:
    if not isinstance(value, dict):
        _refuse(where, "a tensor object", value)
    shape = decode(tuple[int, ...], value.get("shape"), f"{where}.shape")
    if value.get("layout") == "sparse_coo":
        indices = _decode_tensor(value.get("indices"), f"{where}.indices")
        values = _decode_tensor(value.get("values"), f"{where}.values")
        made: Tensor = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)
        return made.coalesce()
    dtype = getattr(torch, str(value.get("dtype")), None)
    if not isinstance(dtype, torch.dtype) or not isinstance(value.get("data"), str):
        _refuse(where, "a tensor with a dtype and base64 data", value)
    assert isinstance(dtype, torch.dtype)
    try:
        raw = bytearray(base64.b64decode(value["data"], validate=True))
    except ValueError:
        _refuse(f"{where}.data", "base64", value["data"][:20])
    if any(n < 0 for n in shape) or len(raw) != math.prod(shape) * dtype.itemsize:
        _refuse(where, f"{math.prod(shape)} entries of {value['dtype']}", f"{len(raw)} bytes")
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=dtype).reshape(shape)


def _refuse(where: str, expected: str, found: Any) -> None:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise RecordFormatError(f"BackwardRecord.from_json: {where} must be {expected}; found {shown}.")
